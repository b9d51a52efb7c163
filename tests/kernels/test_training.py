"""Runs with the kernels: again, resumed, copied, exported, recomputed, without numba."""

import copy
import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import paddle
import pytest
from file_limit import limited_files
from paddle.nn import functional as F

from ppcls.kernels import channels_last, start
from ppcls.models import registry
from ppcls.models.layers import ConvNorm, Normalize
from ppcls.models.recompute import recompute_blocks

ROOT = Path(__file__).resolve().parents[2]
slow = pytest.mark.slow
needs_kernels = pytest.mark.skipif(
    not start.are_here(), reason="needs numba, and oneDNN of Paddle for Linux on x86"
)


@pytest.fixture
def small(monkeypatch):
    """Images are served however small they are."""
    monkeypatch.setattr(channels_last, "LEAST", 0)
    monkeypatch.setattr(channels_last, "LEAST_DEPTHWISE", 0)


def network(name="ResNet18", depth=1):
    spec = registry.spec_of(name)
    paddle.seed(0)
    return registry.network(replace(spec, depths=(depth, *[1] * (len(spec.depths) - 1))), 5)


def images(count=4, side=32, seed=0):
    values = np.random.default_rng(seed).standard_normal((count, 3, side, side))
    return paddle.to_tensor(values.astype(np.float32))


def steps_of(net, side=32):
    """Trains it; gives the losses, without an end."""
    optimizer = paddle.optimizer.Momentum(0.05, parameters=net.parameters())
    net.train()
    paddle.seed(1)
    for i in itertools.count():
        loss = F.cross_entropy(net(images(4, side, i)), paddle.to_tensor([0, 1, 2, 3]))
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        yield loss.item()


def trained(net):
    return list(itertools.islice(steps_of(net), 2))


def states(net):
    return {name: value.numpy() for name, value in net.state_dict().items()}


def logits(net, seed=9):
    net.eval()
    with paddle.no_grad():
        return net(images(seed=seed)).numpy()


# --------------------------------------------------------------------------
# Whether they run


@pytest.fixture
def asked_anew():
    start.can_run.cache_clear()
    yield
    start.can_run.cache_clear()


def test_they_can_be_switched_off(asked_anew, monkeypatch):
    monkeypatch.setenv(start.SWITCH, "0")
    assert not start.can_run()
    assert not start.missing()


def test_they_need_numba(asked_anew, monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    assert not start.can_run()
    assert "pip install" in start.missing()


@needs_kernels
def test_a_numba_that_refuses_its_numpy_is_told_once(asked_anew, monkeypatch, capsys):
    def refused():
        raise ImportError("Numba needs NumPy 2.4 or less. Got NumPy 2.9.")

    monkeypatch.setattr(start, "loops", refused)
    assert not start.can_run()
    assert not start.can_run()
    told = capsys.readouterr()
    assert (told.out + told.err).count("needs NumPy 2.4 or less") == 1
    assert "\n" not in (told.out + told.err).strip()


def test_where_no_space_is_left_a_folder_for_once_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path))
    with limited_files(4000):
        assert start.cache_folder() != tmp_path / "kernels"
    assert start.cache_folder() == tmp_path / "kernels"
    assert not list(tmp_path.glob("kernels/*"))


