"""Predictions by a Ray cluster: workers with a `Predictor` each, fed and heard by this process.

`Cluster` gives what `Predictor.stream` gives, in the images' order, so that everything behind it
(the file that grows, going on with it, features) is that of `ppcls predict`.
"""

import logging
import os
import socket
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

import ppcls.prediction  # noqa: F401  which knows how checkpoints are exported
from ppcls.inference.engines.base import Settings
from ppcls.inference.exported_model import open_exported
from ppcls.inference.inputs import Content, Found, ImageInput
from ppcls.inference.predictor import Prediction, Predictor, in_place
from ppcls.inference.video import Frame
from ppcls.utils import modules
from ppcls.utils.errors import DataError, UserError
from ppcls.utils.files import expanded
from ppcls.utils.guard import user_errors
from ppcls.utils.log import be_quiet, say
from ppcls.utils.text import from_json, plural, to_json, visible, whole_number

LOCAL = "local"
MOST_ROWS = 512  # images that a worker is given at a time; a killed run does them again
TURNS = 4  # a worker is given images at least so many times, so that all end at about one time
ANSWER = 20  # seconds in which a cluster lets itself be reached
VARIABLES = "PPCLS_"  # what begins so is set for the workers, too


@dataclass(frozen=True)
class Workers(Settings):
    """How the workers run the network."""

    count: int = 1

    def __str__(self) -> str:
        return f"{super().__str__()} in {plural(self.count, 'worker')}"


@dataclass(frozen=True)
class Running:
    """What stands in the place of a predictor's engine."""

    settings: Workers


