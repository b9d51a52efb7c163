"""Hostile files: nothing they name is called, and small files cannot claim large memory."""

import builtins
import collections
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from ppcls.utils.errors import UserError
from ppcls.weights import files
from ppcls.weights.pickles import MAGIC


class Hostile:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def torch_zip(data_pkl: bytes, storage=b"", compression=zipfile.ZIP_STORED) -> bytes:
    with zipfile.ZipFile(data := io.BytesIO(), "w", compression) as archive:
        archive.writestr("archive/data.pkl", data_pkl)
        archive.writestr("archive/data/0", storage)
    return data.getvalue()


def torch_legacy(pickled: bytes) -> bytes:
    return b"".join(map(pickle.dumps, (MAGIC, 1001, {"little_endian": True}))) + pickled


def refusal(path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        files.read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


CONTAINERS = {
    "bare": lambda value: value,
    "in a dict": lambda value: {"w": np.ones(2, np.float32), "x": value},
    "in a list": lambda value: [np.ones(2, np.float32), [value]],
    "in an array": lambda value: {"w": np.array([value], dtype=object)},
    "in an OrderedDict": lambda value: collections.OrderedDict(w=(1, {"x": value})),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("container", CONTAINERS)
def test_no_pickle_runs_code(tmp_path, protocol, container):
    marker, path = tmp_path / "marker", tmp_path / "a"
    calls = {
        "system": Hostile(os.system, f"touch {marker}"),
        "eval": Hostile(builtins.eval, f"open({str(marker)!r}, 'w').close()"),
    }
    for name, call in calls.items():
        data = pickle.dumps(CONTAINERS[container](call), protocol)
        pickle.loads(data)
        marker.unlink()  # it was no harmless file
        for wrapped in (data, torch_zip(data), torch_legacy(data)):
            message = refusal(path, wrapped)
            assert not marker.exists()
            if container == "in a list" and protocol < 2 and wrapped is data:
                assert "not a checkpoint" in message
            elif container == "in an array":
                assert "refused: it holds a numpy array of type 'O8'" in message
            else:
                assert "refused: its pickle asks for" in message
                assert name in message


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


NUMPY = "numpy._core"
TUPLES = b")" + b"\x85" * 200_000  # nested so deeply that hashing them overflows the stack


@pytest.mark.parametrize(
    ("reason", "data"),
    [
        ("asks for 'numpy.f2py.os.path'", b"\x8c\x05numpy\x8c\x0cf2py.os.path\x93"),
        ("asks for 'collections.abc.sys'", b"\x8c\x0bcollections\x8c\x07abc.sys\x93"),
        ("asks for '__builtin__.eval'", name("__builtin__", "eval")),
        ("asks for 'numpy.matrix'", name("numpy", "matrix")),
        ("sets the state of a function", name("_codecs", "encode") + b"N}U\x01aNs\x86b"),
        ("sets the state of a type", name("numpy", "dtype") + b"}U\x01aNsb"),
        ("sets the state of a str", b"\x8c\x01a}b"),
        ("encodes text as 'rot13'", name("_codecs", "encode") + b"U\x01aU\x05rot13\x86R"),
        ("sets or instances", name("collections", "OrderedDict") + b")\x81"),
        ("sets or instances", b"\x82\x01"),
        ("sets or instances", b"\x8f(K\x01\x90"),
        ("array of type 'V8'", name("numpy", "dtype") + b"U\x02V8\x85R"),
        ("array of records", name("numpy", "dtype") + b"U\x02f4\x85R(K\x03U\x01<NU\x01aNtb"),
        ("a tuple as a key", b"}" + TUPLES + b"Ns"),
        ("a tuple as a key", b"(" + TUPLES + b"Nd"),
        ("objects outside itself", b"NQ"),
    ],
)
def test_refused_by_name_state_opcode_and_type(tmp_path, reason, data):
    assert reason in refusal(tmp_path / "a", b"\x80\x04" + data + b".")


def frombuffer(shape: bytes, size: int) -> bytes:
    kind = name("numpy", "dtype") + b"U\x02f4\x85R"
    data = b"C" + bytes([size]) + bytes(size)
    return b"}U\x01w" + name(f"{NUMPY}.numeric", "_frombuffer") + b"(" + data + kind + shape


@pytest.mark.parametrize(
    "data",
    [
        b"Nr\xff\xff\xff\xff",  # the last slot of the memo
        b"\x96" + struct.pack("<Q", 2**40),  # bytearray of a TB
        b"\x8e" + struct.pack("<Q", 2**40),  # bytes of a TB
        frombuffer(b"(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft", 4) + b"U\x01CtRs",  # a huge shape
        frombuffer(b"(J\xff\xff\xff\x7fU\x01at", 4) + b"U\x01CtRs",  # text, two billion times
        frombuffer(b"(J\xff\xff\xff\xffJ\xff\xff\xff\xfft", 4) + b"U\x01CtRs",  # -1 x -1
        b"}\x94U\x05modelh\x00s",  # a dict in itself
        TUPLES,
    ],
)
def test_small_pickles_take_little_memory(tmp_path, data):
    message = refusal(tmp_path / "a", b"\x80\x04" + data + b".")
    assert "cut short or damaged" in message or "tensors" in message


def test_hand_made_array_is_read(tmp_path):
    """The hostile ones above fail for their shape, not for a slip in their making."""
    (tmp_path / "a").write_bytes(b"\x80\x04" + frombuffer(b"(K\x01K\x02t", 8) + b"U\x01CtRs.")
    np.testing.assert_array_equal(files.read(tmp_path / "a").tensors["w"], [[0, 0]])


def torch_pickle(shape: str, strides: str, offset=0, size=6, view=b"") -> bytes:
    """{"w": a float32 tensor in storage "0" of `size` numbers}; shape as in "I2\\nI3\\n"."""
    head = b"\x80\x02}U\x01w" + name("torch._utils", "_rebuild_tensor_v2") + b"((U\x07storage"
    storage = name("torch", "FloatStorage") + b"U\x010U\x03cpuI%d\n" % size + view + b"tQ"
    layout = f"I{offset}\n({shape}t({strides}t".encode()
    return head + storage + layout + b"\x89NtRs."


SIX = np.arange(6, dtype=np.float32)


def test_hand_made_torch_file_is_read(tmp_path):
    path = tmp_path / "a"
    pickled = torch_pickle("I2\nI2\n", "I1\nI3\n", offset=1)
    path.write_bytes(torch_zip(pickled, SIX.tobytes()))
    np.testing.assert_array_equal(files.read(path).tensors["w"], [[1, 4], [2, 5]])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/byteorder", "big")
        archive.writestr("a/data/0", SIX.astype(">f4").tobytes())
    np.testing.assert_array_equal(files.read(path).tensors["w"], [[1, 4], [2, 5]])


@pytest.mark.parametrize(
    ("reason", "data"),
    [
        ("damaged", torch_zip(torch_pickle("I2\nI3\n", "I3\nI1\n", offset=1), SIX.tobytes())),
        ("damaged", torch_zip(torch_pickle("I6\n", "I-1\n", offset=5), SIX.tobytes())),
        ("damaged", torch_zip(torch_pickle("I6\n", "I1\n", offset=-6), SIX.tobytes())),
        ("damaged", torch_zip(torch_pickle("I6\n", "I1\n", size=7), SIX.tobytes())),
        ("declares 1,099,511,627,776", torch_zip(torch_pickle(f"I{2**40}\n", "I0\n"), bytes(24))),
        (
            "compressed",
            torch_zip(torch_pickle("I6\n", "I1\n"), SIX.tobytes(), zipfile.ZIP_DEFLATED),
        ),
        ("kind that is not read", torch_legacy(torch_pickle("I1\n", "I1\n", view=b"K\x01"))),
        ("cut short", torch_legacy(torch_pickle("I1\n", "I1\n")) + pickle.dumps(["0"])),
        ("damaged", torch_legacy(torch_pickle("I1\n", "I1\n")) + b"\x80\x02]" + TUPLES + b"a."),
    ],
)
def test_torch_tensors_stay_inside_their_storage(tmp_path, reason, data):
    assert reason in refusal(tmp_path / "a", data)


def test_torch_storage_that_is_left_out_may_not_be_cut_short_either(tmp_path):
    path = tmp_path / "a"
    entry = torch_pickle("I6\n", "I1\n")[3:-1]
    other = entry.replace(b"U\x010", b"U\x011")
    pickled = b"\x80\x02}" + entry + b"U\x05inner}" + other + b"s."
    storage = struct.pack("<q", 6) + SIX.tobytes()
    data = torch_legacy(pickled) + pickle.dumps(["0", "1"]) + storage + storage
    path.write_bytes(data)
    np.testing.assert_array_equal(files.read(path).tensors["w"], SIX)
    assert "cut short" in refusal(path, data[:-1])


def test_npz_without_objects_and_without_bombs(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, w=np.array([Hostile(os.system, "true")], dtype=object))
    assert "numpy array of Python objects" in refusal(path, path.read_bytes())
    np.savez_compressed(path, w=np.zeros(2**25, np.float32))
    assert "refused: it declares 33,554,4" in refusal(path, path.read_bytes())
