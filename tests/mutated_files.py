"""Mutated weight files, exported folders, tars, indexes and lists, and what reading says of them.

    python tests/mutated_files.py --count 20000 --seed 0

File number n of a seed is the same in every run. What reads them is a process of its own, replaced
when a file ends it or takes longer than the limit. A file is well answered when it is read or
refused in lines of words, within SECONDS of the processor and MEGABYTES.
"""

import argparse
import io
import json
import multiprocessing
import os
import pickle
import re
import resource
import struct
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image

from ppcls.data import shards
from ppcls.data.class_names import read_class_names
from ppcls.data.lists import read_label_sets, read_list
from ppcls.data.preprocess import Preprocess
from ppcls.inference import exported_model as exported
from ppcls.inference.manifest import Manifest
from ppcls.utils.errors import UserError
from ppcls.utils.text import escaped
from ppcls.weights import files

SECONDS = 5.0  # of the processor
MEGABYTES = 1000
PATIENCE = 60.0  # seconds until a process that reads is taken for hanging, on a busy machine
LONGEST_LINE = 2000
MOST_LINES = 11  # ten mistakes, and how many more there are
GOLDEN = Path(__file__).parent / "golden"
Random = np.random.Generator


@dataclass(frozen=True)
class Kind:
    """A kind of file: how one is made, and how it is read.

    `make(rng)` gives a name and content for each file of a folder, and the name of the one that is
    mutated; `read(folder)` does what a command would.
    """

    make: Callable[[Random], tuple[dict[str, bytes], str]]
    read: Callable[[Path], object]
    text: bool = False


# ------------------------------------------------------------------------------ whole files


def tensors(rng: Random) -> dict[str, np.ndarray]:
    shapes = [(4, 3, 3, 3), (4,), (), (2, 5), (0, 3)]
    kinds = (np.float32, np.float16, np.int64, np.uint8, np.uint16)
    return {
        f"block.{i}.{'weight' if len(shape) > 1 else 'bias'}": rng.integers(0, 9, shape).astype(
            kinds[rng.integers(len(kinds))]
        )
        for i, shape in enumerate(shapes)
    }


def pdparams(rng: Random) -> bytes:
    state = tensors(rng)
    names = {"StructuredToParameterName@@": {name: name for name in state}}
    cut = {
        "UnpackBigParamInfor@@": {"whole": {"OriginShape": [2, 2], "slices": ["a@@.0", "a@@.1"]}}
    }
    pieces = {"a@@.0": np.ones(2, np.float32), "a@@.1": np.ones(2, np.float32)}
    tree = [
        {**state, **names},
        OrderedDict(state),
        {"epoch": 3, "state_dict": state, "note": [1.5, None, ("a", True), {"b": b"c"}]},
        {**pieces, **cut},
        {name: (name, array) for name, array in state.items()},
    ][rng.integers(5)]
    return pickle.dumps(tree, int(rng.integers(2, 6)))


def npz(rng: Random) -> bytes:
    file = io.BytesIO()
    save = (np.savez, np.savez_compressed)[rng.integers(2)]
    save(file, **tensors(rng), label=np.array("text"))
    return file.getvalue()


def torch_file(rng: Random) -> bytes:
    return (GOLDEN / f"torch_{('zip', 'legacy')[rng.integers(2)]}.pth").read_bytes()


def safetensors_file(rng: Random) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        floats = {n: np.float32(a) for n, a in tensors(rng).items() if a.size}
        files.write_safetensors(path, floats, {"ppcls": json.dumps({"step": 1})})
        return path.read_bytes()


def weights(make: Callable[[Random], bytes]) -> Kind:
    return Kind(lambda rng: ({"a": make(rng)}, "a"), lambda folder: files.read(folder / "a"))


PADDLECLAS = """Global:
  model_name: PPLCNet_x1_0
PreProcess:
  transform_ops:
  - ResizeImage: {resize_short: 256}
  - CropImage:
      size: 224
  - NormalizeImage: {channel_num: 3, mean: [0.485, 0.456, 0.406], order: '', scale: 1.0/255.0,
      std: [0.229, 0.224, 0.225]}
  - ToCHWImage: null
PostProcess:
  Topk:
    topk: 5
    label_list: &names
    - tench
    - goldfish
    - *more
  ThreshOutput: {threshold: 0.5, label_0: &a nobody, label_1: somebody, default_label_index: 0}
""".replace("    - *more\n", "")