class Cluster:
    """A model on the workers of a cluster.

    Leaving a `with` block ends the workers, and a cluster that was started for them.
    """

    def __init__(
        self,
        model: str,
        address: str | None = None,
        workers: int | None = None,
        batch_size: int = 8,
        use: Sequence[str] = (),
        **given: Any,
    ):
        """Look at the model, and find the cluster.

        Args:
            model: as `Predictor` takes it; on all machines at the same place.
            address: of a cluster; `local`: one on this machine, only for this; None: what
                `RAY_ADDRESS` says, a cluster that runs on this machine, or else as `local`.
            workers: processes; None: as many as there are GPUs or, without any, cores.
            batch_size: images per run of the network.
            use: modules that the workers import first.
            given: further arguments of `Predictor`; `threads` are those of a worker, default 1.

        Raises:
            UserError: Ray is not installed, no cluster answers, it has too few cores or GPUs, or
                the model is incomplete.
        """
        self.ray = imported()
        own = {name: given.pop(name) for name in ("device", "threads", "engine", "precision")}
        with user_errors(model):
            self.folder = open_exported(Path(expanded(model)), in_place(given))
        self.manifest = self.folder.manifest
        self.batch_size = batch_size
        self.start(address)
        try:
            settings = self.planned(own, workers, address)
        except BaseException:
            self.close()
            raise
        self.engine = Running(settings)
        self.asked = {
            "model": model,
            "use": list(use),
            "folder": os.getcwd(),
            "variables": {k: v for k, v in os.environ.items() if k.startswith(VARIABLES)},
            "given": {
                **given,
                **own,
                "device": settings.device,
                "threads": settings.threads,
                "batch_size": batch_size,
            },
        }

    def start(self, address: str | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
        options: dict[str, Any] = {"address": address} if address else {}
        require_answer(address)
        try:
            self.ray.init(
                **options,
                include_dashboard=False if address == LOCAL else None,
                logging_level="error",
                log_to_driver=False,
            )
        except UnicodeEncodeError:  # it keeps the process's command line with the job
            raise UserError(
                "Ray takes no name on the command line that is no UTF-8: give its folder, or "
                "--list FILE"
            ) from None
        except Exception as error:  # of many kinds, by what an address looks like
            raise UserError(
                f"--address {address or 'of the cluster'}: no Ray cluster answers "
                f"({last_line(error)})"
            ) from None
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = self.ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        context.print_on_execution_start = False

    def planned(self, own: dict[str, Any], workers: int | None, address: str | None) -> Workers:
        """How many workers there will be, on what."""
        there = self.ray.cluster_resources()
        cores = int(there.get("CPU", 0))
        gpus = int(there.get("GPU", 0))
        device = own["device"]
        if device == "auto":
            device = "gpu" if gpus else "cpu"
        if device == "gpu":
            threads = own["threads"] or max(1, cores // max(1, gpus))
            found, what = gpus, "GPU"
        else:
            threads = own["threads"] or 1
            found, what = cores // threads, f"{threads}-core worker" if threads > 1 else "core"
        count = max(1, found) if workers is None else workers
        if count > found:
            few = f"{plural(count, 'worker')} asked for, the cluster has {plural(found, what)}"
            if address == LOCAL or not found:
                fix = "fewer --workers or --threads" if found or device == "cpu" else "--device cpu"
                raise UserError(f"{few}: give {fix}")
            say(f"note: {few}: some wait until it has more")
        own = own | {"device": device, "threads": threads, "batch": self.batch_size}
        return Workers(**own, count=count)

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self.ray.shutdown()

    def require_features(self) -> None:
        """UserError where the network was exported without features."""
        Predictor.require_features(self)  # type: ignore[arg-type]

    def stream(
        self,
        images: Found,
        topk: int | None = None,
        batch_size: int | None = None,
        on_error: str = "stop",
        features: bool = False,
    ) -> Generator[Prediction, None, None]:
        """As `Predictor.stream`, of images that `find` found.

        Raises:
            DataError: a broken image, unless `on_error` is skip.
            UserError: a worker cannot open the model, or the cluster gave up.
        """
        if not images:
            return
        place = 0
        width = self.manifest.features if features else 0
        for rows in self.batches(images, topk, width):
            for number, text, mistake, pooled in rows:
                if mistake:
                    raise UserError(*from_json(mistake))
                if number != place:
                    raise RuntimeError(f"Ray gave image {number} in the place of {place}")
                found = Prediction(**from_json(text))
                if found.error and on_error == "stop":
                    raise DataError(found.error)
                # The name as it was found here, a frame's or a web address's, too.
                found = replace(found, path=str(images[place]))
                yield replace(found, features=pooled) if width and not found.error else found
                place += 1

    def batches(self, images: Found, topk: int | None, width: int) -> Iterator[Iterator[Any]]:
        """The workers' rows, of some hundreds of images at a time."""
        settings = self.engine.settings
        rows = rows_each(len(images), settings.count, self.batch_size)
        tables = [table_of(images, start, rows) for start in range(0, len(images), rows)]
        wanted: dict[str, Any] = {"num_cpus": settings.threads}
        if settings.device == "gpu":
            wanted = {"num_gpus": 1}
        results = self.ray.data.from_arrow(tables).map_batches(
            Worker,
            fn_constructor_kwargs={**self.asked, "topk": topk, "width": width},
            batch_size=rows,
            batch_format="numpy",
            compute=self.ray.data.ActorPoolStrategy(size=min(settings.count, len(tables))),
            **wanted,
        )
        del tables
        try:
            for found in results.iter_batches(batch_size=None, batch_format="numpy"):
                pooled = found["features"] if width else [None] * len(found["place"])
                columns = (found["place"].tolist(), found["row"], found["mistake"], pooled)
                yield zip(*columns, strict=True)
        except self.ray.exceptions.RayError as error:
            raise UserError(f"the Ray cluster gave up: {last_line(error)}") from None


class Worker:
    """In a process of the cluster: predicts the images that it is given, and skips broken ones."""

    def __init__(
        self,
        model: str,
        use: Sequence[str],
        folder: str,
        variables: dict[str, str],
        given: dict[str, Any],
        topk: int | None,
        width: int,
    ):
        be_quiet()
        self.topk = topk
        self.width = width
        self.mistake: UserError | None = None
        os.environ.update(variables)
        try:
            os.chdir(folder)  # in which names mean what they meant to who gave them
            modules.use(*use)
            self.predictor = Predictor(model, **given)
        except OSError:
            self.mistake = UserError(
                f"{folder}: is not there on {socket.gethostname()}; start in a folder that all "
                "machines of the cluster share"
            )
        except UserError as error:  # told as a result: Ray would try again, and again
            self.mistake = error

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Of columns place (int64) and image (JSON, see `as_text`): place, row (JSON of a
        prediction) and mistake (JSON, lines), "" where there is none; features float32 [N, D].
        """
        count = len(batch["image"])
        rows = [""] * count
        pooled = np.zeros((count, self.width), np.float32)
        try:
            if self.mistake:
                raise self.mistake
            images = Found(map(of_text, batch["image"]))
            wanted = self.width > 0
            stream = self.predictor.stream(images, self.topk, on_error="skip", features=wanted)
            for index, found in enumerate(stream):
                if found.features is not None:
                    pooled[index] = found.features
                row = found.plain()
                rows[index] = to_json(row)
            mistake = ""
        except UserError as error:
            mistake = to_json(error.lines)
        answer = {
            "place": batch["place"],
            "row": np.array(rows, object),
            "mistake": np.array([mistake] * count, object),
        }
        return {**answer, "features": pooled} if self.width else answer


def imported() -> Any:
    """Ray, with what it reads tables with."""
    try:
        ray = import_module("ray")
        import_module("ray.data")
    except ImportError as error:
        name = visible(str(error.name or error))
        raise UserError(f"{name}: not installed; pip install 'ppcls[ray]'") from None
    return ray


def require_answer(address: str | None) -> None:
    """UserError where nothing listens at HOST:PORT: Ray itself would wait for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    number = whole_number(port)
    if not host or number is None:
        return
    try:
        socket.create_connection((host.strip("[]"), number), ANSWER).close()
    except (OSError, OverflowError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--address {address}: no Ray cluster answers ({reason})") from None


def rows_each(images: int, workers: int, batch: int) -> int:
    """Images that a worker is given at a time: whole batches, so that they are those of one
    process.
    """
    rows = min(MOST_ROWS, -(-images // (workers * TURNS)))
    return max(1, -(-rows // batch)) * batch


def table_of(images: Found, start: int, rows: int) -> Any:
    """Some of the images as a table of Arrow."""
    import pyarrow

    part = images[start : start + rows]
    places = np.arange(start, start + len(part), dtype=np.int64)
    return pyarrow.table({"place": places, "image": pyarrow.array(map(as_text, part), "string")})


def as_text(image: ImageInput) -> str:
    """An image as text that is UTF-8, whatever its name is."""
    if isinstance(image, Frame):
        return to_json([image.path, image.time, image.end, image.step])
    if isinstance(image, Content):
        if not isinstance(image.content, DataError):
            raise UserError(f"{image}: is standard input, which workers cannot read; give files")
        return to_json([str(image), *image.content.lines])
    return to_json([str(image)])


def of_text(text: str) -> ImageInput:
    name, *rest = from_json(text)
    if not rest:
        return name
    if isinstance(rest[0], str):
        return Content(name, DataError(*rest))
    return Frame(name, *rest)


def last_line(error: Exception) -> str:
    """What an error of Ray comes to: the last of its lines, as in a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return visible(lines[-1] if lines else type(error).__name__, 300)
