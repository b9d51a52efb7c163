"""`--engine auto`, with engines of known speed, and once with real ones."""

import json
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from described_machine import describe

from ppcls.inference.auto import FILE, Trial, choose
from ppcls.inference.engines.base import Engine, Opened, Settings
from ppcls.inference.engines.table import open_engine
from ppcls.inference.exported_model import open_exported
from ppcls.utils import environment
from ppcls.utils.errors import UserError

WANTED = Settings("auto", batch=2)
# Milliseconds a run, by engine; of one thread with its number after the name.
USUAL = {"onednn": 4, "onnxruntime": 1, "openvino": 8, "onnxruntime 1": 4}


class Machine:
    """Engines that take their time by a clock of its own, and how often each was opened."""

    def __init__(self):
        self.now = 0.0
        self.times = dict(USUAL)
        self.broken: dict[str, str] = {}
        self.off: dict[str, float] = {}  # added to the first output
        self.output = np.array([[0.25, 0.75]] * 2, np.float32)
        self.opened: Counter[str] = Counter()
        self.images: list[np.ndarray] = []

    def choose(self, place, wanted, threads):
        trial = Trial(self.open, lambda: self.now, seconds=0.004, settling=0.0)
        return choose(place, wanted, threads, trial)

    def open(self, folder, settings):
        self.opened[settings.engine] += 1
        if settings.engine in self.broken:
            raise UserError(self.broken[settings.engine])
        by_thread = self.times.get(f"{settings.engine} {settings.threads}")
        seconds = (by_thread or self.times[settings.engine]) / 1000
        output = self.output + np.array([self.off.get(settings.engine, 0), 0], np.float32)

        def call(images):
            self.images.append(images)
            self.now += seconds
            return output

        return Engine(folder.path, settings, Opened(call, (None, 3, 32, 32), "float32"))


@pytest.fixture
def machine(monkeypatch):
    """In place of the engines of this one; of two threads."""
    set_threads(monkeypatch, 2)
    return Machine()


@pytest.fixture
def place(copy):
    return open_exported(copy("inference.json", "inference.pdiparams", "inference.yml"))


def set_threads(monkeypatch, count):
    for name in environment.THREADS:
        monkeypatch.setenv(name, str(count))


def remembered(place):
    return json.loads((place.cache() / FILE).read_text())


def test_the_fastest_is_chosen_said_and_remembered(machine, place, capsys):
    engine = machine.choose(place, WANTED, None)
    assert engine.settings == replace(WANTED, engine="onnxruntime", threads=2)
    assert capsys.readouterr().out == (
        f"{place.path}: measuring which engine is fastest here, once\n"
    )
    ((key, choice),) = remembered(place).items()
    for part in ("2 of", "paddlepaddle 3.", "onnxruntime 1.", "device cpu", "batch 2", "image 32"):
        assert part in key
    assert (choice["engine"], choice["threads"]) == ("onnxruntime", 2)
    measured = choice["milliseconds"]
    assert set(measured) == {
        "onednn (fp32, 2 threads)",
        "onnxruntime (fp32, 2 threads)",
        "openvino (fp32, 2 threads)",
        "onnxruntime (fp32, 1 thread)",
    }
    assert measured["onednn (fp32, 2 threads)"] >= 4
    assert measured["openvino (fp32, 2 threads)"] >= 8
    assert 1 <= measured["onnxruntime (fp32, 2 threads)"] < 4
    assert {images.shape for images in machine.images} == {(2, 3, 32, 32)}

    machine.opened.clear()
    machine.times["onnxruntime"] = 50  # what is remembered is not measured
    assert machine.choose(place, WANTED, None).settings == engine.settings
    assert machine.opened == {"onnxruntime": 1}
    assert capsys.readouterr().out == ""


def test_one_thread_where_that_is_faster(machine, place):
    machine.times["onnxruntime 1"] = 0.3
    assert machine.choose(place, WANTED, None).settings.threads == 1
    assert machine.choose(place, WANTED, None).settings.threads == 1  # remembered
    assert machine.choose(place, WANTED, 2).settings.threads == 2  # as asked for


def test_threads_that_are_asked_for_are_taken(machine, place):
    assert machine.choose(place, WANTED, 3).settings.threads == 3
    (choice,) = remembered(place).values()
    assert all("(fp32, 3 threads)" in name for name in choice["milliseconds"])


def changes(monkeypatch, place, name):
    """Settings and threads after one thing has changed."""
    if name == "batch":
        return replace(WANTED, batch=4), None
    if name == "precision":
        return replace(WANTED, precision="bf16"), None
    if name == "threads":
        return WANTED, 2
    if name == "version":
        about = place.path / "openvino-9.9.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: openvino\nVersion: 9.9\n")
        monkeypatch.syspath_prepend(place.path)
    if name == "processor":
        describe(monkeypatch, "/proc/cpuinfo", "model name : another\n")
    if name == "cores":
        set_threads(monkeypatch, 4)
    if name == "files":
        place.params.touch()
    return WANTED, None


