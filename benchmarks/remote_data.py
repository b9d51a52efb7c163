"""What it costs that images lie elsewhere: on a web server, or a store that speaks S3.

A server on this machine, in a process of its own, answers every request after a delay (20 ms).
Batches of the same images are made by turns from files here, from the same files there, and from
shards there, by data workers or in this process; the pixels must be the same. What is compared is
the time between batches, with a pause for each in place of a training step: `--step 0` is loading
alone. `--list` and `--shards` measure instead what opening so many lines and shards takes.

    python benchmarks/remote_data.py [--photos FOLDER] [--delay 0.02] [--workers 2] [--step 0.5]
    python benchmarks/remote_data.py --list 14000000
    python benchmarks/remote_data.py --shards 100000
"""

import argparse
import asyncio
import hashlib
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

RANGE = re.compile(rb"\r\nrange: bytes=([0-9]+)-([0-9]+)", re.IGNORECASE)
SHARD = re.compile(r"-[0-9]+\.tar$")
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
BATCH = 32

# --------------------------------------------------------------------------- the server

Rule = Callable[[str, int], int]  # of a path and the number of the request: a status, 0: the file


class Answers(asyncio.Protocol):
    """One connection of a server of files, parts of them, and nothing else."""

    def __init__(self, server: "Server"):
        self.server = server
        self.came = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.server.connections.add(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.server.connections.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        self.came += data
        while (end := self.came.find(b"\r\n\r\n")) >= 0:
            head, self.came = self.came[: end + 2], self.came[end + 4 :]
            self.server.under_way += 1
            self.server.most = max(self.server.most, self.server.under_way)
            asyncio.get_running_loop().call_later(self.server.delay, self.answer, head)

    def answer(self, head: bytes) -> None:
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        path = unquote(urlsplit(target).path)
        server = self.server
        server.under_way -= 1
        server.requests.append(path)
        server.last = head
        status = server.rule(path, len(server.requests))
        file = server.folder / path.lstrip("/")
        if server.same and SHARD.search(path):
            file = server.same
        if not status and not (".." not in file.parts and file.is_file()):
            status = 404
        if status:
            self.send(status, b"", "")
            return
        size = file.stat().st_size
        tag = f'ETag: "{size}-{file.stat().st_mtime_ns}"\r\nAccept-Ranges: bytes\r\n'
        tag += "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
        span = RANGE.search(head) if server.ranges else None
        if method == "HEAD":
            self.send(200, b"", tag, size)
            return
        start, last = (int(span[1]), min(int(span[2]), size - 1)) if span else (0, size - 1)
        if span and start >= size:
            self.send(416, b"", "")
            return
        with file.open("rb") as content:
            content.seek(start)
            data = content.read(last - start + 1)
        about = f"Content-Range: bytes {start}-{last}/{size}\r\n" if span else ""
        cut = len(data) // 2 if server.cut and server.cut.pop(path, None) else None
        self.send(206 if span else 200, data, tag + about, cut=cut)

    def send(
        self, status: int, data: bytes, more: str, size: int | None = None, cut: int | None = None
    ) -> None:
        length = len(data) if size is None else size
        head = f"HTTP/1.1 {status} .\r\nContent-Length: {length}\r\n{more}\r\n"
        self.transport.write(head.encode() + data[:cut])  # type: ignore
        if cut is not None:
            self.transport.close()


class Server:
    """Serves the files below a folder, as a web server and as a store that speaks S3 (parts of
    files and their states, no listings) do, in a thread.

    Attributes:
        delay: seconds before each answer.
        rule: what is answered in place of a file.
        ranges: whether parts are sent where they are asked for.
        same: the file that stands for every shard.
        cut: paths whose next answer ends in its middle.
        requests: the paths that were asked for.
        last: the head of the last request.
        most: requests that were under way at a time.
    """

    def __init__(self, folder: Path, delay: float = 0.0, same: Path | None = None):
        self.folder = folder
        self.delay = delay
        self.same = same
        self.rule: Rule = lambda path, number: 0
        self.ranges = True
        self.cut: dict[str, bool] = {}
        self.requests: list[str] = []
        self.last = b""
        self.under_way = self.most = 0
        self.loop = asyncio.new_event_loop()
        self.port = 0
        self.connections: set[asyncio.BaseTransport] = set()

    def __enter__(self) -> "Server":
        ready = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(ready,), daemon=True)
        self.thread.start()
        ready.wait()
        return self

    def __exit__(self, *exception: object) -> None:
        self.loop.call_soon_threadsafe(self.end)
        self.thread.join()
        self.loop.close()

    def run(self, ready: threading.Event) -> None:
        async def begin() -> None:
            made = await self.loop.create_server(lambda: Answers(self), "127.0.0.1", self.port)
            self.listening = made
            self.port = made.sockets[0].getsockname()[1]

        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(begin())
        ready.set()
        self.loop.run_forever()

    def end(self) -> None:
        self.listening.close()
        for connection in self.connections:
            connection.abort()  # type: ignore
        self.loop.call_soon(self.loop.stop)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def in_a_process(folder: Path, delay: float, same: Path | None = None) -> Iterator[str]:
    """The address of such a server in a process of its own."""
    command = [sys.executable, __file__, "--serve", str(folder), "--delay", str(delay)]
    command += ["--same", str(same)] if same else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def serve(folder: Path, delay: float, same: Path | None) -> None:
    with Server(folder, delay, same) as server:
        server.requests = Forgetful()
        print(server.address, flush=True)
        threading.Event().wait()


