"""Reading every kind of checkpoint, refusing damaged ones, writing ours.

The two files tests/golden/torch_*.pth were written by PyTorch 2.13, the second with
`_use_new_zipfile_serialization=False`:

    w = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    state = OrderedDict(
        w=Parameter(w), transposed=w.t(), column=w[:, 1], half=tensor([0.5, -2.0]).half(),
        brain=tensor([1.5, -3e38]).bfloat16(), double=tensor(0.1).double(), count=tensor(7),
    )
    torch.save({"epoch": 3, "state_dict": state}, "torch_zip.pth")
    torch.save(state, "torch_legacy.pth", _use_new_zipfile_serialization=False)
"""

import io
import json
import os
import pickle
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import paddle
import pytest
import safetensors
import safetensors.numpy

from ppcls.utils.errors import UserError
from ppcls.weights import files

GOLDEN = Path(__file__).parents[1] / "golden"

# What PyTorch itself reads from them, as float32 where they are floats.
TORCH = {
    "w": np.float32([[0, 1, 2], [3, 4, 5]]),
    "transposed": np.float32([[0, 3], [1, 4], [2, 5]]),
    "column": np.float32([1, 4]),
    "half": np.float32([0.5, -2]),
    "brain": np.float32([1.5, -3.00405527047391e38]),
    "double": np.float32(0.1),
    "count": np.int64(7),
}


@pytest.fixture
def layer():
    paddle.seed(0)
    return paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.BatchNorm2D(4))


def assert_same(tensors, expected):
    assert list(tensors) == list(expected)
    for name, array in tensors.items():
        assert (array.dtype, array.shape) == (expected[name].dtype, expected[name].shape), name
        assert array.flags.c_contiguous
        assert not array.flags.writeable
        np.testing.assert_array_equal(array, expected[name], name)


def values(layer):
    return {name: tensor.numpy() for name, tensor in layer.state_dict().items()}


def failure(path) -> str:
    """The one line that says why `path` cannot be read."""
    with pytest.raises(UserError) as caught:
        files.read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["torch_zip.pth", "torch_legacy.pth"])
def test_torch(name):
    checkpoint = files.read(GOLDEN / name)
    assert checkpoint.kind == "torch"
    assert_same(checkpoint.tensors, TORCH)
    nested = ("read its entry 'state_dict'", "left out, being no tensors: 'epoch' (int)")
    casts = [f"cast 1 of 7 tensors from {d} to float32" for d in ("float16", "bfloat16", "float64")]
    assert checkpoint.notes == (*(nested if "zip" in name else ()), *casts)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pdparams_as_paddle_saves_them(tmp_path, layer, protocol):
    path = tmp_path / "ResNet50_v1.5_pretrained.pdparams"
    paddle.save(layer.state_dict(), str(path), protocol=protocol)
    assert_same(files.read(path).tensors, values(layer))
    without_suffix = files.read(str(path.with_suffix("")))
    assert without_suffix.kind == "pdparams"
    assert without_suffix.notes == ()