@pytest.mark.parametrize(
    "name", ["batch", "precision", "threads", "version", "processor", "cores", "files"]
)
def test_what_the_choice_depends_on(machine, place, monkeypatch, name):
    machine.choose(place, WANTED, None)
    machine.output = np.array([[0.25, 0.75]] * 4, np.float32)
    machine.opened.clear()
    wanted, threads = changes(monkeypatch, place, name)
    assert machine.choose(place, wanted, threads).settings.engine == "onnxruntime"
    assert set(machine.opened) == {"onednn", "onnxruntime", "openvino"}
    if name == "files":
        assert len(list(place.path.glob(f"engine_cache/*/{FILE}"))) == 2
        return
    assert len(remembered(place)) == 2  # the first stays
    machine.opened.clear()
    machine.choose(place, wanted, threads)
    assert machine.opened == {"onnxruntime": 1}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "\xff",
        '{"KEY": null}',
        '{"KEY": {}}',
        '{"KEY": {"engine": "onednn"}}',
        '{"KEY": {"engine": "onednn", "threads": "2"}}',
        '{"KEY": {"engine": "abacus", "threads": 2}}',
        '{"KEY": {"engine": ["onednn"], "threads": 2}}',
    ],
)
def test_a_damaged_memory_is_measured_anew(machine, place, text):
    machine.choose(place, WANTED, None)
    (key,) = remembered(place)
    (place.cache() / FILE).write_bytes(text.replace("KEY", key).encode("latin-1"))
    assert machine.choose(place, WANTED, None).settings.engine == "onnxruntime"
    assert remembered(place)[key]["engine"] == "onnxruntime"


def test_an_engine_that_opens_no_longer_is_measured_anew(machine, place):
    machine.choose(place, WANTED, None)
    machine.broken["onnxruntime"] = "engine onnxruntime: not installed"
    assert machine.choose(place, WANTED, None).settings.engine == "onednn"
    (choice,) = remembered(place).values()
    assert choice["engine"] == "onednn"


@pytest.mark.parametrize("off", [0.01, float("nan")])
def test_an_engine_whose_numbers_are_off_is_left_out(machine, place, capsys, off):
    machine.off["onnxruntime"] = off
    assert machine.choose(place, WANTED, None).settings.engine == "onednn"
    said = capsys.readouterr().out
    assert "note: onnxruntime (fp32, 2 threads) is left out: its outputs differ by " in said
    (choice,) = remembered(place).values()
    assert not any("onnxruntime" in name for name in choice["milliseconds"])


def test_bf16_may_differ_more(machine, place):
    machine.off["onnxruntime"] = 0.01
    chosen = machine.choose(place, replace(WANTED, precision="bf16"), None)
    assert chosen.settings.engine == "onnxruntime"


def test_an_engine_that_cannot_open_is_skipped(machine, place):
    machine.broken["onednn"] = "engine onednn needs inference.json"
    assert machine.choose(place, WANTED, None).settings.engine == "onnxruntime"
    assert machine.opened["onednn"] == 1


def test_no_engine_that_can_open(machine, place):
    machine.broken = dict.fromkeys(("onednn", "onnxruntime"), "x: no") | {"openvino": "y: no"}
    with pytest.raises(UserError) as caught:
        machine.choose(place, WANTED, None)
    assert str(caught.value) == f"{place.path}: no engine here can run it: x: no; y: no"
    assert not (place.cache() / FILE).exists()


def test_a_network_whose_outputs_are_no_numbers(machine, place):
    machine.output = machine.output * np.nan
    with pytest.raises(UserError, match=r"no engine here can run it: outputs of onednn .* nan"):
        machine.choose(place, WANTED, None)


def test_no_engine_installed(machine, place, monkeypatch):
    for name in ("paddle", "onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"can run it: none is installed, pip install 'ppcls\[dep"):
        machine.choose(place, WANTED, None)


def test_where_nothing_can_be_kept_a_note_says_so(machine, place, home, capsys):
    for cache in (place.path / "engine_cache", home):
        cache.write_text("a file where a folder should be")
    assert machine.choose(place, WANTED, None).settings.engine == "onnxruntime"
    said = capsys.readouterr().out
    assert f"note: the choice of an engine cannot be kept ({home}/engines/" in said


def test_a_network_of_zeros_is_no_division_by_zero(machine, place):
    machine.output = np.zeros((2, 2), np.float32)
    assert machine.choose(place, WANTED, None).settings.engine == "onnxruntime"


def test_real_engines(copy, images):
    """Whichever is fastest here, its numbers are those of the engine named."""
    place = open_exported(copy())  # nothing to convert
    inputs = place.manifest.preprocess.normalize(images)
    chosen = choose(place, WANTED, None, Trial(seconds=0.004))
    (choice,) = remembered(place).values()
    assert chosen.settings.engine == choice["engine"]
    assert len(choice["milliseconds"]) in (3, 4)  # with one thread, where there are more
    other = open_engine(place, Settings("paddle"))
    np.testing.assert_allclose(chosen.run(inputs), other.run(inputs), atol=2e-6)


def test_gpus_may_differ_by_what_their_products_are_rounded_to(machine, place, capsys):
    """TF32 has 10 bits, which the first engine may have and another one not."""
    machine.times = {"paddle": 4, "onnxruntime": 1, "tensorrt": 8, "onnxruntime-tensorrt": 8}
    machine.off = {"onnxruntime": 0.004}
    found = machine.choose(place, replace(WANTED, device="gpu"), 1)
    assert found.settings.engine == "onnxruntime"
    assert "left out" not in capsys.readouterr().out
    machine.off = {"onnxruntime": 0.04}
    found = machine.choose(place, replace(WANTED, device="gpu"), 2)
    assert found.settings.engine == "paddle"
