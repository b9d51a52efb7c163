"""Tars with headers that are none, and kept indexes that are: one line, or made again."""

import io
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from ppcls.data.datasets import open_samples
from ppcls.utils.errors import UserError

BLOCK = 512


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def header(name: bytes, size: int | bytes, kind: bytes = b"0", spare: bytes = b"") -> bytes:
    """One block of a tar; a size in bytes stands there as it is."""
    digits = size if isinstance(size, bytes) else b"%011o\0" % size
    block = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + digits.ljust(12, b"\0")
    block += b"00000000000\0" + b" " * 8 + kind + bytes(100) + b"ustar\00000" + spare
    block = block.ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def record(key: bytes, value: bytes) -> bytes:
    """A line of a pax header: its own length, a key and a value."""
    text = b" " + key + b"=" + value + b"\n"
    length = len(text) + 1
    while len(str(length)) + len(text) != length:
        length += 1
    return str(length).encode() + text


def pax(*records: bytes, kind: bytes = b"x") -> bytes:
    data = b"".join(records)
    return header(b"pax", len(data), kind) + padded(data)


PHOTO = header(b"a.jpg", 3) + padded(b"xyz") + header(b"a.cls", 1) + padded(b"1")
END = bytes(2 * BLOCK)
NEGATIVE = b"\xff" * 12  # base 256
HUGE = b"\x80" + b"\x7f" * 11
GNU_SPARSE = {
    "0.0": (record(b"GNU.sparse.size", b"x"), record(b"GNU.sparse.numblocks", b"\xb2")),
    "0.1": (record(b"GNU.sparse.size", b"9"), record(b"GNU.sparse.map", b"1,x,-3")),
    "1.0": (record(b"GNU.sparse.major", b"1"), record(b"GNU.sparse.minor", b"0")),
    "1.0 big": (
        record(b"GNU.sparse.major", b"1"),
        record(b"GNU.sparse.minor", b"0"),
        record(b"GNU.sparse.realsize", b"9" * 200),
    ),
}
ODD = {f"type {kind} of {name}": header(b"p", size, kind) + END
       for kind in (b"x", b"g", b"L", b"K", b"X") for name, size in
       (("a gigabyte", 1 << 30), ("base 256", HUGE), ("less than nothing", NEGATIVE))}  # fmt: skip