@pytest.mark.parametrize("protocol", range(6))
def test_pickled_arrays_of_every_protocol(tmp_path, protocol):
    arrays = {
        "row_major": np.arange(6, dtype=np.float32).reshape(2, 3),
        "column_major": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        "axes_swapped": np.arange(24, dtype=np.float32).reshape(2, 3, 4).swapaxes(0, 1),
        "big_endian": np.arange(3, dtype=">i4"),
        "scalar": np.array(1.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "flags": np.array([True, False]),
    }
    path = tmp_path / "a.pdparams"
    path.write_bytes(pickle.dumps(arrays, protocol))
    expected = {name: array.astype(array.dtype.newbyteorder("=")) for name, array in arrays.items()}
    assert_same(files.read(path).tensors, expected)


def test_nested_paddle_checkpoint(tmp_path, layer):
    path = tmp_path / "latest.pdparams"
    saved = {"opt": {"LR": 0.1}, "model": layer.state_dict(), "epoch": 9, "best": np.float64(0.5)}
    paddle.save(saved, str(path))
    checkpoint = files.read(path)
    assert_same(checkpoint.tensors, values(layer))
    assert checkpoint.notes == (
        "read its entry 'model'",
        "left out, being no tensors: 'opt' (dict), 'epoch' (int), 'best' (Scalar)",
    )


def test_averaged_weights_are_preferred_and_the_choice_is_noted(tmp_path):
    path = tmp_path / "a.pdparams"
    states = {"state_dict": {"w": np.zeros(1, "f4")}, "state_dict_ema": {"w": np.ones(1, "f4")}}
    path.write_bytes(pickle.dumps(states))
    checkpoint = files.read(path)
    assert checkpoint.tensors["w"] == 1
    assert checkpoint.notes == (
        "read its entry 'state_dict_ema'",
        "left out, being no tensors: 'state_dict' (dict)",
    )
    path.write_bytes(pickle.dumps({"first": {"w": np.ones(1)}, "second": {"w": np.ones(1)}}))
    assert "holds several state dicts ('first', 'second')" in failure(path)


def test_big_tensor_cut_up_by_paddle(tmp_path):
    path = tmp_path / "big.pdparams"
    w = np.arange(6, dtype=np.float32).reshape(3, 2)
    parts = {"b": w[0], "w@@.0": w.ravel()[:4], "w@@.1": w.ravel()[4:]}
    layout = {"w": {"OriginShape": w.shape, "slices": ["w@@.0", "w@@.1"]}}
    path.write_bytes(pickle.dumps({**parts, "UnpackBigParamInfor@@": layout}, 2))
    theirs = {name: tensor.numpy() for name, tensor in paddle.load(str(path)).items()}
    assert_same(files.read(path).tensors, theirs)
    assert theirs["w"].shape == (3, 2)


def test_bfloat16_of_paddle_and_of_safetensors(tmp_path):
    tensor = paddle.to_tensor([1.5, -3e38, 1e-40, 0.1]).astype("bfloat16")
    expected = {"x": tensor.astype("float32").numpy()}
    path = tmp_path / "a.pdparams"
    paddle.save({"x": tensor}, str(path))
    assert_same(files.read(path).tensors, expected)
    header = json.dumps({"x": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}).encode()
    data = len(header).to_bytes(8, "little") + header + tensor.numpy().tobytes()
    path.write_bytes(data)  # under a name that says otherwise
    checkpoint = files.read(path)
    assert checkpoint.kind == "safetensors"
    assert_same(checkpoint.tensors, expected)
    assert checkpoint.notes == ("cast 1 of 1 tensor from bfloat16 to float32",)


def test_npz(tmp_path):
    path = tmp_path / "a.npz"
    w = np.arange(6, dtype=np.float16).reshape(2, 3)
    np.savez_compressed(path, w=w, n=np.int64(3), name=np.array("net"))
    checkpoint = files.read(path)
    assert_same(checkpoint.tensors, {"w": w.astype(np.float32), "n": np.int64(3)})
    assert checkpoint.notes[0] == "left out, being no tensors: 'name' (ndarray)"


def test_written_safetensors(tmp_path, layer):
    path = tmp_path / "a.safetensors"
    state = values(layer)
    tensors = {"flag": np.array([True]), **state, "t": state["0.weight"].T, "n": np.array(3)}
    files.write_safetensors(path, tensors, {"recipe": "ü\n"})
    theirs = safetensors.numpy.load_file(path)
    assert theirs.keys() == tensors.keys()
    for name, array in theirs.items():
        assert array.dtype == tensors[name].dtype
        np.testing.assert_array_equal(array, tensors[name])
    checkpoint = files.read(path)
    assert_same(checkpoint.tensors, {name: tensors[name] for name in ["n", *state, "t", "flag"]})
    assert (
        path.read_bytes()[0] % 8 == 0
    )  # the header's length: numbers start where they can be mapped
    assert checkpoint.metadata == {"recipe": "ü\n"}
    assert list(tmp_path.iterdir()) == [path]


def test_written_pdparams(tmp_path, layer):
    path = tmp_path / "a.pdparams"
    files.write_pdparams(path, values(layer))
    other = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.BatchNorm2D(4))
    loaded = paddle.load(str(path))
    assert all(isinstance(tensor, paddle.Tensor) for tensor in loaded.values())
    assert other.set_state_dict(loaded) == ([], [])
    assert_same(files.read(path).tensors, values(other))
    np.testing.assert_array_equal(values(other)["0.weight"], values(layer)["0.weight"])