def manifest(rng: Random) -> str:
    names = ("ant", "bee", "cat")
    made = [
        Manifest("ResNet18", Preprocess(), names, about={"files": {"inference.pdiparams": 40}}),
        Manifest("ResNet18", Preprocess(), names, task="multilabel", threshold=(0.1, 0.2, 0.3)),
        Manifest("ResNet18", Preprocess(), names[:2], default=0, threshold=0.7),
    ]
    return [*(one.to_yaml() for one in made), PADDLECLAS][rng.integers(4)]


def pdiparams(rng: Random) -> bytes:
    """Two tensors as Paddle writes them; see `ppcls.inference.exported_model`."""
    found = b""
    for dims in ((2, 3), (4,)):
        message = b"\x08\x05" + b"".join(b"\x10" + bytes([dim]) for dim in dims)
        numbers = bytes(4 * int(np.prod(dims)))
        found += struct.pack("<IQIi", 0, 0, 0, len(message)) + message + numbers
    return found


XML = '<net><layers><layer><data element_type="f32" offset="0" size="16"/></layer></layers></net>'


def exported_folder(mutated: str) -> Callable[[Random], tuple[dict[str, bytes], str]]:
    def make(rng: Random) -> tuple[dict[str, bytes], str]:
        about = re.sub(r"\n *(files:|inference.pdiparams: 40)(?=\n)", "", manifest(rng))
        made = {"inference.yml": about.encode(), "inference.json": b"{}"}
        made["inference.pdiparams"] = pdiparams(rng)
        if mutated == "inference.xml":
            made |= {"inference.xml": XML.encode(), "inference.bin": bytes(16)}
        return made, mutated

    return make


def read_exported(folder: Path) -> object:
    return exported.open_exported(folder)


