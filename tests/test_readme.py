"""Every command of the README runs as it stands there, on a few images of one's own."""

import os
import re
import runpy
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from urllib.request import Request, urlopen

import pages
import pytest
from photos import write_photo

README = pages.text_of("README.md")
COMMANDS = pages.commands(README)
SET_UP = [line for line in COMMANDS if line.startswith("python3 -m venv")]  # run by .ci/run
EASIER = ("train.epochs=1", "data.workers=0")
FOREIGN = {"tools/export_model.py", "tools/infer.py", "deploy/python/predict_cls.py"}  # PaddleClas


def easier(words):
    """Options that make a training short."""
    if words[0] != "train":
        return ()
    digits = "quick_start/digits" in words
    side = 8 if digits else 32
    few = ("data.labeled=0.1",) if digits else ()
    return ("-o", *EASIER, *few, f"preprocess.resize={side}", f"preprocess.crop={side}")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A clone as a user sees it, with some images of ants and bees, two lists and an old config."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "home"))
    for name in ("configs", "deploy", "ppcls", "tools"):
        (tmp_path / name).symlink_to(pages.ROOT / name)
    rows = []
    for label, name in enumerate(("ants", "bees")):
        for i in range(6):
            path = Path("photos") / name / f"{i}.jpg"
            write_photo(path, 10 * label + i, (80, 100, 3))
            rows.append(f"{path} {label}\n")
    Path("train_list.txt").write_text("".join(rows))
    Path("val_list.txt").write_text("".join(rows[::3]))
    (old,) = [
        block
        for block in pages.blocks(pages.text_of("docs/from_paddleclas.md"), "yaml")
        if block.startswith("Global:")
    ]
    Path("flowers.yaml").write_text(old)
    return tmp_path


def test_the_first_lines_set_everything_up():
    assert COMMANDS[:2] == SET_UP
    assert len(SET_UP) == 2


def test_every_command_runs_in_order(folder, run, one_engine):
    commands = [line for line in COMMANDS if line not in SET_UP]
    assert len(commands) == 18
    said = ""
    predicted = False  # once with the fastest of all engines
    for line in commands:
        words = pages.arguments(line)
        if words[0] == "serve":
            assert "ants" in served(words, Path("photos/ants/1.jpg"))
            continue
        with one_engine() if words[0] == "predict" and predicted else nullcontext():
            code, out, err = run(*words, *easier(words))
        assert (code, err) == (0, ""), line
        said += out
        predicted = predicted or words[0] == "predict"
    assert "palace" in said
    assert "daisy" in said
    assert (folder / "runs/photos/report/report.html").is_file()
    assert len((folder / "results.csv").read_text().splitlines()) == 1 + 2 * 12
    assert len(list((folder / "seen").rglob("*.jpg"))) == 12
    assert (folder / "nearest.png").stat().st_size > 1000
    assert (folder / "resnet.pdparams").is_file()
    python_example()
    assert "ResNet50_vd" in (folder / "flowers.ppcls.yaml").read_text()


def served(words, image):
    """What a service answers of an image; it is started, asked and ended."""
    command = [sys.executable, "-m", "ppcls", *words, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        try:
            lines = iter(service.stdout.readline, "")
            ready = next(line for line in lines if line.startswith("ready: "))
            address = ready.split()[1].rstrip(",") + "/predict"
            kind = {"Content-Type": "image/jpeg"}
            with urlopen(Request(address, image.read_bytes(), kind)) as answer:
                return answer.read().decode()
        finally:
            service.terminate()
            assert service.wait() == 0


def python_example():
    """The Python of the README, after its commands: on what they left."""
    (code,) = pages.blocks(README, "python")
    Path("example.py").write_text(code)
    made = runpy.run_path("example.py")
    assert "ResNet50_vd" in made["ppcls"].list_models("*vd*")
    assert made["network"].class_names == ("ants", "bees")
    assert len(made["result"].labels) == 2


def test_the_files_the_readme_names_exist():
    for name in re.findall(r"(?:configs|tools|deploy)/[\w/]+\.(?:yaml|py)", README):
        if name not in FOREIGN:
            assert (pages.ROOT / name).is_file(), name


PAGES = ["README.md", "README.zh-CN.md", "CONTRIBUTING.md"]
PAGES += sorted(os.path.relpath(path, pages.ROOT) for path in pages.ROOT.glob("docs/*.md"))


def anchors(text):
    """What GitHub makes of the headings of a page."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    place = (pages.ROOT / page).parent
    text = re.sub(r"^```.*?^```", "", pages.text_of(page), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = place / name if name else pages.ROOT / page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{page}: {link}"


def test_the_index_has_every_page():
    index = pages.text_of("docs/README.md")
    for path in pages.ROOT.glob("docs/*.md"):
        assert path.name == "README.md" or f"({path.name})" in index, path.name