@pytest.mark.parametrize("write", [files.write_pdparams, files.write_safetensors])
def test_failed_write_leaves_what_was_there(tmp_path, write):
    path = tmp_path / "a"
    more = [{}] if write is files.write_safetensors else []
    write(path, {"w": np.ones(2, np.float32)}, *more)
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # as a full disk
    try:
        with pytest.raises(UserError, match=rf"^{path}: cannot be written .File too large"):
            write(path, {"w": np.ones(100_000, np.float32)}, *more)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    for place in (tmp_path / "none" / "b", path / "b"):
        with pytest.raises(UserError, match=rf"^{place}: cannot be written"):
            write(place, {"w": np.ones(2, np.float32)}, *more)


def test_missing_file_folder_and_empty_file(tmp_path):
    (tmp_path / "ResNet50_vd.pdparams").touch()
    assert "did you mean 'ResNet50_vd.pdparams'?" in failure(tmp_path / "ResNet50vd.pdparams")
    assert failure(tmp_path / "zzz").endswith("no such file; check the path")
    assert "nor a folder" in failure(tmp_path / "none" / "a.pth")
    assert "is a folder" in failure(tmp_path)
    assert "is empty" in failure(tmp_path / "ResNet50_vd.pdparams")


def a_zip_of_text() -> bytes:
    with zipfile.ZipFile(data := io.BytesIO(), "w") as archive:
        archive.writestr("readme.txt", "hello")
    return data.getvalue()


@pytest.mark.parametrize(
    "data",
    [b"epoch 3\n", b"<!DOCTYPE html><html>", b"\x89PNG\r\n\x1a\n" + bytes(50), b'{"a": {"b": 1}}']
    + [bytes(100), b"check the weights", a_zip_of_text()],
)
def test_not_a_checkpoint(tmp_path, data):
    (tmp_path / "a.pdparams").write_bytes(data)
    assert "not a checkpoint" in failure(tmp_path / "a.pdparams")


def written_files(folder, layer):
    """A good file of every kind."""
    for protocol in (2, 4):
        paddle.save(layer.state_dict(), str(folder / f"{protocol}.pdparams"), protocol=protocol)
    files.write_safetensors(folder / "a.safetensors", values(layer), {})
    np.savez(folder / "a.npz", **values(layer))
    yield from folder.iterdir()
    yield from (GOLDEN / "torch_zip.pth", GOLDEN / "torch_legacy.pth")


def test_every_kind_cut_short(tmp_path, layer):
    (tmp_path / "good").mkdir()
    cut = tmp_path / "cut"
    for path in written_files(tmp_path / "good", layer):
        data = path.read_bytes()
        for size in {1, 7, 20, *np.linspace(30, len(data) - 1, 25, dtype=int)}:
            cut.write_bytes(data[:size])
            assert "cut short or damaged" in failure(cut) or size < 30, (path, size)


def test_no_tensors(tmp_path):
    path = tmp_path / "a.pdparams"
    path.write_bytes(pickle.dumps({"epoch": 3, "inner": {"lr": 0.1}}))
    assert "no tensors in it; its entries: 'epoch' (int), 'inner' (dict)" in failure(path)
    path.write_bytes(pickle.dumps(np.ones(3)))
    assert "not tensors by name" in failure(path)


def test_nan_and_infinity_are_named(tmp_path):
    tensors = {f"layer{i}": np.float32([i, np.nan]) for i in range(4)}
    tensors |= {"good": np.ones(2, np.float32), "over": np.float64([1e300])}
    files.write_safetensors(tmp_path / "a", tensors, {})
    names = "'over', 'layer0', 'layer1' …"
    assert f"NaN or infinity in 5 of 6 tensors ({names})" in failure(tmp_path / "a")


def test_neither_paddle_nor_torch_is_imported():
    code = (
        "import sys; from ppcls.weights import files; print({'paddle', 'torch'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "set()"
