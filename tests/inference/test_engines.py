"""The engines of a CPU: the network's own numbers, and one line where there are none."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import paddle
import pytest
import small_network
from described_machine import describe

from ppcls.inference.engines import paddle_inference
from ppcls.inference.engines.base import Engine, Opened, Settings
from ppcls.inference.engines.table import ENGINES, device_for, open_engine
from ppcls.inference.exported_model import open_exported
from ppcls.utils import environment
from ppcls.utils.errors import UserError

CPU = ("paddle", "onednn", "onnxruntime", "openvino")
GPU = ("tensorrt", "onnxruntime-tensorrt")


def opened(folder, engine, **settings):
    return open_engine(open_exported(folder), Settings(engine, **settings))


def refused(folder, engine, **settings):
    with pytest.raises(UserError) as caught:
        opened(folder, engine, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_engine_of_a_cpu_is_tested_here():
    assert {name for name, entry in ENGINES.items() if "cpu" in entry.devices} == set(CPU)
    assert set(ENGINES) == {*CPU, *GPU}


@pytest.mark.parametrize("engine", CPU)
def test_probabilities_are_those_of_the_network(exported, small, images, engine):
    inputs = small.recipe.preprocess.normalize(images)
    expected = small_network.probabilities(small.net, inputs)
    assert np.ptp(expected[:, 0]) > 0.01  # else any image would do
    run = opened(exported, engine).run
    for count in (5, 1, 3):
        output = run(inputs[:count])
        assert output.dtype == np.float32
        np.testing.assert_allclose(output, expected[:count], atol=2e-6)


@pytest.mark.parametrize("engine", CPU)
def test_pixels_of_any_size_become_logits(pixels_in, small, images, engine):
    run = opened(pixels_in, engine).run
    for height, width in ((32, 32), (24, 17), (1, 1)):
        pixels = images[:2, :height, :width]
        expected = logits(small, pixels)
        np.testing.assert_allclose(run(pixels), expected, rtol=1e-5, atol=1e-5)
    assert expected.min() < -0.01 or expected.max() > 1.01  # no probabilities


def logits(small, pixels):
    return small.net(paddle.to_tensor(small.recipe.preprocess.normalize(pixels))).numpy()


@pytest.mark.parametrize("engine", CPU)
def test_results_are_not_overwritten_by_the_next_run(exported, small, images, engine):
    inputs = small.recipe.preprocess.normalize(images)
    engine = opened(exported, engine)
    first = engine.run(inputs[:1])
    kept = first.copy()
    engine.run(inputs[1:2])
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("engine", CPU)
def test_images_of_another_shape_or_dtype(exported, pixels_in, engine):
    run = opened(exported, engine).run
    right = np.zeros((1, 3, 32, 32), np.float32)
    wrong = [
        np.zeros((1, 3, 40, 40), np.float32),
        np.zeros((1, 1, 32, 32), np.float32),
        np.zeros((1, 32, 32, 3), np.float32),
        np.zeros((3, 32, 32), np.float32),
        right.astype(np.uint8),
        right.astype(np.float64),
        right[:0],
    ]
    for images in wrong:
        with pytest.raises(UserError) as caught:
            run(images)
        assert f"takes float32 [N, 3, 32, 32], not {images.dtype} [" in str(caught.value)
    assert run(right).shape == (1, 2)
    with pytest.raises(UserError, match=r"takes uint8 \[N, any, any, 3\], not float32"):
        opened(pixels_in, engine).run(right)


def test_what_an_engine_itself_refuses_is_one_line(exported, tmp_path):
    def call(images):
        raise RuntimeError("deep\n  inside")

    settings = Settings("onednn")
    engine = Engine(tmp_path, settings, Opened(call, (None, 3, None, None), "float32"))
    with pytest.raises(UserError) as caught:
        engine.run(np.zeros((1, 3, 8, 8), np.float32))
    assert str(caught.value) == (
        f"{tmp_path}: engine onednn cannot run this network on float32 [1, 3, 8, 8] (deep inside)"
    )


def test_the_first_run_of_each_copy_is_not_timed(tmp_path):
    """It is many times as long as others: libraries prepare themselves in it."""
    ran = []

    def call(images):
        ran.append(images.max())
        return images[:, :, 0, 0]

    engine = Engine(tmp_path, Settings("onednn"), Opened(call, (None, 3, None, None), "float32"))
    images = np.ones((1, 3, 8, 8), np.float32)
    for expected in ([0, 1], [0, 1, 1], [0, 1, 1, 1]):
        output, seconds = engine.run_timed(images)
        assert ran == expected
        assert output.tolist() == [[1, 1, 1]]
        assert seconds > 0


@pytest.mark.parametrize("engine", ["onednn", "openvino"])
def test_bf16(exported, small, images, engine, monkeypatch):
    cpuinfo = environment.read("proc/cpuinfo")
    inputs = small.recipe.preprocess.normalize(images)
    if any(flag in cpuinfo for flag in paddle_inference.BF16_FLAGS):
        output = opened(exported, engine, precision="bf16").run(inputs)
        difference = np.abs(output - opened(exported, engine).run(inputs)).max()
        assert 1e-6 < difference < 0.02
    else:
        assert "this CPU has no bf16; use fp32" in refused(exported, engine, precision="bf16")


def test_bf16_on_a_cpu_without_it(exported, monkeypatch):
    describe(monkeypatch, "/proc/cpuinfo", "flags: avx2 avx512f\n")
    words = refused(exported, "onednn", precision="bf16")
    assert words == "engine onednn: this CPU has no bf16; use fp32"


@pytest.mark.parametrize(
    ("engine", "precision"),
    [
        ("paddle", "bf16"),
        ("paddle", "fp16"),
        ("onednn", "fp16"),
        ("onnxruntime", "bf16"),
        ("onnxruntime", "fp16"),
        ("openvino", "fp16"),
    ],
)
def test_precisions_an_engine_has_not(exported, engine, precision):
    words = refused(exported, engine, precision=precision)
    assert words.startswith(f"engine {engine}: has no {precision} on a CPU, only fp32")


def test_an_engine_nobody_knows(exported):
    words = refused(exported, "tensorflow")
    assert words == f"engine tensorflow: unknown; known are auto, {', '.join(ENGINES)}"


@pytest.mark.parametrize(
    ("engine", "module", "words"),
    [
        ("onednn", "paddle", "paddlepaddle is not installed; pip install 'ppcls[cpu]'"),
        ("onnxruntime", "onnxruntime", "onnxruntime is not installed; pip install 'ppcls[deploy]'"),
        ("openvino", "openvino", "openvino is not installed; pip install 'ppcls[deploy]'"),
        (
            "onnxruntime",
            "paddle2onnx",
            "making ONNX of it needs paddle2onnx; pip install 'ppcls[deploy]'",
        ),
    ],
)
def test_an_engine_that_is_not_installed(exported, copy, monkeypatch, engine, module, words):
    monkeypatch.setitem(sys.modules, module, None)
    assert words in refused(copy("inference.json", "inference.pdiparams", "inference.yml"), engine)


@pytest.mark.parametrize("engine", GPU)
def test_engines_of_a_gpu_refuse_a_cpu(exported, engine):
    assert refused(exported, engine) == f"engine {engine}: runs on a GPU, not on a CPU"


@pytest.mark.parametrize("engine", ["onednn", "openvino"])
def test_engines_of_a_cpu_refuse_a_gpu(exported, engine):
    words = refused(exported, engine, device="gpu")
    assert words == f"engine {engine}: runs on a CPU, not on a GPU"


def test_wheels_for_a_cpu_say_what_to_install(exported, monkeypatch):
    import onnxruntime
    from paddle import device

    monkeypatch.setattr(device, "is_compiled_with_cuda", lambda: False)
    assert "the installed paddlepaddle is the CPU wheel" in refused(
        exported, "tensorrt", device="gpu"
    )
    providers = ["CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    for engine in ("onnxruntime", "onnxruntime-tensorrt"):
        words = refused(exported, engine, device="gpu")
        assert "pip install onnxruntime-gpu in its place" in words


def test_a_gpu_that_is_not_there(tmp_path, monkeypatch):
    import onnxruntime
    from paddle import device

    providers = ["CPUExecutionProvider"]
    monkeypatch.setattr(device, "is_compiled_with_cuda", lambda: False)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("none", "nvidia-smi"):  # the driver's program
        (tmp_path / name).touch(0o700)
        assert device_for("auto") == device_for("cpu") == "cpu"
    with pytest.raises(UserError, match=r"--device gpu: .* sees a GPU; use --device cpu, or inst"):
        device_for("gpu")
    providers.append("CUDAExecutionProvider")
    assert (device_for("auto"), device_for("cpu"), device_for("gpu")) == ("gpu", "cpu", "gpu")


def test_an_engine_needs_its_format(copy):
    onnx = copy("inference.onnx", "inference.yml")
    assert "engine onednn needs inference.json" in refused(onnx, "onednn")
    (onnx / "inference.onnx").unlink()
    xml = copy("inference.xml", "inference.bin")
    assert "has no inference.onnx; export with --format onnx" in refused(xml, "onnxruntime")


def test_onnx_is_made_once_and_kept(copy, small, images):
    place = copy("inference.json", "inference.pdiparams", "inference.yml")
    inputs = small.recipe.preprocess.normalize(images)
    expected = small_network.probabilities(small.net, inputs)
    written = set()
    for engine in ("onnxruntime", "openvino", "onnxruntime"):
        np.testing.assert_allclose(opened(place, engine).run(inputs), expected, atol=2e-6)
        (made,) = place.glob("engine_cache/*/*")
        assert made.name == "inference.onnx"
        written.add(made.stat().st_mtime_ns)
    assert len(written) == 1


def test_what_paddle2onnx_cannot_convert_ends_in_a_line(copy):
    """It ends the process that it runs in."""
    place = copy("inference.json", "inference.pdiparams")
    program = place / "inference.json"
    program.write_text(program.read_text().replace('"1.relu"', '"1.relu_of_the_future"'))
    with pytest.raises(UserError, match=r"inference.json: paddle2onnx cannot convert it .*unsupp"):
        open_engine(open_exported(place, {"crop": 32}), Settings("onnxruntime"))
    assert not [path for path in place.rglob("*") if "onnx" in path.name]
    with pytest.raises(UserError, match="is damaged, or of a version of Paddle that the installed"):
        open_engine(open_exported(place, {"crop": 32}), Settings("onednn"))


def test_settings_say_what_runs():
    settings = Settings("onednn", threads=2)
    assert str(settings) == "onednn (fp32, 2 threads)"
    assert str(replace(settings, threads=1, precision="bf16")) == "onednn (bf16, 1 thread)"
    assert str(replace(settings, engine="tensorrt", device="gpu")) == "tensorrt (fp32, GPU)"


SIGNAL_STACK = """
import ctypes, sys
from pathlib import Path
from ppcls.inference.engines.base import Settings
from ppcls.inference.engines.table import open_engine
from ppcls.inference.exported_model import open_exported
from ppcls.inference.engines.openvino import SignalStack

stacks = [SignalStack(), SignalStack()]
ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stacks[0]))
open_engine(open_exported(Path(sys.argv[1])), Settings("openvino"))
ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stacks[1]))
assert bytes(stacks[0]) == bytes(stacks[1])
"""


def test_openvino_leaves_the_signal_stack_alone(exported):
    """On CPUs with AMX it would put a small one in its place, on which a Ctrl-C crashes."""
    subprocess.run([sys.executable, "-c", SIGNAL_STACK, exported], check=True)