ODD |= {
    f"sparse {name}": pax(*records) + header(b"s.jpg", 5) + padded(b"9\n1\n\n") + PHOTO + END
    for name, records in GNU_SPARSE.items()
}
ODD |= {
    "negative": header(b"b.jpg", NEGATIVE) + PHOTO + END,
    "beyond the end": header(b"b.jpg", 1 << 40) + PHOTO + END,
    "base 256 beyond the end": header(b"b.jpg", HUGE) + PHOTO + END,
    "pax size below nothing": PHOTO + pax(record(b"size", b"-4096")) + PHOTO + END,
    "pax size beyond the end": PHOTO + pax(record(b"size", b"9" * 18)) + PHOTO + END,
    "pax path with a NUL": PHOTO + pax(record(b"path", b"c\0d.jpg")) + header(b"c", 0) + END,
    "pax of digits": pax(b"1" * 60_000) + PHOTO + END,
    "pax without an end": pax(b"20 path=") + PHOTO + END,
    "pax of no length": pax(b"0 path=a\n") + PHOTO + END,
    "old sparse": header(b"b.jpg", 3, b"S", b"\xff" * 120 + b"9" * 24) + PHOTO + END,
    "only L": b"".join(header(b"L", 1, b"L") + padded(b"x") for _ in range(3000)) + END,
    "no end": PHOTO,
    "cut": PHOTO[:-700],
    "bytes": b"\xff" * 5000,
    "of zeros": bytes(20_000),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_headers_are_one_line(tmp_path, name):
    path = tmp_path / "train-7.tar"
    path.write_bytes(ODD[name])
    with pytest.raises(UserError) as caught:
        open_samples(str(path))
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()


def test_headers_that_are_right(tmp_path):
    """Long names of both kinds, and a size in a pax header, are read as tarfile writes them."""
    path = tmp_path / "train-7.tar"
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(path, "w", format=form) as tar:
            for name, content in (("d" * 150 + "/é.jpg", b"xyz"), ("d" * 150 + "/é.cls", b"3")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        assert open_samples(str(path)).paths[0].read() == b"xyz"
    sized = pax(record(b"size", b"3")) + header(b"a.jpg", 0) + padded(b"xyz")
    path.write_bytes(sized + PHOTO[2 * BLOCK :] + END)
    assert open_samples(str(path)).paths[0].read() == b"xyz"
    named = pax(record(b"hdrcharset", b"BINARY"), record(b"path", b"\xff.jpg"))
    named += header(b"a.jpg", 3) + padded(b"xyz")
    path.write_bytes(named + header(b"\xff.cls", 1) + padded(b"1") + END)
    assert open_samples(str(path)).paths[0].read() == b"xyz"


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
@pytest.mark.parametrize("torn", [False, True])
def test_compressed_tars_are_named(tmp_path, kind, torn):
    path = tmp_path / "train-7.tar"
    with tarfile.open(path, f"w:{kind}") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"), io.BytesIO())
    if torn:
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"train-7\.tar: not an uncompressed tar"):
        open_samples(str(path))


# --------------------------------------------------------------------------- kept indexes


def saved(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def with_huge_array(kept: bytes) -> bytes:
    """An index whose array of sizes declares 2**60 numbers."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(kept)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "sizes.npy":
                text = b"{'descr': '<i8', 'fortran_order': False, 'shape': (%d,), }\n" % (1 << 60)
                data = b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text
            new.writestr(name, data)
    return file.getvalue()


def changed(kept: bytes, **new) -> bytes:
    with np.load(io.BytesIO(kept)) as arrays:
        return saved(**{**arrays, **new})


I64, U8 = np.int64, np.uint8
DAMAGE = {
    "empty": lambda kept: b"",
    "torn": lambda kept: kept[: len(kept) // 2],
    "flipped": lambda kept: kept.replace(b"jpg", b"j\0g"),
    "an array": lambda kept: kept[kept.index(b"\x93NUMPY") :],
    "JSON": lambda kept: b"[" * 100_000,
    "a pickle": lambda kept: b"\x80\4cposix\nsystem\n(U\2lstR.",
    "no arrays": lambda kept: saved(),
    "huge": with_huge_array,
    "objects": lambda kept: changed(kept, sizes=np.array([3, None])),
    "of two": lambda kept: changed(kept, sizes=np.array([3, 3], I64)),
    "nested": lambda kept: changed(kept, sizes=np.array([[3]], I64)),
    "of floats": lambda kept: changed(kept, offsets=np.array([512.0])),
    "below nothing": lambda kept: changed(kept, offsets=np.array([-1], I64)),
    "beyond the end": lambda kept: changed(kept, offsets=np.array([1 << 62], I64)),
    "too large": lambda kept: changed(kept, sizes=np.array([(1 << 63) - 1], I64)),
    "no such ending": lambda kept: changed(kept, endings=np.array([9], U8)),
    "ends elsewhere": lambda kept: changed(kept, photo_ends=np.array([400], I64)),
    "of none": lambda kept: changed(kept, sizes=np.array([], I64), offsets=np.array([], I64)),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_indexes_are_checked_before_they_are_believed(tmp_path, home, name):
    path = tmp_path / "train-7.tar"
    path.write_bytes(PHOTO + END)
    open_samples(str(path))
    (index,) = (home / "shards/index").iterdir()
    whole = index.read_bytes()
    index.write_bytes(DAMAGE[name](whole))
    samples = open_samples(str(path))
    assert samples.paths[0].read() == b"xyz"
    assert samples.labels.tolist() == [1]
    assert len(index.read_bytes()) == len(whole), "it is made again"


def test_indexes_that_cannot_be_kept_are_said(tmp_path, home, capsys):
    path = tmp_path / "train-7.tar"
    path.write_bytes(PHOTO + END)
    open_samples(str(path))
    (index,) = (home / "shards/index").iterdir()
    index.unlink()
    index.mkdir()
    assert len(open_samples(str(path))) == 1
    assert "note: the index of " in capsys.readouterr().out
