"""`ppcls compare`: what it says, writes and ends with; each kind of cause, planted once."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ppcls.compare import weights
from ppcls.compare.answers import Answered
from ppcls.compare.causes import Cause, changes, moved_class, one_class
from ppcls.compare.compare import Opening, compare, lines, to_plain
from ppcls.data.preprocess import KEYS, Preprocess
from ppcls.export import Form
from ppcls.inference import auto, manifest
from ppcls.paired import by_class


@pytest.fixture(scope="module")
def model(shop, cases):
    """A network in Paddle's format."""
    return shop.exported("model", lambda: shop.base(0), Form(("paddle",), dynamic_size=True))


@pytest.fixture(scope="module")
def other(shop, cases):
    """Another one."""
    return shop.exported("other", lambda: shop.learnt(1, 3), Form(("paddle",), dynamic_size=True))


@pytest.fixture
def copy(model, cases, tmp_path):
    return cases.copied(model, tmp_path / "copy")


@pytest.fixture
def judge(shop):
    """Compare two folders, without timing them."""

    def judge(a, b, engines=("auto", "auto"), data=shop.eval):
        first, second = (Opening(path, e) for path, e in zip((a, b), engines, strict=True))
        return compare(first, second, data, "cpu", 1, 64, speed=False)

    return judge


@pytest.fixture
def quick(monkeypatch):
    """Timing without the time."""
    monkeypatch.setattr(auto, "SHORT_TURNS", 1)


def kinds(found):
    return [one.kind for one in found.causes]


def test_a_network_beside_itself(judge, model, copy):
    found = judge(model, copy)
    assert found.whole.p == 1
    assert (found.whole.lost, found.whole.won, found.agreement) == (0, 0, 1)
    assert found.causes == []
    text = "\n".join(lines(found))
    assert "no difference between A and B can be seen" in text
    assert "the same to the last bit" in text


def test_preprocessing(judge, model, copy, cases):
    cases.change_manifest(copy, resize=24, fill=0)
    found = judge(model, copy)
    assert kinds(found) == ["preprocessing"]
    assert found.causes[0].share == 1
    assert found.causes[0].words == "resize 24 in place of 20"


def test_an_engine_and_what_it_changes(judge, model):
    found = judge(model, model, ("onednn", "paddle"))
    assert kinds(found) in (["engine"], [])  # where both add in the same order
    assert found.spread.largest < 1e-4
    assert not found.whole.is_seen


def test_weights_beside_a_harmless_change_of_preprocessing(judge, other, model, cases, tmp_path):
    b = cases.copied(other, tmp_path / "other")
    cases.change_manifest(b, mean=(0.30001,))
    found = judge(model, b)
    assert kinds(found) == ["weights", "preprocessing"]
    assert found.causes[0].share > 0.99
    assert found.causes[1].share < 0.01
    right = [answer.decided == found.labels for answer in found.answered]
    assert found.whole.lost == (right[0] & ~right[1]).sum()
    assert found.whole.after == right[1].mean()


def test_both_make_their_part(judge, other, model, cases, tmp_path):
    b = cases.copied(other, tmp_path / "other")
    cases.change_manifest(b, mean=(0.6,), resize=26)
    found = judge(model, b)
    assert set(kinds(found)) == {"weights", "preprocessing"}
    assert all(one.share < 0.99 for one in found.causes)


def test_one_class(judge, model, copy, cases):
    random = np.random.default_rng(0)
    cases.change_arrays(copy, cases.one_class(3, 6, random, row=False))
    found = judge(model, copy)
    assert kinds(found) == ["class", "weights"]
    assert found.causes[0].words.startswith("'3', whose output alone moves")
    (seen,) = (one.number for one in found.classes if one.is_seen and one.whole.change < 0)
    assert seen == 3
    assert "class 3: " in "\n".join(lines(found))


