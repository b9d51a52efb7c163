"""The engines of a GPU without one: what they refuse, and what ONNX Runtime is told."""

import json
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest

from ppcls.inference.engines import onnx_runtime
from ppcls.inference.engines.base import (
    NOT_ONE,
    SEVERAL_IMAGES,
    STALE,
    Settings,
    compute_capability,
    graph_holds,
)
from ppcls.inference.engines.table import open_engine
from ppcls.inference.engines.tensorrt import is_one_engine
from ppcls.inference.exported_model import open_exported
from ppcls.inference.quantize import quantize
from ppcls.utils.errors import UserError

TENSORRT = "TensorrtExecutionProvider"
CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"


def as_paddle_says(version):
    """A version of TensorRT as Paddle takes its number apart; it raises where it finds none."""
    if version is None:
        raise RuntimeError("(PreconditionNotMet) The third-party dynamic library (libnvinfer.so)")
    major, minor, patch = map(int, version.split(".")[:3])
    whole = (10000 if major >= 10 else 1000) * major + 100 * minor + patch
    return whole // 1000, whole % 1000 // 100, whole % 100


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """Makes installed what is told: a TensorRT, a GPU of a compute capability, Paddle's wheel."""
    from paddle import device, inference

    def make(tensorrt=None, capability="8.0", built_for=(10, 5, 0), linked=True):
        module = ModuleType("tensorrt")
        if tensorrt:
            module.__version__ = tensorrt
        monkeypatch.setitem(sys.modules, "tensorrt", module if tensorrt else None)
        driver = tmp_path / "nvidia-smi"
        driver.write_text(f"#!/bin/sh\necho {capability}\n")
        driver.chmod(0o700)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(device, "is_compiled_with_cuda", lambda: True)
        monkeypatch.setattr(inference, "get_trt_compile_version", lambda: built_for)
        library = tensorrt if linked else None
        monkeypatch.setattr(inference, "get_trt_runtime_version", lambda: as_paddle_says(library))
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])

    return make