class Forgetful(list):
    """Takes what is appended for nothing."""

    def append(self, item: object) -> None:
        pass


# --------------------------------------------------------------------------- speed


def speed(options: argparse.Namespace, folder: Path) -> None:
    """Batches from here and from there, by turns."""
    from ppcls.config.load import load
    from ppcls.data.datasets import open_samples
    from ppcls.data.loader import Loader
    from ppcls.data.make_shards import make_shards
    from ppcls.recipe import Recipe
    from ppcls.train.setup import train_pipeline

    photos = folder / "bucket/photos"
    shutil.copytree(options.photos, photos)
    make_shards(str(photos), folder / "bucket/shards", 1 << 23)
    samples = open_samples(photos)
    listed = [
        f"{path}\t{label}\n" for path, label in zip(samples.paths, samples.labels, strict=True)
    ]
    (folder / "bucket/list.txt").write_text("".join(listed).replace(f"{photos}/", "photos/"))
    names = sorted(path.name for path in (folder / "bucket/shards").glob("*.tar"))
    shards = names[0] if len(names) == 1 else f"train-{{{names[0][6:-4]}..{names[-1][6:-4]}}}.tar"
    recipe = load(Recipe, options.config, [f"data.train={photos}"])
    with in_a_process(folder, options.delay) as address:
        os.environ.update(KEYS, AWS_ENDPOINT_URL=address, PPCLS_HOME=str(folder / "home"))
        places = {
            "files here": str(folder / "bucket/list.txt"),
            "files, http://": f"{address}/bucket/list.txt",
            "files, s3://": "s3://bucket/list.txt",
            "shards here": str(folder / f"bucket/shards/{shards}"),
            "shards, http://": f"{address}/bucket/shards/{shards}",
            "shards, s3://": f"s3://bucket/shards/{shards}",
        }
        view = train_pipeline(recipe)
        opened = {name: open_samples(place) for name, place in places.items()}
        loaders = {
            name: Loader({"train": (data, view)}, options.workers) for name, data in opened.items()
        }
        seconds: dict[str, list[float]] = {name: [] for name in places}
        digests: dict[str, str] = {}
        try:
            for turn in range(options.turns + 1):  # the first one starts workers and connections
                for name, loader in loaders.items():
                    order = np.random.default_rng(turn).permutation(len(opened[name]))
                    order = order[: options.batches * BATCH].reshape(-1, BATCH)
                    taken, digest = measure(loader, list(order), turn, options.step)
                    digests[f"{name.partition(' ')[0].strip(',')} {turn}"] = (
                        digest
                        if (
                            digests.get(f"{name.partition(' ')[0].strip(',')} {turn}", digest)
                            == digest
                        )
                        else "differs"
                    )
                    if turn:
                        seconds[name].append(taken)
        finally:
            for loader in loaders.values():
                loader.close()
    assert "differs" not in digests.values(), "other pixels there than here"
    print(f"{options.workers} workers, {options.delay * 1000:g} ms, a step of {options.step:g} s:")
    print("| images | images/s | share of here |\n|---|---:|---:|")
    for name, found in seconds.items():
        here = seconds[f"{name.partition(' ')[0].strip(',')} here"]
        share = statistics.median(a / b for a, b in zip(here, found, strict=True))
        rate = options.batches * BATCH / statistics.median(found)
        print(f"| {name} | {rate:.0f} | {share:.2f} |", flush=True)


