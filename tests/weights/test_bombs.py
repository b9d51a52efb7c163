"""Small files that stand for much: refused in one line, after work in proportion to their size.

Each would take minutes or gigabytes, were it written out, walked through or copied as it asks.
"""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest

from ppcls.utils.errors import UserError
from ppcls.weights import files

START = b"\x80\x04"


def refusal(path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        files.read(path)
    line = str(caught.value)
    assert line.isprintable()
    assert len(line) < 600
    return line


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def doubled(times: int = 60) -> bytes:
    """A list of one list twice, which is one of one list twice, and so on: 2**60 of them."""
    steps = (b"]\x94(h" + bytes([i]) + b"h" + bytes([i]) + b"e0" for i in range(times))
    return b"]\x940" + b"".join(steps) + b"h" + bytes([times])


DTYPE, ENCODE = name("numpy", "dtype"), name("_codecs", "encode")
FROM_BUFFER = name("numpy._core.numeric", "_frombuffer")
CUT = text("UnpackBigParamInfor@@") + b"}" + text("x") + b"}" + text("OriginShape") + b"]s"


@pytest.mark.parametrize(
    ("words", "data"),
    [
        ("array of type a list", DTYPE + doubled() + b"\x85R"),
        ("encodes text as a list", ENCODE + text("a") + doubled() + b"\x86R"),
        ("objects outside itself", doubled() + b"Q"),
        ("uses a list as a key", b"}" + doubled() + b"Ns"),
        ("holds a list, not tensors", doubled()),
        ("no tensors in it; its entries: 'x' (list)", b"}" + text("x") + doubled() + b"s"),
        ("parts of a tensor", b"}" + CUT + text("slices") + b"]" + doubled() + b"asss"),
        ("a byte order that is none", DTYPE + b"U\x02f4\x85R(K\x03" + doubled() + b"NNNtb"),
        ("more than 32 dimensions", b"}U\x01w" + FROM_BUFFER + b"(C\x00" + DTYPE + b"U\x02f4\x85R("
         + b"K\x01" * 100_000 + b"tU\x01CtRs"),
        ("more than 1,000,000 steps", b"]" * 4_000_000),
        ("a number of 15,999,999 bits as a key", b"\x8b" + struct.pack("<i", 2_000_000)
         + b"\x7f" * 2_000_000 + b"\x940}(" + b"h\x00N" * 200_000 + b"u"),
        ("entries: 'aaaaaaa", b"}" + text("a" * 20_000_000) + b"Ns"),
        ("EOFError", b"\x95" + struct.pack("<Q", 2**62)),
        ("EOFError", b"\x8e" + struct.pack("<Q", 2**34)),
        ("ValueError", b"}" + text("a") + b"I" + b"1" * 5000 + b"\ns"),
    ],
)  # fmt: skip
def test_pickles_that_stand_for_much(tmp_path, words, data):
    assert words in refusal(tmp_path / "a.pdparams", START + data + b".")


def many_calls(function: bytes, argument: bytes, more: bytes = b"", count: int = 50_000) -> bytes:
    """A list of what a function gives for one and the same argument, again and again."""
    kept = argument + b"\x940" + function + b"\x940"
    return kept + b"](" + (b"h\x01h\x00" + more + (b"\x86R" if more else b"\x85R")) * count + b"e"


PAIRS = b"](" + b"".join(b"\x8c\x06%06dN\x86" % i for i in range(20_000)) + b"e"


@pytest.mark.parametrize(
    "data",
    [
        many_calls(name("builtins", "tuple"), b"](" + b"K\x01" * 100_000 + b"e"),
        many_calls(ENCODE, text("a" * 2_000_000), text("latin1")),
        many_calls(name("collections", "OrderedDict"), PAIRS),
    ],
)
def test_calls_that_copy_what_is_there_again_and_again(tmp_path, data):
    assert "copies what it holds again and again" in refusal(tmp_path / "a", START + data + b".")


def test_one_dict_under_many_keys_is_looked_into_once(tmp_path):
    entries = b"".join(b"\x8c\x06%06dN" % i for i in range(20_000))
    keys = b"".join(b"\x8c\x06%06dh\x00" % i for i in range(20_000))
    data = START + b"}\x94(" + entries + b"u0}(" + keys + b"u."
    assert "no tensors in it; its entries: '000000' (dict)" in refusal(tmp_path / "a", data)


def tensor(
    shape: bytes, strides: bytes, size: int, key: bytes = b"0", kind="FloatStorage"
) -> bytes:
    storage = b"((U\x07storage" + name("torch", kind) + b"U" + bytes([len(key)]) + key
    storage += b"U\x03cpuI%d\ntQ" % size
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    return rebuild + storage + b"I0\n(%st(%st\x89NtR" % (shape, strides)


def torch_zip(pickled: bytes, **storages: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + pickled + b".")
        for key, data in storages.items():
            archive.writestr(f"a/data/{key[1:]}", data)
    return file.getvalue()


@pytest.mark.parametrize(
    ("words", "shape", "strides"),
    [
        ("more than 32 dimensions", b"I1\n" * 100_000, b"I1\n" * 100_000),
        ("more than 32 dimensions", b"J\xff\xff\xff\x7f" * 100_000, b"I1\n"),
        ("declares more than 2**64 numbers", b"I%d\n" % 2**40 * 20, b"I0\n" * 20),
        ("damaged", b"I2\n", b"I%d\n" % 2**47),
        ("damaged", b"I%d\n" % 2**60, b"I0\n"),
    ],
)
def test_shapes_of_torch_tensors(tmp_path, words, shape, strides):
    data = torch_zip(b"}U\x01w" + tensor(shape, strides, 1) + b"s", _0=bytes(4))
    assert words in refusal(tmp_path / "a.pth", data)


def test_storages_that_tensors_use_in_turns_are_not_read_each_time(tmp_path):
    """Twenty thousand numbers out of two storages of 2 MB: 40 GB to read, one after the other."""
    entries = b"".join(
        b"U\x06%06d" % i + tensor(b"I1\n", b"I1\n", 1_000_000, b"%d" % (i % 2), "HalfStorage")
        for i in range(2000)
    )
    data = torch_zip(b"}(" + entries + b"u", _0=bytes(2_000_000), _1=bytes(2_000_000))
    assert "take turns with storages" in refusal(tmp_path / "a.pth", data)


def test_a_storage_that_many_tensors_share_is_read_once(tmp_path):
    """As where all weights lie in one flat buffer, of halves that are cast to float32."""
    entries = b"".join(
        b"U\x06%06d" % i + tensor(b"I1\n", b"I1\n", 100_000, b"0", "HalfStorage")
        for i in range(500)
    )
    path = tmp_path / "a.pth"
    path.write_bytes(torch_zip(b"}(" + entries + b"u", _0=bytes(200_000)))
    assert len(files.read(path).tensors) == 500


def zip_of(path, **members: bytes) -> bytes:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, data in members.items():
            archive.writestr(f"{key}.npy", data)
    return path.read_bytes()


def npy(shape: str, descr: str = "'<f4'", data: bytes = b"") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


@pytest.mark.parametrize(
    ("shape", "descr"),
    [
        ("(4294967296,)", "'<f4'"),
        ("(1,)", "'|V2000000000'"),
        ("(1,)", "('<f4', (1000000000,))"),
        ("(" + "1," * 2000 + ")", "'<f4'"),
        ("(" * 900 + ")" * 900, "'<f4'"),
        ("(4611686018427387904, 4)", "'<f4'"),
        ("(-1,)", "'<f4'"),
    ],
)
def test_npz_that_declares_more_than_it_holds(tmp_path, shape, descr):
    line = refusal(tmp_path / "a.npz", zip_of(tmp_path / "a.npz", w=npy(shape, descr, bytes(4))))
    assert "damaged" in line or "no tensors" in line


def test_members_that_lie_in_each_other(tmp_path):
    """A directory whose thousand entries are one and the same megabyte of the file."""
    whole = zip_of(tmp_path / "a.npz", w=npy("(250000,)", data=bytes(1_000_000)))
    start = whole.rindex(b"PK\x01\x02")
    entry, end = whole[start:-22], bytearray(whole[-22:])
    entries = b"".join(entry.replace(b"w.npy", b"%05d" % i) for i in range(1000))
    end[8:12] = struct.pack("<HH", 1000, 1000)
    end[12:16] = struct.pack("<I", len(entries))
    line = refusal(tmp_path / "a.npz", whole[:start] + entries + bytes(end))
    assert "members that lie in each other" in line


def test_members_that_are_not_in_the_file_or_packed_in_other_ways(tmp_path):
    whole = bytearray(zip_of(tmp_path / "a.npz", w=npy("(1,)", data=bytes(4))))
    start = whole.rindex(b"PK\x01\x02")
    large = whole[:]
    large[start + 20 : start + 28] = struct.pack("<II", 2**31, 2**31)
    assert "damaged" in refusal(tmp_path / "a.npz", bytes(large))
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("w.npy", npy("(1,)", data=bytes(4)))
    assert "packed as no such file is" in refusal(
        tmp_path / "b.npz", (tmp_path / "b.npz").read_bytes()
    )


def safetensors(header: str, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header.encode() + data


@pytest.mark.parametrize(
    "header",
    [
        '{"w":{"dtype":"F32","shape":[' + ",".join("1" * 100_000) + '],"data_offsets":[0,4]}}',
        '{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}}',
        '{"w":' + "[" * 100_000 + "}",
        '{"' + "x" * 5_000_000 + '":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}',
        '{"w":{"dtype":"F32","shape":[' + "9" * 5000 + '],"data_offsets":[0,4]}}',
    ],
)
def test_headers_of_safetensors(tmp_path, header):
    refusal(tmp_path / "a.safetensors", safetensors(header, bytes(4)))


def test_what_real_checkpoints_ask_for_stays_far_below_the_limits(tmp_path):
    """Twice as many tensors as the largest networks have, in each protocol."""
    state = {f"blocks.{i}.norm.weight": np.ones(64, np.float32) for i in range(2000)}
    for protocol in range(6):
        path = tmp_path / f"{protocol}.pdparams"
        path.write_bytes(pickle.dumps({"model": state, "epoch": 1}, protocol))
        assert len(files.read(path).tensors) == 2000