def refused(folder, engine, **settings):
    with pytest.raises(UserError) as caught:
        open_engine(open_exported(folder), Settings(engine, device="gpu", **settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("engine", ["tensorrt", "onnxruntime-tensorrt"])
def test_another_major_version_of_tensorrt_is_one_line(exported, gpu, engine):
    gpu("11.4.0.106")
    assert refused(exported, engine) == (
        f"engine {engine}: calls TensorRT 10, and 11.4 is installed; pip install "
        "'tensorrt>=10,<11' (docs/gpu.md has which for what)"
    )
    gpu("8.6.1")
    assert f"engine {engine}: calls TensorRT 10, and 8.6 is installed" in refused(exported, engine)


def test_the_library_that_paddle_loads_is_looked_at_too(exported, gpu, monkeypatch):
    from paddle import inference

    gpu("10.5.0.18")
    monkeypatch.setattr(inference, "get_trt_runtime_version", lambda: as_paddle_says("11.4.0"))
    assert "calls TensorRT 10, and 11.4 is installed" in refused(exported, "tensorrt")
    monkeypatch.setattr(inference, "get_trt_runtime_version", lambda: as_paddle_says("8.6.1"))
    assert "calls TensorRT 10, and 8.6 is installed" in refused(exported, "tensorrt")


def test_pips_tensorrt_lacks_the_names_that_paddle_loads(exported, gpu):
    gpu("10.13.3.9", linked=False)
    assert refused(exported, "tensorrt") == (
        "engine tensorrt: Paddle loads libnvinfer.so and libnvinfer_plugin.so, and pip's TensorRT "
        "has libnvinfer.so.10 and libnvinfer_plugin.so.10: put links of the shorter names beside "
        "them, and their folder into LD_LIBRARY_PATH (docs/gpu.md has the commands)"
    )


def test_paddle_without_tensorrt_and_tensorrt_without_python(exported, gpu, monkeypatch):
    from paddle import inference

    gpu("10.5.0.18", built_for=(0, 0, 0))
    assert "the installed Paddle was built without TensorRT" in refused(exported, "tensorrt")
    gpu(None)
    monkeypatch.setattr(inference, "get_trt_runtime_version", lambda: as_paddle_says("10.13.3"))
    words = refused(exported, "tensorrt")
    assert "converter calls TensorRT's Python package; pip install 'tensorrt>=10,<11'" in words


def test_a_wheel_for_cuda_11_wants_tensorrt_8(exported, gpu):
    gpu("10.3.0", capability="7.0", built_for=(8, 6, 1))
    words = refused(exported, "tensorrt")
    assert "calls TensorRT 8, and 10.3 is installed; pip install 'tensorrt>=8,<9'" in words


@pytest.mark.parametrize("engine", ["tensorrt", "onnxruntime-tensorrt"])
def test_a_gpu_that_tensorrt_has_left_behind(exported, gpu, engine):
    gpu("10.9.0.34", capability="7.0")
    assert compute_capability() == (7, 0)
    assert refused(exported, engine) == (
        f"engine {engine}: TensorRT 10.9 has no support for this GPU (compute capability 7.0), "
        "10.4 is the last one that had; pip install 'tensorrt>=10,<10.5'"
    )


def test_no_tensorrt_at_all(exported, gpu):
    gpu(None)
    words = refused(exported, "tensorrt")
    assert words.startswith("engine tensorrt: Paddle finds no TensorRT; pip install 'tensorrt>=10")
    words = refused(exported, "onnxruntime-tensorrt")
    assert "finds no TensorRT 10; pip install 'ppcls[tensorrt]'" in words


def test_bf16_that_would_be_float32_is_refused(exported, gpu):
    gpu("10.5.0.18")
    words = refused(exported, "tensorrt", precision="bf16")
    assert words.startswith("engine tensorrt: Paddle's converter leaves a network for bf16 in flo")
    words = refused(exported, "onnxruntime-tensorrt", precision="bf16")
    assert words.startswith("engine onnxruntime-tensorrt: has no bf16 on a GPU, only fp32 and fp16")


def test_a_session_that_fell_back_to_another_provider_is_refused(exported, gpu, monkeypatch):
    gpu("10.5.0.18")
    session = onnxruntime.InferenceSession

    def on_the_cpu(path, options, providers, enable_fallback):
        assert not enable_fallback
        return session(path, options, [CPU])

    monkeypatch.setattr(onnxruntime, "InferenceSession", on_the_cpu)
    words = refused(exported, "onnxruntime")
    assert f"ONNX Runtime cannot start {CUDA} here and would run on {CPU}" in words


@pytest.fixture(scope="module")
def int8(tmp_path_factory, exported):
    """The small network in INT8 as TensorRT reads it."""
    place = tmp_path_factory.mktemp("int8")
    return quantize(
        exported, exported.parent, "onnxruntime-tensorrt", place / "int8", budget=1, images=3
    )


@pytest.fixture
def told(gpu, monkeypatch):
    """What sessions were told, each of which runs on the CPU and says that it does not."""
    gpu("10.5.0.18")
    session = onnxruntime.InferenceSession
    sessions = []

    class Told(session):
        def __init__(self, path, options, providers, enable_fallback=True):
            super().__init__(path, options, [CPU])
            self.asked = providers
            sessions.append(SimpleNamespace(path=path, options=options, providers=providers))
            assert not (enable_fallback and CUDA in dict(providers))
            if TENSORRT in dict(providers):
                cache = Path(dict(providers)[TENSORRT]["trt_engine_cache_path"])
                cache.mkdir(exist_ok=True)
                (cache / "one_sm80.engine").touch()

        def get_providers(self):
            return [name for name, _ in self.asked]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Told)
    return sessions


def kinds(path):
    return Counter(node.op_type for node in onnx.load(str(path)).graph.node)


def optimized(told, level, tmp_path):
    """The operations that are left of the network when the session's own passes are through."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(tmp_path / "left.onnx")
    onnxruntime.InferenceSession(told.path, options, [(CPU, {})])
    return kinds(tmp_path / "left.onnx")


def test_int8_networks_reach_tensorrt_as_they_are(exported, told):
    folder = open_exported(exported)
    int8 = replace(folder, manifest=replace(folder.manifest, precision="int8"))
    for engine, level in (("onnxruntime-tensorrt", "DISABLE"), ("onnxruntime", "ENABLE")):
        open_engine(int8, Settings(engine, device="gpu"))
        assert told[-1].options.graph_optimization_level.name == f"ORT_{level}_ALL"
    name, options = told[0].providers[0]
    assert (name, options["trt_int8_enable"], options["trt_fp16_enable"]) == (TENSORRT, True, False)


@pytest.mark.slow
def test_int8_networks_keep_their_pairs_up_to_tensorrt(int8, told, tmp_path):
    open_engine(open_exported(int8), Settings("onnxruntime-tensorrt", device="gpu"))
    (own,) = told
    written = kinds(own.path)
    assert written["QuantizeLinear"] == written["DequantizeLinear"] > 3
    left = optimized(own, own.options.graph_optimization_level, tmp_path)
    assert left["QuantizeLinear"] == written["QuantizeLinear"]
    assert left["DequantizeLinear"] == written["DequantizeLinear"]
    # What ONNX Runtime does unless told: pairs of weights are folded.
    usual = optimized(own, onnxruntime.SessionOptions().graph_optimization_level, tmp_path)
    assert usual["QuantizeLinear"] < written["QuantizeLinear"]


def test_what_tensorrt_is_told(exported, told):
    for precision in ("fp32", "fp16"):
        settings = Settings("onnxruntime-tensorrt", device="gpu", precision=precision)
        open_engine(open_exported(exported), settings)
        own = told[-1]
        assert own.options.graph_optimization_level.name == "ORT_ENABLE_ALL"
        options = dict(own.providers)[TENSORRT]
        assert options["trt_fp16_enable"] is (precision == "fp16")
        assert options["trt_int8_enable"] is False
        assert "trt_cuda_graph_enable" not in options
        assert [name for name, _ in own.providers] == [TENSORRT, CUDA, CPU]
        cache = open_exported(exported).cache() / f"ort_{precision}_8"
        assert str(cache) == options["trt_engine_cache_path"]
        name = onnxruntime.InferenceSession(own.path, None, [(CPU, {})]).get_inputs()[0].name
        assert options["trt_profile_min_shapes"] == f"{name}:1x3x32x32"
        assert options["trt_profile_opt_shapes"] == f"{name}:8x3x32x32"
        assert options["trt_profile_max_shapes"] == f"{name}:8x3x32x32"
        assert dict(own.providers)[CUDA]["use_tf32"] == 0


def test_images_of_any_size_have_no_profile(pixels_in, told):
    settings = Settings("onnxruntime-tensorrt", device="gpu", batch=1)
    engine = open_engine(open_exported(pixels_in), settings)
    assert not [key for key in dict(told[-1].providers)[TENSORRT] if "profile" in key]
    assert (engine.graph, engine.why) == (False, "the network takes images of any size")


def test_more_images_than_tensorrt_was_built_for_come_in_parts(exported, told, monkeypatch):
    ran = []
    run = onnxruntime.InferenceSession.run

    def counted(self, names, given):
        ran.extend(map(len, given.values()))
        return run(self, names, given)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", counted)
    settings = Settings("onnxruntime-tensorrt", device="gpu", batch=2)
    engine = open_engine(open_exported(exported), settings)
    images = np.random.default_rng(0).standard_normal((5, 3, 32, 32)).astype(np.float32)
    found = engine.run(images)
    assert ran == [2, 2, 1]
    plain = open_engine(open_exported(exported), Settings("onednn")).run(images)
    np.testing.assert_allclose(found, plain, atol=2e-6)


def test_a_network_that_tensorrt_has_not_touched_is_refused(copy, told, monkeypatch):
    monkeypatch.setattr(Path, "touch", lambda self: None)  # nothing is built
    folder = copy("inference.onnx", "inference.yml")
    assert refused(folder, "onnxruntime-tensorrt") == (
        "engine onnxruntime-tensorrt: TensorRT has built no engine of this network, which would "
        "run without it; --engine onnxruntime runs it on CUDA"
    )


def test_what_a_provider_says_against_a_network_is_told(exported, tmp_path, gpu, monkeypatch):
    gpu("10.5.0.18")
    session = onnxruntime.InferenceSession

    def fails(path, options, providers, **keys):
        if providers == [CPU]:
            return session(path, options, providers)
        raise RuntimeError("TensorRT EP could not build\nengine")

    monkeypatch.setattr(onnxruntime, "InferenceSession", fails)
    path = tmp_path / "own.onnx"
    shutil.copy(exported / "inference.onnx", path)
    assert refused(path, "onnxruntime-tensorrt") == (
        f"engine onnxruntime-tensorrt: ONNX Runtime's {TENSORRT} cannot start or run this network "
        "here (TensorRT EP could not build engine)"
    )
    model = onnx.load(str(path))
    model.graph.node[-1].op_type = "Unheard"
    onnx.save(model, str(path))
    assert "own.onnx: damaged, or of a kind" in refused(path, "onnxruntime-tensorrt")


def test_one_image_at_a_time_goes_through_a_cuda_graph(exported, told, monkeypatch, small, images):
    """The graph's session is opened with it, bound to one place, and used where it holds."""
    bound = onnx_runtime.bound
    ran = []

    def on_the_cpu(session, shape, dtype, device):
        assert device == "cuda"
        call = bound(session, shape, dtype, "cpu")

        def counted(given):
            ran.append(len(given))
            return call(given)

        return counted

    monkeypatch.setattr(onnx_runtime, "bound", on_the_cpu)
    settings = Settings("onnxruntime-tensorrt", device="gpu", batch=1)
    engine = open_engine(open_exported(exported), settings)
    assert ["trt_cuda_graph_enable" in dict(own.providers)[TENSORRT] for own in told] == [
        *(False, True)
    ]
    ran.clear()
    inputs = small.recipe.preprocess.normalize(images)
    plain = open_engine(open_exported(exported), replace(settings, batch=8))
    first = engine.run(inputs[:1])
    kept = first.copy()
    np.testing.assert_allclose(engine.run(inputs), plain.run(inputs), atol=1e-6)
    assert ran == [1, 5]
    assert (engine.graph, engine.why) == (True, "")
    assert (plain.graph, plain.why) == (False, SEVERAL_IMAGES)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("all compute graph nodes have not been partitioned to the Tensorrt", NOT_ONE),
        ("CUDA error 700\n in a kernel", "CUDA error 700 in a kernel"),
        ("", STALE),
    ],
)
def test_a_cuda_graph_that_is_refused_or_wrong_is_left(exported, told, monkeypatch, said, why):
    bound = onnx_runtime.bound

    def refuse(session, shape, dtype, device):
        if said:
            raise RuntimeError(said)
        return bound(session, shape, dtype, "cpu")

    monkeypatch.setattr(onnx_runtime, "bound", refuse)
    monkeypatch.setattr(onnx_runtime, "graph_holds", lambda *args: False)
    settings = Settings("onnxruntime-tensorrt", device="gpu", batch=1)
    engine = open_engine(open_exported(exported), settings)
    assert engine.run(np.zeros((3, 3, 32, 32), np.float32)).shape == (3, 2)
    assert (engine.graph, engine.why) == (False, why)


