"""Frozen parts in engines: the same numbers, the fastest is taken, unequal ones never are."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest
from cut_run import cut
from paddle import nn
from small_network import settle

import ppcls
from ppcls.inference.engines.paddle_inference import math_libraries
from ppcls.models import registry
from ppcls.models.layers import Normalize
from ppcls.optim.parameters import freeze
from ppcls.train import curves, frozen
from ppcls.train.distributed import Processes
from ppcls.train.frozen import (
    Choice,
    Frozen,
    FrozenStart,
    Keeping,
    choose,
    with_frozen_start,
)
from ppcls.utils import environment
from ppcls.utils.errors import UserError
from ppcls.utils.log import read_records
from ppcls.weights import files

SMALL = {
    "EfficientNetLite0": {"depths": (1, 1, 1, 1, 1, 1, 2)},
    "ResNet18_vd": {"depths": (1, 1, 1, 1), "widths": (8, 8, 16, 16)},
    "MobileNetV3_small_x0_35": {},
}
SIDE = 32


def fresh(name):
    paddle.seed(0)
    return registry.network(replace(registry.spec_of(name), **SMALL[name]), 2)


def small(name="ResNet18_vd"):
    return settle(fresh(name))


def pixels(count=4, side=SIDE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def started(net, entries, features=False):
    """The network behind its frozen start, in training mode as a trainer has it."""
    kept = freeze(net, entries)
    scale, offset = np.full(3, 1 / 64, np.float32), np.full(3, -2, np.float32)
    network = with_frozen_start(Normalize.before(net, scale, offset), kept, features)
    network.train()
    for layer in kept:
        layer.eval()
    return network


def by_paddle(part):
    """An engine that is Paddle itself."""
    return SimpleNamespace(run_all=part.by_paddle)


# --------------------------------------------------------------------------- what is frozen


@pytest.mark.parametrize(
    ("entries", "blocks", "pooled"),
    [
        (("stem.*",), 0, False),
        (("40%", "*.norm.*"), 3, False),
        (("stem.*", "stages.*"), 8, False),
        (("stem.*", "stages.*", "expand.*"), 8, True),
    ],
)
def test_the_start_is_the_stem_and_the_blocks_in_which_nothing_trains(entries, blocks, pooled):
    net = fresh("EfficientNetLite0")
    network = started(net, entries)
    assert (network.blocks, network.pooled) == (blocks, pooled)
    network = with_frozen_start(nn.Sequential(*network), [net.stem, *net.sublayers()], True)
    assert isinstance(network, FrozenStart)
    assert not network.pooled


def test_there_is_no_start_where_the_stem_trains_or_the_network_goes_its_own_way():
    assert type(started(fresh("ResNet18_vd"), ("*.norm.*",))) is nn.Sequential
    net = fresh("ResNet18_vd")
    net.__class__ = type("Own", (type(net),), {"forward": lambda self, x: self.logits(x)})
    assert type(started(net, ("40%",))) is nn.Sequential


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "ResNet18_vd" else pytest.mark.slow) for n in SMALL]
)
@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_logits_features_and_gradients_are_the_networks_own(name, share):
    net = small(name)
    blocks = [f"stages.{i}.{j}.*" for i, stage in enumerate(net.stages) for j in range(len(stage))]
    network = started(net, ("stem.*", *blocks[: int(share * len(blocks))]), features=True)
    images = paddle.to_tensor(pixels())
    trained = [p for p in net.parameters() if not p.stop_gradient]

    def seen(look):
        for layer in net.sublayers():
            if isinstance(layer, nn.BatchNorm2D):  # the statistics of a batch move them
                layer._momentum = 1.0
        found = look(images)
        paddle.add_n([(one**2).mean() for one in found]).backward()
        slopes = [np.zeros(p.shape) if p.grad is None else p.grad.numpy() for p in trained]
        net.clear_gradients()
        return [one.numpy() for one in found] + slopes

    paddle.seed(0)
    wanted = [seen(network.features), seen(lambda x: [network(x)])]
    network.start.engine = by_paddle(network.start)
    paddle.seed(0)
    for look, want in zip((network.features, lambda x: [network(x)]), wanted, strict=True):
        found = seen(look)
        assert len(found) == len(want)
        for one, other in zip(found, want, strict=True):
            np.testing.assert_array_equal(one, other)


# --------------------------------------------------------------------------- whole runs


@pytest.fixture
def plainly(workdir, no_stacks, monkeypatch):
    """Runs draw no picture of themselves."""
    monkeypatch.setattr(curves, "draw", lambda records, picture, course: None)


def train(folder, engine, *, resume=False, **more):
    """Train a small network, of which a part is frozen, on the images of `workdir`."""
    how = {"epochs": 2, "batch_size": 5, "log_every": 1, "schedule": {"lr": 0.001}}
    how |= {"transforms": [{"op": "resize"}], "drop_last": False, "frozen_engine": engine}
    recipe = {
        "model": {"freeze": ["50%", "*.norm.*"]},
        "data": {"train": "photos/train", "eval": "photos/eval", "workers": 0},
        "preprocess": {"resize": 36, "crop": SIDE},
        "train": how | more,
        "output": folder,
    }
    return ppcls.train(recipe, model=small(), resume=resume)


def state(folder):
    """All that a run came to, but for times and what engines ran it."""
    checkpoint = files.read(Path(folder) / "latest.safetensors")
    record = json.loads(checkpoint.metadata["ppcls"])
    lines = read_records(Path(folder) / "run.jsonl")
    timed = ("time", "images_per_second")
    lines = [{k: v for k, v in line.items() if k not in timed} for line in lines]
    tensors = {name: value.tobytes() for name, value in checkpoint.tensors.items()}
    return tensors, lines, record["engines"]


def losses(folder):
    return [line["loss"] for line in state(folder)[1]]


def test_a_run_in_an_engine_is_the_same_also_when_cut_and_when_features_are_kept(
    plainly, monkeypatch, capsys
):
    train("runs/none", "none")
    monkeypatch.setattr(frozen, "WORTH_KEEPING", 0)
    train("runs/whole", "paddle")
    said = capsys.readouterr().out
    assert "frozen start: run by paddle, equal to Paddle's own layers within" in said
    assert "makes of 12 images of training is computed once and kept in memory" in said
    assert "makes of 6 images of evaluation is computed once" in said
    np.testing.assert_allclose(losses("runs/whole"), losses("runs/none"), rtol=1e-4)
    assert [line.get("top1") for line in state("runs/whole")[1]] == [
        line.get("top1") for line in state("runs/none")[1]
    ]
    assert state("runs/none")[2] == {}
    assert state("runs/whole")[2] == {"frozen start": "paddle"}

    monkeypatch.setattr(frozen, "WORTH_KEEPING", 1e9)
    with monkeypatch.context() as patch:
        cut(patch, step=4)
        with pytest.raises(SystemExit, match="cut"):
            train("runs/cut", "paddle")
    train("runs/cut", "paddle", resume=True)
    assert "computed once" not in capsys.readouterr().out
    assert state("runs/cut") == state("runs/whole")


@pytest.mark.slow
def test_what_auto_chose_is_used_again_and_a_small_run_tries_nothing(plainly, monkeypatch, capsys):
    opened = []
    whole = frozen.Files.open

    def open_paddle(self, name):
        opened.append(name)
        if name != "paddle":
            raise UserError("not installed")
        return whole(self, name)

    monkeypatch.setattr(frozen.Files, "open", open_paddle)
    train("runs/small", "auto", epochs=1)
    assert not opened
    assert state("runs/small")[2] == {"frozen start": "none"}
    monkeypatch.setattr(frozen, "WORTH", 0)
    train("runs/small", "auto", resume=True)  # none, as before
    assert not opened
    assert state("runs/small")[2] == {"frozen start": "none"}
    monkeypatch.setattr(frozen, "duel", lambda runs, before, choice: {"none": 2.0, "paddle": 1.0})
    train("runs/chosen", "auto", epochs=1)
    assert opened == list(frozen.ENGINES)
    assert "frozen start: run by paddle, 2.0 times as fast as" in capsys.readouterr().out
    monkeypatch.setattr(frozen, "duel", None)  # nothing is timed
    train("runs/chosen", "auto", resume=True)
    assert opened == [*frozen.ENGINES, "paddle"]
    assert state("runs/chosen")[2] == {"frozen start": "paddle"}


def test_a_broken_export_is_refused(plainly, monkeypatch):
    whole = frozen.save_program

    def broken(layer, path, *given, **named):
        kept = layer.normalize.scale.numpy()
        layer.normalize.scale.set_value(kept * np.float32(1.01))
        whole(layer, path, *given, **named)
        layer.normalize.scale.set_value(kept)

    monkeypatch.setattr(frozen, "save_program", broken)
    with pytest.raises(UserError, match=r"train\.frozen_engine: what paddle gives differs from"):
        train("runs/broken", "paddle")
    assert not Path("runs/broken/latest.safetensors").exists()


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ("torch", "train.frozen_engine: should be 'auto', 'none', 'paddle', 'onnxruntime' or"),
        ("openvino", "train.frozen_engine: openvino needs openvino: pip install 'ppcls[deploy]'"),
    ],
)
def test_what_cannot_run_it_is_said_in_one_line(plainly, monkeypatch, engine, said):
    monkeypatch.setattr(frozen, "find_spec", lambda module: None)
    with pytest.raises(UserError) as raised:
        train("runs/none", engine)
    assert len(raised.value.lines) == 1
    assert said in str(raised.value)


def test_paddle_computes_with_as_many_threads_after_an_engine_as_before(no_stacks):
    libraries = math_libraries()
    if not libraries:
        pytest.skip("Paddle computes with other libraries here")
    before = [ask() for ask, _ in libraries]
    part = started(small(), ("stem.*",)).start
    try:
        for _, order in libraries:
            order(2)
        assert choose([(part, Choice("paddle", pixels(), [(SIDE, SIDE)], 1))], Processes())
        part.run(pixels())
        assert [ask() for ask, _ in libraries] == [2] * len(libraries)
    finally:
        for number, (_, order) in zip(before, libraries, strict=True):
            order(number)


# --------------------------------------------------------------------------- choosing


class Timed(nn.Layer):
    """A part that takes a second of a clock of its own."""

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.scale = paddle.to_tensor(3.0)

    def forward(self, images):
        self.now += 1
        return images.astype("float32") * self.scale


@pytest.fixture
def timed(monkeypatch):
    """Choose for such a part among engines of so many seconds and with such an error."""
    part: Any = Frozen(Timed(), "part")
    opened = []

    def choosing(engines, asked="auto", known=None, showings=10**6):
        def open_engine(self, name):
            opened.append(name)
            if name not in engines:
                raise UserError(f"{name} needs {name}")
            seconds, error = engines[name]

            def run_all(images):
                part.layer.now += seconds
                return [images.astype(np.float32) * np.float32(3 * (1 + error))]

            return SimpleNamespace(name=name, run_all=run_all)

        monkeypatch.setattr(frozen.Files, "open", open_engine)
        choice = Choice(asked, pixels(2, 8), [(8, 8)], showings, known or {})
        choice = replace(choice, clock=lambda: part.layer.now)
        found = choose([(part, choice)], Processes())["part"]
        assert (part.engine.name if part.engine else "none") == found
        return found

    choosing.opened = opened
    return choosing


FAST = {"paddle": (0.5, 0), "onnxruntime": (0.25, 1e-6), "openvino": (0.3, 1e-6)}


@pytest.mark.parametrize(
    ("engines", "chosen"),
    [
        (FAST, "onnxruntime"),
        (FAST | {"onnxruntime": (0.25, 1e-2)}, "openvino"),
        (FAST | {"onnxruntime": (0.25, np.nan)}, "openvino"),
        ({"openvino": (0.9, 0)}, "none"),
        ({}, "none"),
    ],
)
def test_the_fastest_that_is_equal_is_taken_where_it_is_worth_it(timed, capsys, engines, chosen):
    assert timed(engines) == chosen
    said = capsys.readouterr().out
    unequal = [name for name, (_, error) in engines.items() if not error <= 1e-4]
    notes = [f"left out: what {name} gives differs from Paddle's own" for name in unequal]
    assert all(note in said for note in notes)
    assert said.count("note:") == len(notes)
    assert ("times as fast as Paddle's own layers" in said) == (chosen != "none")
    if chosen == "onnxruntime":
        assert "4.0 times as fast" in said
        assert "within 1e-06" in said


def test_nothing_is_tried_for_a_few_images(timed):
    assert timed(FAST, showings=20) == "none"
    assert not timed.opened
    assert timed(FAST, asked="none") == "none"
    assert not timed.opened


def test_a_run_that_goes_on_keeps_what_it_chose(timed, capsys):
    assert timed(FAST, known={"part": "openvino"}) == "openvino"
    assert timed.opened == ["openvino"]
    assert timed(FAST, known={"part": "none"}, asked="paddle") == "paddle"
    capsys.readouterr()
    others = {name: one for name, one in FAST.items() if name != "openvino"}
    assert timed(others, known={"part": "openvino"}) == "onnxruntime"
    assert "note: part: openvino ran it before and cannot now" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("engines", "said"),
    [({}, "openvino needs openvino"), ({"openvino": (0.1, 1)}, "what openvino gives differs")],
)
def test_an_engine_that_is_named_is_had_or_the_run_ends(timed, engines, said):
    with pytest.raises(UserError, match=rf"train\.frozen_engine: {said}"):
        timed(engines, asked="openvino")


# --------------------------------------------------------------------------- keeping


def doubled(images):
    doubled.images += len(images)
    return [images.reshape(len(images), -1)[:, :5].astype(np.float32) * 2]


@pytest.mark.parametrize("on_disk", [False, True])
def test_what_was_computed_is_not_computed_again(tmp_path, on_disk):
    doubled.images = 0
    images = pixels(6)
    keeping = Keeping(5, (5,), tmp_path if on_disk else None)
    for _ in range(2):
        for start in (0, 2, 1, 2):
            batch = images[start : start + 3]
            np.testing.assert_array_equal(keeping(batch, doubled), doubled(batch)[0])
            doubled.images -= len(batch)
    assert doubled.images == keeping.computed == 5
    again = images[[5, 5, 0]]  # a sixth finds no room
    for _ in range(2):
        np.testing.assert_array_equal(keeping(again, doubled), again.reshape(3, -1)[:, :5] * 2.0)
    assert doubled.images == 9
    assert not list(tmp_path.iterdir())  # a file without a name


def test_a_full_disk_keeps_nothing_and_says_so(tmp_path, monkeypatch, capsys):
    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(frozen.os, "posix_fallocate", full, raising=False)
    doubled.images = 0
    keeping = Keeping(5, (5,), tmp_path)
    images = pixels(3)
    for _ in range(2):
        np.testing.assert_array_equal(keeping(images, doubled), images.reshape(3, -1)[:, :5] * 2.0)
    assert doubled.images == 6
    assert "no room to keep features (No space left on device)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("memory", "disk", "where"), [(1e9, 0, "memory"), (0, 1e9, "run"), (0, 0, None)]
)
def test_where_it_is_kept(monkeypatch, tmp_path, capsys, memory, disk, where):
    monkeypatch.setattr(environment, "free_memory", lambda: memory)
    monkeypatch.setattr(frozen, "free_disk", lambda folder: disk)
    part = Frozen(nn.Sequential(Timed(), nn.Flatten(1)), "part")
    clock = iter(range(1000)).__next__
    choice = Choice("auto", pixels(2, 8), [(8, 8), (4, 8)], 100, alike=(3, 2), clock=clock)
    frozen.keep(part, choice, 4, tmp_path / "run", 0.25)
    kept = {training: one.shape for training, one in part.keeping.items()}
    assert kept == ({True: (3, 192), False: (2, 96)} if where else {})
    assert capsys.readouterr().out.count(f"kept in {where if where != 'run' else tmp_path}") == (
        2 if where else 0
    )


def test_what_depends_on_the_batch_is_not_kept(tmp_path, capsys):
    part: Any = Frozen(Timed(), "part")
    part.engine = SimpleNamespace(run_all=lambda x: [x.astype(np.float32) + len(x) * 1e-3])
    clock = iter(range(1000)).__next__
    frozen.keep(part, Choice("auto", pixels(2), [(SIDE, SIDE)], 100, alike=(3, 0), clock=clock),
                4, tmp_path, 0.25)  # fmt: skip
    assert not part.keeping
    assert "note: part: computed each time, as the batch counts" in capsys.readouterr().out


# --------------------------------------------------------------------------- real engines, slow


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[(SIDE, SIDE)], [(SIDE, SIDE), (48, 40)]])
@pytest.mark.parametrize("name", SMALL)
def test_every_engine_gives_what_paddle_gives(name, sizes):
    network = started(small(name), ("60%", "*.norm.*"), features=True)
    part = network.start
    before = {key: value.numpy() for key, value in network[1].state_dict().items()}
    choice = Choice("auto", pixels(), sizes, 1)
    with frozen.Files(part, choice) as made:
        engines = [frozen.checked(part, made, engine, choice)[0] for engine in frozen.ENGINES]
    for key, value in network[1].state_dict().items():
        np.testing.assert_array_equal(before[key], value.numpy())
    for part.engine in engines:
        for images in (pixels(3, seed=1), np.zeros((1, *sizes[-1], 3), np.uint8)):
            twice = part.run(images), part.run(images)
            for one, again, own in zip(*twice, part.by_paddle(images), strict=True):
                np.testing.assert_array_equal(one, again)
                assert np.abs(one - own).max() <= 1e-4 * np.abs(own).max()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_other_engines_too_go_on_to_the_bit(plainly, monkeypatch, engine):
    train("runs/none", "none")
    train("runs/whole", engine)
    np.testing.assert_allclose(losses("runs/whole"), losses("runs/none"), rtol=1e-4)
    with monkeypatch.context() as patch:
        cut(patch, step=4)
        with pytest.raises(SystemExit, match="cut"):
            train("runs/cut", engine)
    train("runs/cut", engine, resume=True)
    assert state("runs/cut") == state("runs/whole")


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"recompute": True}, {"ema": {"decay": 0.9}}, {"size": 40}])
def test_what_else_a_recipe_has_goes_with_it(plainly, more):
    train("runs/none", "none", **more)
    train("runs/whole", "paddle", **more)
    assert state("runs/whole")[2] == {"frozen start": "paddle"}
    np.testing.assert_allclose(losses("runs/whole"), losses("runs/none"), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kinds", ["[{kind: kl}]", "[{kind: kl}, {kind: mgd}]"])
def test_teachers_run_in_engines_with_their_features(finished, workdir, run, kinds):
    weights = finished[0] / "runs/small/best.safetensors"
    teacher = f"{{name: MobileNetV3_small_x0_35, weights: {weights}}}"
    task = f"task={{kind: distill, teacher: [{teacher}], losses: {kinds}, labels_weight: 1}}"
    frozen_too = [f"model.weights={weights}", "model.freeze=['40%', '*.norm.*']"]
    for engine in ("none", "paddle", "onnxruntime"):
        given = [task, *frozen_too, f"train.frozen_engine={engine}", f"output=runs/{engine}"]
        assert run("train", "-c", "recipe.yaml", "-o", *given)[0] == 0
    for engine in ("paddle", "onnxruntime"):
        expected = {"frozen start": engine, "teacher MobileNetV3_small_x0_35": engine}
        assert state(f"runs/{engine}")[2] == expected
        np.testing.assert_allclose(losses(f"runs/{engine}"), losses("runs/none"), rtol=1e-4)


@pytest.mark.slow
def test_several_processes_run_the_same(finished, workdir):
    weights = finished[0] / "runs/small/best.safetensors"
    command = [sys.executable, "-m", "ppcls", "train", "-c", "recipe.yaml", "--processes", "2"]
    options = [f"model.weights={weights}", "model.freeze=['50%', '*.norm.*']"]
    options += ["train.batch_size=2", "train.transforms=[{op: resize}]"]
    for engine in ("none", "paddle"):
        given = ["-o", *options, f"train.frozen_engine={engine}", f"output=runs/{engine}"]
        subprocess.run([*command, *given], check=True, timeout=240)
    assert state("runs/paddle")[2] == {"frozen start": "paddle"}
    np.testing.assert_allclose(losses("runs/paddle"), losses("runs/none"), rtol=1e-4)