def tar_bytes(rng: Random) -> bytes:
    file, photo = io.BytesIO(), io.BytesIO()
    Image.new("L", (4, 4)).save(photo, "JPEG")
    form = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)[rng.integers(3)]
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for number in range(3):
            long = "x" * 120 if form != tarfile.USTAR_FORMAT and number == 1 else "é"
            for ending, data in (("jpg", photo.getvalue()), ("cls", b"%d" % number)):
                info = tarfile.TarInfo(f"{long}{number}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def read_tar(folder: Path) -> object:
    return shards.open_shards(str(folder / "a.tar"))


def tar_with_index(rng: Random) -> tuple[dict[str, bytes], str]:
    return {"a.tar": tar_bytes(rng)}, "index"


def lines(rng: Random) -> str:
    multilabel = rng.random() < 0.3
    labels = ("0,1", "1,0", "0,0") if multilabel else ("0", "1", "2")
    rows = [f"photos/{n} x.jpg\t{labels[n % len(labels)]}" for n in range(6)]
    return "\n".join(rows) + "\n"


def table(rng: Random) -> str:
    if rng.random() < 0.5:
        return "path,label\n" + "".join(f'"a, {n}.jpg",{n % 3}\n' for n in range(6))
    return "image,ant,bee\n" + "".join(f"{n}.jpg,{n % 2},1\n" for n in range(6))


def read_lists(folder: Path) -> object:
    (path,) = folder.iterdir()
    try:
        return read_list(path)
    except UserError:
        return read_label_sets(path)


def class_names(rng: Random) -> str:
    return [
        "ant\nbee\ncat\n",
        "0 ant\n1 bee\n2 cat\n",
        '{"0": "ant", "1": "bee"}',
        '["ant", "bee"]',
        "{0: 'ant', 1: 'bee'}",
    ][rng.integers(5)]


def text(name: str, make: Callable[[Random], str], read: Callable[[Path], object]) -> Kind:
    return Kind(lambda rng: ({name: make(rng).encode()}, name), read, text=True)


KINDS = {
    "pdparams": weights(pdparams),
    "torch": weights(torch_file),
    "npz": weights(npz),
    "safetensors": weights(safetensors_file),
    "manifest": Kind(exported_folder("inference.yml"), read_exported, text=True),
    "pdiparams": Kind(exported_folder("inference.pdiparams"), read_exported),
    "openvino": Kind(exported_folder("inference.xml"), read_exported, text=True),
    "tar": Kind(lambda rng: ({"a.tar": tar_bytes(rng)}, "a.tar"), read_tar),
    "index": Kind(tar_with_index, read_tar),
    "list": text("a.txt", lines, read_lists),
    "csv": text("a.csv", table, read_lists),
    "names": text("names.txt", class_names, lambda f: read_class_names(f / "names.txt")),
}
OFTEN = {"pdparams": 4, "torch": 4, "npz": 3, "safetensors": 3, "manifest": 5, "tar": 4, "index": 2}

# ------------------------------------------------------------------------------ mutations

EXTREME = [2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, 2**40, 2**24, 0, 1, 255, 65535]
WORDS = [
    "[" * 3000,
    "{" * 400,
    "&a [*a, *a]",
    "*a",
    "<<: *a",
    "!!int ",
    "!!python/object:os.system ",
]
WORDS += ["9" * 5000, "1" * 320, "-1", "1e999", ".inf", ".nan", "0x" + "f" * 999, "1:" * 3000 + "1"]
WORDS += ["\0", "\x1b[31m", "\ufeff", "\u2028", "\xb2", "\ud7ff", '"\\UFFFFFFFF"', "%YAML 9.9\n"]
WORDS += [
    "null",
    "true",
    "{}",
    "[]",
    "''",
    ": ",
    "- ",
    "\n",
    "\t",
    "#",
    "x" * 100_000,
    ",".join("01" * 9999),
]
ALIASES = "".join(f"  - &b{i} [{', '.join([f'*b{i - 1}'] * 9)}]\n" for i in range(1, 12))
WORDS += ["\n  - &b0 [x]\n" + ALIASES, "a: &b0 x\n"]
OPCODES = sorted(
    {ord(code) for code in "(.012FIJKLMNPQRSTUVXabcdeghijlopqrstu]})"} | {*range(0x80, 0x99)}
)


def bits_flipped(data: bytes, rng: Random) -> bytes:
    array = np.frombuffer(data, np.uint8).copy()
    reach = len(array) if rng.random() < 0.5 else min(len(array), 200)
    places = rng.integers(0, reach, rng.integers(1, 10))
    array[places] ^= np.uint8(1) << rng.integers(0, 8, len(places), np.uint8)
    return array.tobytes()


def cut_short(data: bytes, rng: Random) -> bytes:
    return data[: rng.integers(0, len(data))]


def middle_lost(data: bytes, rng: Random) -> bytes:
    start, end = np.sort(rng.integers(0, len(data), 2))
    return data[:start] + data[end:]


def middle_again(data: bytes, rng: Random) -> bytes:
    start, end = np.sort(rng.integers(0, len(data), 2))
    times = int(rng.choice([2, 2, 50]))
    return data[:start] + data[start:end] * times + data[end:]


def number_changed(data: bytes, rng: Random) -> bytes:
    size, value = int(rng.choice([1, 2, 4, 8])), EXTREME[rng.integers(len(EXTREME))]
    place = int(rng.integers(0, max(1, len(data) - size)))
    number = (value & (1 << 8 * size) - 1).to_bytes(size, ("little", "big")[rng.integers(2)])
    return data[:place] + number + data[place + size :]


def digits_changed(data: bytes, rng: Random) -> bytes:
    found = list(re.finditer(rb"[0-9]+", data))
    if not found:
        return data
    number = found[rng.integers(len(found))]
    value = [b"9" * 400, b"9" * 5000, b"-1", b"1e9", b"\xc2\xb2", b"99999999999"][rng.integers(6)]
    value = str(EXTREME[rng.integers(len(EXTREME))]).encode() if rng.random() < 0.6 else value
    return data[: number.start()] + value + data[number.end() :]


def words_put_in(data: bytes, rng: Random) -> bytes:
    marks = [mark.end() for mark in re.finditer(rb"[\s:,\[{-]", data)] or [0]
    for _ in range(rng.integers(1, 4)):
        place = marks[rng.integers(len(marks))]
        word = WORDS[rng.integers(len(WORDS))].encode()
        end = place if rng.random() < 0.5 else data.find(b"\n", place)
        data = data[:place] + word + data[max(end, place) :]
    return data


def opcodes_put_in(data: bytes, rng: Random) -> bytes:
    for _ in range(rng.integers(1, 6)):
        place = int(rng.integers(0, len(data) + 1))
        code = bytes([OPCODES[rng.integers(len(OPCODES))]])
        times = int(rng.choice([1, 1, 1, 1000, 100_000], p=[0.4, 0.3, 0.2, 0.07, 0.03]))
        data = data[:place] + (code + rng.bytes(rng.integers(0, 3))) * times + data[place:]
    return data


ANY = (bits_flipped, cut_short, middle_lost, middle_again, number_changed, digits_changed)


def inside_zip(data: bytes, rng: Random) -> bytes:
    """One member changed, and the archive written anew: with the checksums of a whole one."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        members = old.infolist()
        chosen = rng.integers(len(members))
        for place, member in enumerate(members):
            content = old.read(member)
            if place == chosen and content:
                ways = (*ANY, opcodes_put_in) if b"\x80" in content[:1] else ANY
                content = ways[rng.integers(len(ways))](content, rng)
            new.writestr(member.filename, content, member.compress_type)
    return file.getvalue()


def inside_header(data: bytes, rng: Random) -> bytes:
    """The JSON of a .safetensors file changed, and its length with it."""
    size = int.from_bytes(data[:8], "little")
    ways = (digits_changed, words_put_in, middle_again, middle_lost, bits_flipped)
    header = ways[rng.integers(len(ways))](data[8 : 8 + size], rng)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def inside_tar(data: bytes, rng: Random) -> bytes:
    """A field of a header changed, and the header's checksum with it."""
    changed = bytearray(data)
    blocks = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    start = blocks[rng.integers(len(blocks))]
    fields = ((0, 100), (124, 12), (124, 12), (136, 12), (156, 1), (156, 1), (157, 100), (345, 155))
    place, size = fields[rng.integers(len(fields))]
    value = [
        b"77777777777\0",
        b"\x80" + b"\xff" * 11,
        b"\xff" * 12,
        b"-1\0",
        b"1024\0",
        bytes([b"xgLKSV5012346"[rng.integers(13)]]),
        rng.bytes(size),
    ][rng.integers(7)][:size]
    changed[start + place : start + place + len(value)] = value
    changed[start + 148 : start + 156] = b" " * 8
    total = sum(changed[start : start + 512])
    changed[start + 148 : start + 156] = b"%06o\0 " % total
    return bytes(changed)


def mutations(kind: str, data: bytes) -> tuple[Callable[[bytes, Random], bytes], ...]:
    if KINDS[kind].text:
        return (*ANY, words_put_in, words_put_in, words_put_in, words_put_in)
    if data[:2] == b"PK":
        return (*ANY, *(inside_zip,) * 6)
    special = {"safetensors": inside_header, "tar": inside_tar, "pdiparams": number_changed}
    return (*ANY, *(special.get(kind, opcodes_put_in),) * 6)


@cache
def shares() -> np.ndarray:
    often = np.array([OFTEN.get(kind, 1) for kind in KINDS], float)
    return often / often.sum()


def choose(seed: int, number: int) -> tuple[str, Random]:
    rng = np.random.default_rng([seed, number])
    return list(KINDS)[rng.choice(len(KINDS), p=shares())], rng


def write_mutated(kind: str, rng: Random, folder: Path) -> str:
    """The files of a kind, one of them mutated; the mutation's name."""
    made, chosen = KINDS[kind].make(rng)
    for name, data in made.items():
        (folder / name).write_bytes(data)
    path = folder / chosen
    if chosen == "index":  # which reading the tar has made
        read_tar(folder)
        (path,) = Path(os.environ["PPCLS_HOME"]).glob("shards/index/*.npz")
    data = path.read_bytes()
    ways = mutations(kind, data)
    way = ways[rng.integers(len(ways))]
    path.write_bytes(way(data, rng))
    return way.__name__


# ------------------------------------------------------------------------------ verdicts


def verdict(kind: str, folder: Path) -> str:
    """ "loaded" or "refused" as it should be, else what is wrong."""
    try:
        KINDS[kind].read(folder)
    except UserError as error:
        found = str(error).split("\n")
        if len(found) > MOST_LINES or max(map(len, found)) > LONGEST_LINE:
            return f"long words: {len(found)} lines, {len(str(error))} characters"
        odd = [line for line in found if escaped(line) != line]
        return f"unprintable words: {odd}" if odd else "refused"
    except BaseException as error:
        while error.__cause__ or error.__context__:
            error = error.__cause__ or error.__context__
        trace, place = error.__traceback__, ""
        while trace:
            place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
            trace = trace.tb_next
        return f"traceback: {type(error).__name__} {place} {str(error)[:80]!r}"
    return "loaded"


def peak() -> float:
    """The most memory since `forget_peak`, in MB."""
    found = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    return (
        int(found[1]) / 1024 if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    )


def forget_peak() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def work(jobs: Connection, seed: int) -> None:
    """Read the files whose numbers come; sends back a mutation, a verdict, seconds and MB."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # notes
    while True:
        number = jobs.recv()
        kind, rng = choose(seed, number)
        with tempfile.TemporaryDirectory() as temporary:
            os.environ["PPCLS_HOME"] = f"{temporary}/home"
            folder = Path(temporary) / "files"
            folder.mkdir()
            mutation = write_mutated(kind, rng, folder)
            forget_peak()
            before, start = peak(), time.process_time()
            said = verdict(kind, folder)
            jobs.send((mutation, said, time.process_time() - start, peak() - before))


@dataclass
class Tally:
    """What was said of the files; `wrong` has number, kind and mutation of each that went wrong."""

    verdicts: Counter = field(default_factory=Counter)
    by_kind: Counter = field(default_factory=Counter)
    wrong: dict[tuple, str] = field(default_factory=dict)
    slowest: tuple = (0.0,)
    largest: tuple = (0.0,)

    def add(self, file: tuple, said: str, seconds: float, megabytes: float) -> None:
        if seconds > SECONDS:
            said = f"slow: {seconds:.1f} s, {said}"
        if megabytes > MEGABYTES:
            said = f"big: {megabytes:.0f} MB, {said}"
        short = said.split(":")[0]
        self.verdicts[short] += 1
        self.by_kind[file[1], short] += 1
        if short not in ("loaded", "refused"):
            self.wrong[file] = said
        self.slowest = max(self.slowest, (seconds, *file))
        self.largest = max(self.largest, (megabytes, *file))


@contextmanager
def reader(seed: int) -> Iterator[Connection]:
    """A fresh process that reads files; ended at the end, whatever it does."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=work, args=(there, seed), daemon=True)
    process.start()
    there.close()
    try:
        yield here
    finally:
        process.kill()
        process.join()


def read_all(count: int, seed: int = 0, first: int = 0) -> Tally:
    """Read `count` files; a process that ends or hangs is replaced."""
    tally, last = Tally(), first + count
    while first < last:
        with reader(seed) as jobs:
            for number in range(first, last):
                first = number + 1
                kind, _ = choose(seed, number)
                try:
                    jobs.send(number)
                    if not jobs.poll(PATIENCE):
                        tally.add((number, kind, "?"), "hangs", PATIENCE, 0)
                        break
                    mutation, *found = jobs.recv()
                    tally.add((number, kind, mutation), *found)
                except (EOFError, OSError):
                    tally.add((number, kind, "?"), "ends the process", 0, 0)
                    break
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    options = parser.parse_args()
    start = time.perf_counter()
    tally = read_all(options.count, options.seed, options.first)
    print(f"{options.count} files in {time.perf_counter() - start:.0f} s: {dict(tally.verdicts)}")
    for key, count in sorted(tally.by_kind.items()):
        print(f"  {' '.join(key):30} {count}")
    print(f"slowest: {tally.slowest[0]:.3f} s of CPU time: {tally.slowest[1:]}")
    print(f"most memory: {tally.largest[0]:.0f} MB: {tally.largest[1:]}")
    for file, said in tally.wrong.items():
        print(f"wrong: {file}: {said}")
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