def test_where_nothing_can_be_kept_a_folder_for_once_is_made(tmp_path):
    (tmp_path / "file").write_text("")
    code = "from ppcls.kernels import start; print(start.cache_folder())"
    for home, kept in ((tmp_path / "home", True), (tmp_path / "file" / "below", False)):
        env = os.environ | {"PPCLS_HOME": str(home), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
        folder = Path(done.stdout.strip())
        assert folder.is_dir() == kept
        assert (folder == home / "kernels") == kept


# --------------------------------------------------------------------------
# In this process


@slow
@needs_kernels
@pytest.mark.parametrize("name", ["ResNet18", "EfficientNetB0", "Res2Net50_26w_4s"])
def test_a_run_again_is_the_same_to_the_bit(small, name):
    once, again = network(name), network(name)
    assert trained(once) == trained(again)
    for path, value in states(once).items():
        np.testing.assert_array_equal(states(again)[path], value, err_msg=path)


@slow
@needs_kernels
def test_a_copy_goes_on_as_the_network_itself(small, tmp_path):
    net = network()
    trained(net)
    paddle.save(net.state_dict(), str(tmp_path / "net.pdparams"))
    copied, loaded = copy.deepcopy(net), network()
    loaded.set_state_dict(paddle.load(str(tmp_path / "net.pdparams")))
    for other in (copied, loaded):
        np.testing.assert_array_equal(logits(other), logits(net))
    assert trained(net) == trained(copied) == trained(loaded)


@slow
@needs_kernels
@pytest.mark.parametrize("name", ["ResNet18", "EfficientNetB0", "ResNeSt50"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_static_graph_has_paddles_own_operators(small, no_stacks, tmp_path, name, whole):
    net = network(name)
    trained(net)
    expected = logits(net)
    static = paddle.jit.to_static(copy.deepcopy(net), full_graph=whole)
    static.eval()
    np.testing.assert_allclose(logits(static), expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    if whole:
        spec = paddle.static.InputSpec([None, 3, 32, 32], "float32")
        paddle.jit.save(static, str(tmp_path / "net"), input_spec=[spec])
        saved = paddle.jit.load(str(tmp_path / "net"))
        found = saved(images(seed=9)).numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@slow
@needs_kernels
@pytest.mark.parametrize("name", ["ResNet18", "EfficientNetB0", "SE_ResNeXt50_32x4d"])
def test_blocks_computed_twice_come_to_the_same(small, name):
    once, twice = network(name), network(name)
    recompute_blocks(twice)
    assert trained(once) == trained(twice)
    for path, value in states(once).items():
        np.testing.assert_array_equal(states(twice)[path], value, err_msg=path)


@slow
@needs_kernels
def test_gradients_of_several_batches_add_up(small):
    net = network()
    net.eval()
    sums = 0.0
    for i in range(3):
        net.clear_gradients()
        net(images(seed=i)).sum().backward()
        sums = sums + net.stem[0].conv.weight.grad.numpy()
    net.clear_gradients()
    for i in range(3):
        net(images(seed=i)).sum().backward()
    np.testing.assert_allclose(net.stem[0].conv.weight.grad.numpy(), sums, rtol=1e-4, atol=1e-4)
    for p in net.parameters():
        p.stop_gradient = True
    x = images()
    x.stop_gradient = False
    net(x).sum().backward()
    (gradient,) = paddle.grad(net(x).sum(), x)
    np.testing.assert_array_equal(gradient.numpy(), x.grad.numpy())


@slow
@needs_kernels
def test_batches_of_other_sizes(small):
    net = network("MobileNetV3_small_x1_0")
    net.eval()
    whole = images(5, 48)
    with paddle.no_grad():
        expected = net(whole).numpy()
        for size in (1, 2, 4, 5):
            found = net(whole[:size]).numpy()
            np.testing.assert_allclose(found, expected[:size], rtol=0, atol=1e-4)
        assert net(images(2, 37)).shape == [2, 5]
        assert net(paddle.rand([1, 3, 40, 72])).shape == [1, 5]


def resident():
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@slow
@needs_kernels
@pytest.mark.parametrize("name", ["ResNet18", "EfficientNetB0", "Res2Net50_26w_4s", "ResNeSt50"])
def test_steps_do_not_take_ever_more_memory(small, name):
    net = network(name)
    steps = steps_of(net, side=64)
    found = []
    for _ in range(5):
        for _ in range(10):
            next(steps)
        for i in range(3):  # nobody goes back
            net(images(4, 64, i))
        found.append((resident(), paddle.base.core.host_memory_stat_current_value("Allocated", 0)))
    assert found[-1][0] - found[1][0] < 4e6
    assert found[-1][1] == found[1][1]


# --------------------------------------------------------------------------
# In processes of their own

TRAIN = """
import sys
from dataclasses import replace

import numpy as np
import ppcls
import paddle
from paddle.nn import functional as F

from ppcls.kernels import channels_last
from ppcls.models import registry

channels_last.LEAST = channels_last.LEAST_DEPTHWISE = 0
for name in ("ResNet18", "EfficientNetB0"):
    spec = registry.spec_of(name)
    paddle.seed(0)
    net = registry.network(replace(spec, depths=tuple(1 for _ in spec.depths)), 5)
    net.train()
    optimizer = paddle.optimizer.Momentum(0.05, parameters=net.parameters())
    random = np.random.default_rng(0)
    for _ in range(3):
        images = paddle.to_tensor(random.standard_normal((4, 3, 48, 48)).astype(np.float32))
        loss = F.cross_entropy(net(images), paddle.to_tensor([0, 1, 2, 3]))
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        print("loss", loss.item().hex())
    state = {key: value.numpy() for key, value in net.state_dict().items()}
    print("state", hash(b"".join(value.tobytes() for value in state.values())))
print("served", channels_last.can_run())
"""


def process(*, blocked=False, **variables):
    """What it prints: losses, states, whether it was served, all else."""
    code = f"import sys; sys.modules['numba'] = None\n{TRAIN}" if blocked else TRAIN
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"} | variables
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in (done.stdout + done.stderr).splitlines()]
    kinds = {kind: [line[1] for line in lines if line[:1] == [kind]] for kind in ("loss", "state")}
    (served,) = (line[1] == "True" for line in lines if line[:1] == ["served"])
    rest = [line for line in lines if line[:1] not in (["loss"], ["state"], ["served"])]
    return kinds["loss"], kinds["state"], served, rest


def numbers(losses):
    return [float.fromhex(loss) for loss in losses]


@slow
@needs_kernels
@pytest.mark.parametrize("threads", ["1", "2"])
def test_two_processes_come_to_the_same_bits(threads):
    """With the same number of threads; oneDNN's sums and MKL's may depend on it."""
    assert process(MKL_NUM_THREADS=threads) == process(MKL_NUM_THREADS=threads)


@slow
@needs_kernels
def test_threads_are_but_rounding():
    one, two = process(MKL_NUM_THREADS="1"), process(MKL_NUM_THREADS="2")
    np.testing.assert_allclose(numbers(one[0]), numbers(two[0]), rtol=1e-3)


@slow
@needs_kernels
def test_without_them_a_run_is_paddles_own():
    served = process()
    off = process(PPCLS_KERNELS="0")
    blocked = process(blocked=True)
    assert served[2]
    assert not off[2]
    assert off == blocked
    assert not off[3]  # nothing is told of it here: `ppcls train` tells it
    np.testing.assert_allclose(numbers(served[0]), numbers(off[0]), rtol=1e-3)


@slow
@needs_kernels
def test_a_home_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    variables = {"PPCLS_HOME": str(tmp_path / "file"), "TMPDIR": str(tmp_path)}
    assert process(**variables)[:3] == process()[:3]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@slow
def test_a_command_tells_once_that_numba_is_missing(workdir):
    blocked = workdir / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text("import sys; sys.modules['numba'] = None\n")
    env = os.environ | {"PYTHONPATH": f"{blocked}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "ppcls", "train", "-c", "recipe.yaml"]
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("numba is not installed") == 1


@slow
@needs_kernels
def test_what_was_trained_with_them_is_exported(workdir, run, monkeypatch):
    monkeypatch.setattr(channels_last, "LEAST", 0)
    calls = []
    served = ConvNorm.served
    monkeypatch.setattr(ConvNorm, "served", lambda *a, **k: calls.append(1) or served(*a, **k))
    assert run("train", "-c", "recipe.yaml")[0] == 0
    assert calls
    code, out, err = run("export", "-c", "recipe.yaml", "--output", "exported/small")
    assert code == 0, out + err
    monkeypatch.setattr(channels_last, "can_run", lambda: False)
    outs = []
    for model in ("runs/small/best.safetensors", "exported/small"):
        command = ("predict", "photos/eval", "--model-dir", model, "--save", "found.json")
        assert run(*command, "--overwrite")[0] == 0
        lines = json.loads(Path("found.json").read_text())
        outs.append([(line["path"], line["classes"], line["scores"]) for line in lines])
    assert outs[0]
    assert outs[0] == outs[1]


@slow
@needs_kernels
def test_images_may_come_to_a_static_graph_as_pixels(small):
    ones = np.ones(3, np.float32)
    net = Normalize.before(ConvNorm(3, 4, 3), ones, ones)
    pixels = paddle.to_tensor(np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3), np.uint8))
    net.eval()
    with paddle.no_grad():
        expected = net(pixels).numpy()
        found = paddle.jit.to_static(net, full_graph=False)(pixels).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