def test_class_names_in_another_order(judge, model, copy):
    about = manifest.read(copy)
    names = (*about.labels[1:], about.labels[0])
    (copy / manifest.FILE).write_text(replace(about, labels=names).to_yaml())
    found = judge(model, copy)
    assert found.whole.after < 0.1
    assert kinds(found) == ["class names"]
    assert found.causes[0].share == 1


def test_networks_that_number_their_classes_otherwise_may_be_the_same(judge, model, copy, cases):
    turned = [*range(1, 10), 0]

    def turn(values):
        if values.shape == (10,):
            return values[turned]
        return values[:, turned] if values.shape == (24, 10) else values

    cases.change_arrays(copy, turn)
    about = manifest.read(copy)
    names = tuple(about.labels[place] for place in turned)
    (copy / manifest.FILE).write_text(replace(about, labels=names).to_yaml())
    found = judge(model, copy)
    assert found.agreement == 1
    assert found.spread.largest < 1e-6
    assert "class names" not in kinds(found)


def test_a_decision_of_its_own(judge, model, copy):
    about = replace(manifest.read(copy), default=0, threshold=0.9)
    (copy / manifest.FILE).write_text(about.to_yaml())
    found = judge(model, copy)
    assert kinds(found) == ["threshold"]
    assert found.causes[0].words == "threshold 0.9 in place of the likeliest class"
    assert found.spread.largest == 0
    assert found.whole.lost > 0


def test_networks_of_fixed_sizes(judge, shop):
    make = lambda: shop.base(0)  # noqa: E731
    a = shop.exported("fixed", make, Form(("paddle",)))
    b = shop.exported("larger", make, Form(("paddle",)), resize=24, crop=20)
    found = judge(a, b)
    assert kinds(found)[0] == "preprocessing"
    assert found.causes[0].words == "resize 24 in place of 20, crop 20 in place of 16"


def test_networks_that_normalize_inside(judge, shop):
    make = lambda: shop.base(0)  # noqa: E731
    form = Form(("paddle",), "uint8", dynamic_size=True)
    a = shop.exported("inside", make, form)
    b = shop.exported("inside otherwise", make, form, mean=(0.5,))
    found = judge(a, b)
    assert kinds(found) == ["preprocessing"]
    assert found.causes[0].words == "inside of the network, mean [0.5] in place of [0.3]"
    outside = shop.exported("outside", make, Form(("paddle",), dynamic_size=True))
    assert judge(a, outside).spread.largest < 1e-4


def test_the_command(run, model, copy, cases, shop, tmp_path, quick):
    random = np.random.default_rng(0)
    cases.change_arrays(copy, cases.one_class(3, 6, random, row=False))
    sheet, record = tmp_path / "flips.png", tmp_path / "found.json"
    given = ("compare", model, copy, "--data", shop.eval, "--engine", "onednn")
    code, out, err = run(*given, "--flips", sheet, "--json", record, "--max-loss", "1pt")
    assert (code, err) == (1, "")
    assert "B is worse than A by" in out
    assert "what differs: class: '3'" in out
    assert "points, 1 are allowed: FAILED" in out
    assert "batch 8: " in out
    found = json.loads(record.read_text())
    assert (found["passed"], found["max_loss"], found["different"]) == (False, 0.01, True)
    assert found["lost"] == len(found["worse"]) > len(found["better"]) == found["won"]
    assert {one["true"] for one in found["worse"]} == {"3"}
    assert all(one["a"].startswith("3 ") for one in found["worse"])
    assert found["difference"] == pytest.approx((found["won"] - found["lost"]) / found["images"])
    assert found["a"]["bytes"] == sum(p.stat().st_size for p in model.glob("inference.[jp]*"))
    with Image.open(sheet) as picture:
        words = picture.info["Description"].splitlines()
    assert len(words) == found["lost"] + found["won"]
    assert words[0].startswith("true: 3: worse with B | A: 3 ")
    code, out, _ = run(*given, "--max-loss", "50pt")
    assert code == 0
    assert "50 are allowed: passed" in out
    assert run(*given)[0] == 0


