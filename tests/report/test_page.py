"""The page, parsed: whole, self-contained, and saying the figures."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import paddle
from evaluated import WITHOUT, many, read_json, score
from PIL import Image

from ppcls.data import decode
from ppcls.models.class_maps import class_maps
from ppcls.report import figures, page
from ppcls.report.heatmaps import over


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(Path(path).read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for own, attributes in self.tags if own == tag]


def test_the_page_needs_nothing_from_outside(scores):
    page = Page("report/report.html")
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "base")
        assert not {"href", "srcset", "action", "style"} & set(attributes)
        assert tag == "img" or "src" not in attributes
    text = Path("report/report.html").read_text()
    assert not any(word in text for word in ("http://", "https://", "url(", "@import"))
    pictures = page.all("img")
    assert len(pictures) == 2 + 2 * min(figures.WORST, read_json()["mistakes"])
    for one in pictures:
        head, data = one["src"].split(",")
        image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
        image.load()
        assert head == f"data:image/{image.format.lower()};base64"
        assert len(one["alt"]) > 10
    assert len(page.all("script")) == 1
    assert {"lang": "en"} in page.all("html")


def test_the_page_says_the_figures_and_no_name_is_a_tag(scores):
    page = Page("report/report.html")
    for value in (f"{100 * scores['top1']:.2f}\u00a0%", f"{scores['loss']:.4f}", "no images"):
        assert value in page.text
    assert "\ncat & <b>dog</b>" in page.text  # in the table of classes
    assert ": cat & <b>dog</b>" in page.text  # in the contact sheet
    row = page.text[page.text.index("\nfox") :].splitlines()[1]
    assert row == f"foxno images{read_json()['classes'][WITHOUT]['predicted']}4"
    values = [cell["data-value"] for cell in page.all("td") if "data-value" in cell]
    assert len(values) == 7 * 8


def test_of_many_classes_the_worst_come_first_and_all_are_folded_away(tmp_path):
    report = many(tmp_path)
    page.write(report, tmp_path)
    shown = Page(tmp_path / "report.html")
    assert "All 130 classes" in shown.text
    tables = [one for one in shown.all("table") if one["class"] == "sortable"]
    assert len(tables) == 2
    assert len([cell for cell in shown.all("td") if "data-value" in cell]) == (50 + 130) * 8


def test_each_of_the_worst_mistakes_has_its_map_beside_it(network, scores):
    text = Path("report/report.html").read_text(encoding="utf-8")
    worst = read_json()["worst"]
    second = r'<div class="pair"><img [^>]*><img src="data:image/jpeg;base64,([^"]+)"'
    pairs = re.findall(second, text)
    assert len(pairs) == len(worst) > 5
    assert "what is dark did not come to it" in text
    first = np.asarray(Image.open(io.BytesIO(base64.b64decode(pairs[0]))).convert("RGB"))
    preprocess = network.recipe.preprocess
    pixels = decode.read(worst[0]["path"])
    inputs = paddle.to_tensor(preprocess.normalize([preprocess(pixels)]))
    values = class_maps(network.net, network.net.features(inputs)).numpy()
    expected = over(pixels, values[0, worst[0]["predicted"]], preprocess, page.SIDE)
    assert np.abs(first.astype(int) - np.asarray(expected)).mean() < 6  # JPEG


def test_a_network_that_does_not_say_what_its_features_are_has_no_maps(network):
    bare = replace(network, net=paddle.nn.Sequential(network.net))
    score(bare, Path("report"))
    assert 'class="pair"' not in Path("report/report.html").read_text(encoding="utf-8")
