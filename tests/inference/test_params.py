"""The walker of `.pdiparams` files, held against what Paddle itself writes and reads."""

import os
import shutil
import struct

import numpy as np
import paddle
import pytest
from paddle.base import core

from ppcls.inference import exported_model
from ppcls.utils.errors import UserError

ARRAYS = [
    np.arange(300 * 5, dtype=np.float32).reshape(300, 5),  # a side that takes two bytes
    np.array([1.5, -2.5], np.float64),
    np.arange(24, dtype=np.int64).reshape(2, 3, 4, 1),
    np.array([-7], np.int32),
    np.array([[-3, 3]], np.int16),
    np.array([[200, 7, 0]], np.uint8),
    np.array([-5, 5], np.int8),
    np.array([True, False, True]),
    np.array([0.5, -1], np.float16),
    np.float32(2.5),  # no dimensions
]


def write(path, tensors):
    """As `paddle.jit.save` does it."""
    held = [tensor.value().get_tensor() for tensor in tensors]
    names = [f"held_{index:02}" for index in range(len(held))]
    core.save_combine_func(held, names, str(path), True, False, False)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    place = tmp_path_factory.mktemp("params")
    return write(place / "inference.pdiparams", [paddle.to_tensor(array) for array in ARRAYS])


def test_every_tensor_is_where_paddle_put_it(file):
    data = file.read_bytes()
    found = list(exported_model.tensors(file))
    assert [tensor.dims for tensor in found] == [np.shape(array) for array in ARRAYS]
    for tensor, array in zip(found, ARRAYS, strict=True):
        assert (tensor.bytes_each, tensor.bytes) == (array.itemsize, array.nbytes)
        assert data[tensor.start : tensor.start + tensor.bytes] == array.tobytes()
    exported_model.check_params(file)


def test_bfloat16(tmp_path):
    half = paddle.to_tensor([1.0, -2.0, 3.0]).astype("bfloat16")
    (tensor,) = exported_model.tensors(write(tmp_path / "inference.pdiparams", [half]))
    assert (tensor.dims, tensor.bytes) == ((3,), 6)


def test_a_file_cut_anywhere_is_refused(file, tmp_path):
    cut = tmp_path / "cut.pdiparams"
    shutil.copy(file, cut)
    ends = {tensor.start + tensor.bytes for tensor in exported_model.tensors(file)}
    for place in reversed(range(file.stat().st_size)):
        if 200 < place < 5800 or place in ends:  # inside the first tensor's numbers, or whole
            continue
        os.truncate(cut, place)
        with pytest.raises(UserError, match=rf"cut\.pdiparams: cut short, {place} bytes are there"):
            exported_model.check_params(cut)


def test_bytes_too_many_are_refused(file, tmp_path):
    long = tmp_path / "long.pdiparams"
    long.write_bytes(file.read_bytes() + bytes(3))
    with pytest.raises(UserError, match=r"long.pdiparams"):
        exported_model.check_params(long)


def test_a_kind_of_tensor_that_is_not_known_is_left_to_paddle(file, tmp_path):
    data = bytearray(file.read_bytes())
    data[0] = 1  # its version
    other = tmp_path / "other.pdiparams"
    other.write_bytes(data)
    exported_model.check_params(other)
    with pytest.raises(UserError, match=r"other.pdiparams: has a kind of tensor that is not"):
        list(exported_model.tensors(other))


@pytest.mark.parametrize(
    "message",
    [
        b"\x08\x05\x12" + b"\xff" * 9 + b"\x01\x02",  # numbers packed into more than there is
        b"\x12\x7f\x02",
        b"\x08\x05\x10" + b"\xff" * 60_000 + b"\x01",  # a number of 60,000 bytes
        b"\x08\x05" + b"\x10\xff\xff\xff\xff\x7f" * 9000,  # 9,000 dimensions
        b"\x08\x05\x12\xa8\x46" + b"\x7f" * 9000,
    ],
)
def test_descriptions_that_ask_for_much_end(tmp_path, message):
    path = tmp_path / "inference.pdiparams"
    head = struct.pack("<IQIi", 0, 0, 0, len(message))
    path.write_bytes((head + message) * 20)
    with pytest.raises(UserError, match=r"cut short|kind of tensor that is not known"):
        sum(
            tensor.bytes < 0 for tensor in exported_model.tensors(path)
        ) or exported_model.check_params(path)