def test_what_cannot_be_ruled_out_is_said(run, model, copy, shop, quick):
    given = ("compare", model, copy, "--data", shop.eval, "--engine", "onednn", "--max-loss")
    code, out, _ = run(*given, "0pt")
    assert code == 0
    assert "passed; with so few images 1.06 cannot be ruled out" in out


def test_mistakes_are_one_line(run, model, copy, shop, tmp_path, capsys):
    given = ("compare", model, copy, "--data", shop.eval)
    for words in ("0.5", "0.5%", "-1 pt", "pt", "101pt"):
        with pytest.raises(SystemExit) as ended:
            run(*given, f"--max-loss={words}")
        assert ended.value.code == 2
        assert "should be points of accuracy such as 0.5pt" in capsys.readouterr().err
    (tmp_path / "there.json").write_text("{}")
    for more, words in (
        (("--engine", "onednn,paddle,openvino"), "give one for both, or A,B"),
        (("--engine", "tensorflow"), "unknown"),
        (("--json", tmp_path / "there.json"), "exists; --overwrite replaces it"),
        (("--flips", "flips.gif"), "should end in .png"),
        (("--data", tmp_path / "nowhere"), "no such folder or list file"),
    ):
        code, _, err = run(*given, *more)
        assert (code, err.count("\n")) == (2, 1), err
        assert words in err
    about = manifest.read(copy)
    names = ("zero", *about.labels[1:])
    (copy / manifest.FILE).write_text(replace(about, labels=names).to_yaml())
    code, _, err = run(*given)
    assert code == 2
    assert "A and B tell other classes apart: only A has '0'; only B has 'zero'" in err
    code, _, err = run("compare", model, tmp_path / "none", "--data", shop.eval)
    assert code == 2
    assert "none: does not exist" in err


def test_broken_images(run, model, shop, tmp_path, quick):
    data = tmp_path / "eval"
    for name in ("0", "1"):
        (data / name).mkdir(parents=True)
        for path in sorted((shop.eval / name).glob("*.png"))[:3]:
            shutil.copy(path, data / name)
    (data / "1/broken.png").write_bytes(b"no image")
    given = ("compare", model, model, "--data", data, "--engine", "onednn")
    code, _, err = run(*given)
    assert code == 2
    assert "broken.png" in err
    assert "--on-error skip" in err
    code, out, _ = run(*given, "--on-error", "skip")
    assert code == 0
    assert "compared without 1 image" in out
    assert "with 6 images" in out


@pytest.mark.slow
def test_checkpoints_by_the_names_of_their_arrays(trained, run, workdir, quick):
    both = ("runs/small/best.safetensors", "runs/small/latest.safetensors")
    code, _, err = run("compare", *both, "--data", "photos/eval", "--json", "found.json")
    assert (code, err) == (0, "")
    found = json.loads((workdir / "found.json").read_text())
    assert found["a"]["bytes"] == (workdir / "runs/small/best.safetensors").stat().st_size
    own = weights.weights_difference(
        tuple(workdir / f"runs/small/{name}.safetensors" for name in ("best", "latest")),  # type: ignore
        (None, None),  # type: ignore
    )
    assert own
    assert own.alone == 0
    assert own.arrays > 100


def test_several_labels(judge, shop, model, cases, tmp_path):
    a, b = (cases.copied(model, tmp_path / name) for name in ("a", "b"))
    for folder, threshold in ((a, 0.5), (b, 0.05)):
        about = replace(manifest.read(folder), task="multilabel", threshold=threshold)
        (folder / manifest.FILE).write_text(about.to_yaml())
    head = ",".join(["path", *map(str, range(10))])
    rows = [
        f"{path},{','.join(str(int(number == int(path.parent.name))) for number in range(10))}"
        for path in sorted(shop.eval.rglob("*.png"))[::4]
    ]
    (tmp_path / "list.csv").write_text("\n".join([head, *rows, ""]))
    found = judge(a, b, data=tmp_path / "list.csv")
    assert found.score == "label_accuracy"
    assert kinds(found) == ["threshold"]
    assert found.f1
    assert found.f1.change < 0
    assert "F1 " in "\n".join(lines(found))
    assert to_plain(found)["f1"]["score_b"] == found.f1.after