def measure(loader, order: list[np.ndarray], epoch: int, step: float) -> tuple[float, str]:
    """Seconds that the batches took, and a digest of their pixels and labels."""
    digest = hashlib.sha256()
    start = time.perf_counter()
    for batch in loader.batches("train", order, epoch):
        digest.update(batch.images.tobytes() + batch.labels.tobytes())
        time.sleep(step)
    return time.perf_counter() - start, digest.hexdigest()


# --------------------------------------------------------------------------- size


def long_list(count: int, folder: Path, delay: float) -> None:
    """Open a list of so many lines, from here and from there, each in a process of its own."""
    with (folder / "list.txt").open("w") as file:
        for start in range(0, count, 1 << 16):
            lines = range(start, min(start + (1 << 16), count))
            file.writelines(
                f"n{i % 1000:05}/n{i % 1000:05}_{i:08}.JPEG {i % 1000}\n" for i in lines
            )
    print("| list | seconds | peak memory, MiB |\n|---|---:|---:|")
    with in_a_process(folder, delay) as address:
        for name, place in {"here": str(folder), "there": address}.items():
            opened(f"{count:,} lines {name}", f"{place}/list.txt", folder)


def many_shards(count: int, folder: Path, delay: float) -> None:
    """Open so many shards, first without and then with their indexes kept."""
    from ppcls.data.make_shards import make_shards

    for label in range(2):
        for image in range(4):
            path = folder / f"photos/{label}/{image}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(np.random.default_rng(image).bytes(1000))
    from PIL import Image

    for path in (folder / "photos").rglob("*.jpg"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    make_shards(str(folder / "photos"), folder / "shards", 1 << 23)
    same = next((folder / "shards").glob("*.tar"))
    print("| shards | seconds | peak memory, MiB |\n|---|---:|---:|")
    with in_a_process(folder, delay, same) as address:
        pattern = f"{address}/train-{{000000..{count - 1:06}}}.tar"
        for name in ("first", "again"):
            opened(f"{count:,} shards, {name}", pattern, folder)


def opened(name: str, place: str, folder: Path) -> None:
    command = [sys.executable, __file__, "--open", place]
    env = os.environ | {"PPCLS_HOME": str(folder / "home")}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    print(f"| {name} | {done.stdout.splitlines()[-1]} |", flush=True)


def open_one(place: str) -> None:
    """Open a data set; print the seconds and the most memory that it took."""
    from ppcls.data.datasets import open_samples

    start = time.perf_counter()
    samples = open_samples(place)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{seconds:.1f} | {peak:,.0f} | {len(samples):,} images", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    root = Path(__file__).resolve().parent.parent
    parser.add_argument("--photos", default="photos/train", help="a folder for each class")
    parser.add_argument("--config", default=str(root / "configs/ResNet50_vd.yaml"))
    parser.add_argument("--delay", type=float, default=0.02, help="seconds before each answer")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--step", type=float, default=0.0, help="seconds of a training step")
    parser.add_argument("--batches", type=int, default=20, help=f"of {BATCH} images, a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--list", type=int, help="open a list of so many lines")
    parser.add_argument("--shards", type=int, help="open so many shards")
    parser.add_argument("--open", help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--same", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(Path(options.serve), options.delay, options.same)
    elif options.open:
        open_one(options.open)
    else:
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
            folder = Path(name)
            if options.list:
                long_list(options.list, folder, options.delay)
            elif options.shards:
                many_shards(options.shards, folder, options.delay)
            else:
                speed(options, folder)


if __name__ == "__main__":
    main()