def test_a_graph_that_goes_on_with_its_first_images_is_found():
    def sums(images):
        assert images.shape == (1, *shape)
        return [images.astype(np.float32).sum((1, 2, 3))[:, None]]

    shape = (3, 4, 4)
    assert graph_holds(sums, shape, "float32")
    assert graph_holds(sums, shape, "uint8")
    seen = []

    def stale(images):
        seen.append(images)
        return sums(seen[0])

    assert not graph_holds(stale, shape, "float32")
    late = []

    def stale_later(images):
        late.append(images)
        return sums(late[min(1, len(late) - 1)])

    assert not graph_holds(stale_later, shape, "float32")


@pytest.fixture
def converter(gpu, monkeypatch):
    """What Paddle's converter was asked for; what it makes is the network itself, on the CPU."""
    import paddle

    from ppcls.inference.engines import paddle_inference, tensorrt

    gpu("10.5.0.18")
    asked = []

    class Config(SimpleNamespace):
        def __init__(
            self, inputs, min_subgraph_size, save_model_dir, workspace_size, precision_mode,
            use_cuda_graph=False,
        ):  # fmt: skip
            super().__init__(place=Path(save_model_dir), graph=use_cuda_graph, input=inputs[0])

    def convert(source, config):
        asked.append((config.graph, config.input.min_input_shape, config.input.max_input_shape))
        config.place.parent.mkdir(parents=True)
        for suffix in (".json", ".pdiparams"):
            shutil.copy(f"{source}{suffix}", config.place.with_suffix(suffix))

    fake = SimpleNamespace(
        TensorRTConfig=Config,
        Input=SimpleNamespace,
        PrecisionMode={"FP32": "FP32", "FP16": "FP16"},
        convert=convert,
    )
    monkeypatch.setattr(paddle, "tensorrt", fake, raising=False)
    cpu = Settings("paddle")
    monkeypatch.setattr(
        tensorrt, "configure", lambda *files: paddle_inference.configure(*files, cpu)
    )
    monkeypatch.setattr(tensorrt, "is_one_engine", lambda program: True)
    return asked