def test_one_class_moves_and_the_others_follow():
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (50, 6))
    moved = logits.copy()
    moved[:, 4] -= random.uniform(1, 3, 50)
    a, b, c = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (logits, moved, logits[::-1]))
    number, share = moved_class(a, b)
    assert number == 4
    assert share > 0.999
    assert moved_class(a, c)[1] < 0.4
    assert moved_class(a[:, :2], b[:, :2]) == (0, 0)
    assert moved_class(a, a) == (0, 0)


def test_one_class_is_worse_though_all_outputs_move():
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 40)

    def answered(decided):
        logits = random.normal(0, 1, (200, 5))
        logits[np.arange(200), decided] += 6
        rows = np.exp(logits)
        return Answered(rows / rows.sum(1, keepdims=True), decided)

    def named(decided, again, weights=None):
        both = answered(decided), answered(again)
        names = SimpleNamespace(manifest=SimpleNamespace(labels=tuple("abcde")))
        trial: Any = SimpleNamespace(
            ends=both, known={}, sides=SimpleNamespace(a=names, answered=both, weights=weights)
        )
        classes = by_class(labels, decided == labels, again == labels, 5)
        found = one_class(trial, Cause("weights", "", 1.0), labels, classes)
        return [one.words.partition(":")[0] for one in found]

    before = labels.copy()
    before[:5] = 2  # images of a, taken for c, which B takes for a
    after = labels.copy()
    after[80:110] = 3  # images of c
    after[120:122] = 4
    assert named(before, after) == ["'c'"]
    apart = SimpleNamespace(typical=1.2)  # networks that were learnt anew
    assert named(before, after, apart) == []
    assert named(before, after, SimpleNamespace(typical=0.3)) == ["'c'"]
    after[120:135] = 4  # of d as well
    assert named(before, after) == []
    assert named(labels, np.where(random.random(200) < 0.3, (labels + 1) % 5, labels)) == []
    gone = np.where(labels == 2, 3, labels)  # all images of c, and
    gone[[0, 40, 41, 120, 121, 160]] = [1, 3, 4, 0, 1, 0]  # a few others, beyond chance
    assert named(labels, gone) == ["'c'"]


def test_what_of_preprocessing_counts():
    a = Preprocess(resize=64, crop=64, fit="squash")
    assert changes(a, replace(a, resize=80), KEYS) == []
    assert changes(a, replace(a, crop=(64, 32)), KEYS) == ["crop [64, 32] in place of 64"]
    assert changes(a, replace(a, fit="letterbox", fill=0), KEYS) == [
        "fit letterbox in place of squash", "fill 0 in place of 114",
    ]  # fmt: skip


def test_arrays_are_told_apart_by_shape_and_nearness():
    random = np.random.default_rng(0)
    first = {"conv_9": random.normal(size=(4, 3)), "conv_10": random.normal(size=(4, 3)),
             "linear": random.normal(size=(5, 4))}  # fmt: skip
    turned = {"x": first["linear"].T, "y": first["conv_10"], "z": first["conv_9"]}
    assert weights.by_shape(first, turned, 1, 3).same
    changed = {**first, "linear": first["linear"] * 1.5}
    found = weights.by_shape(first, changed, 1, 3)
    assert (found.differ, found.where) == (1, "linear [5 x 4]")
    assert found.largest == pytest.approx(0.5)
    assert weights.by_shape(first, {"conv_9": first["conv_9"]}, 1, 3).alone == 2
    assert weights.by_name(first, changed).differ == 1
    pixels = {**first, "scale": np.ones((1, 3, 1, 1))}
    other = {**first, "scale": np.full((1, 3, 1, 1), 2.0)}
    assert weights.by_shape(pixels, other, 1, 3).normalization