def test_paddle_builds_for_the_batch_once_and_with_a_graph_for_one_image(
    copy, converter, small, images, monkeypatch
):
    place = copy("inference.json", "inference.pdiparams", "inference.yml")
    inputs = small.recipe.preprocess.normalize(images)
    plain = open_engine(open_exported(place), Settings("onednn")).run(inputs)
    found = {}
    for batch in (8, 1, 8, 1):
        settings = Settings("tensorrt", device="gpu", batch=batch)
        found[batch] = open_engine(open_exported(place), settings)
        np.testing.assert_allclose(found[batch].run(inputs), plain, atol=2e-6)
    image = (3, 32, 32)
    assert converter == [(False, (1, *image), (8, *image)), (True, (1, *image), (1, *image))]
    assert (found[1].graph, found[1].why) == (True, "")
    assert (found[8].graph, found[8].why) == (False, SEVERAL_IMAGES)


def test_a_graph_of_paddles_that_answers_wrongly_is_remembered(copy, converter, monkeypatch):
    from ppcls.inference.engines import tensorrt

    monkeypatch.setattr(tensorrt, "graph_holds", lambda *args: False)
    place = copy("inference.json", "inference.pdiparams", "inference.yml")
    for _ in range(2):
        engine = open_engine(open_exported(place), Settings("tensorrt", device="gpu", batch=1))
        assert engine.run(np.zeros((1, 3, 32, 32), np.float32)).shape == (1, 2)
        assert (engine.graph, engine.why) == (False, STALE)
    assert [graph for graph, _, _ in converter] == [True, False]


def test_a_program_with_parts_beside_tensorrts_has_no_graph(copy, converter, monkeypatch):
    """Paddle's converter then leaves the graph out without a word."""
    from ppcls.inference.engines import tensorrt

    monkeypatch.setattr(tensorrt, "is_one_engine", is_one_engine)
    place = copy("inference.json", "inference.pdiparams", "inference.yml")
    engine = open_engine(open_exported(place), Settings("tensorrt", device="gpu", batch=1))
    assert engine.run(np.zeros((3, 3, 32, 32), np.float32)).shape == (3, 2)
    assert (engine.graph, engine.why) == (False, NOT_ONE)
    assert [graph for graph, _, _ in converter] == [True]


@pytest.mark.parametrize(
    ("names", "one"),
    [
        (["1.tensorrt_engine"], True),
        (["1.tensorrt_engine", "1.tensorrt_engine"], False),
        (["1.tensorrt_engine", "1.softmax"], False),
        ([], False),
    ],
)
def test_a_program_is_one_engine_where_nothing_else_computes(exported, tmp_path, names, one):
    """As Paddle writes it, with what computes in it replaced."""
    program = json.loads((exported / "inference.json").read_text())
    (block,) = program["program"]["regions"][0]["blocks"]
    kept = [op for op in block["ops"] if op["#"] in ("p", "1.data", "1.fetch")]
    assert {op["#"] for op in kept} == {"p", "1.data", "1.fetch"}
    around = ["0.combine", *names, "0.split"]
    block["ops"] = [*kept[:-1], *({"#": name} for name in around), kept[-1]]
    path = tmp_path / "inference.json"
    path.write_text(json.dumps(program))
    assert is_one_engine(path) is one
    assert not is_one_engine(exported / "inference.json")
