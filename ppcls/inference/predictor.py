"""Images to class names, with an exported folder alone."""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.data.preprocess import Preprocess
from ppcls.inference import inputs
from ppcls.inference.auto import choose
from ppcls.inference.calibration import State
from ppcls.inference.engines.base import DEVICES, PRECISIONS, Engine, LastingThreads, Settings
from ppcls.inference.engines.table import ENGINES, device_for, open_engine
from ppcls.inference.exported_model import checkpoint_in, open_exported
from ppcls.inference.inputs import (
    ImageInput,
    each,
    find,
    is_one,
    name_of,
    open_image,
    path_of,
    time_of,
    with_frames,
)
from ppcls.inference.looks import looks_of
from ppcls.inference.manifest import FILE as MANIFEST
from ppcls.utils import environment
from ppcls.utils.errors import DataError, UserError
from ppcls.utils.files import expanded
from ppcls.utils.guard import user_errors
from ppcls.utils.text import at_most, first_of, plural, visible

AUTO = "auto"
MANY_CLASSES = 1 << 30
AHEAD = 2  # batches, of each that runs, that are being prepared meanwhile
MANY = 8  # batches of each thread from which on each thread runs its own
LARGE = 1 << 29  # bytes of a network
SUMS_TO_ONE = 1e-3
NOTHING = "no class above its threshold"
NAMED = 3  # class names in a Predictor's repr
NAMED_IN_SET = 5  # class names of an answer that is not sure
ARRAYS = ("features", "maps", "looks")  # of a prediction
PREPARED = tuple(field.name for field in fields(Preprocess))  # type: ignore
OWN = ("folder", "device", "threads", "engine", "precision", "batch_size", "calibrated")


# From images as the network takes them, [1, …], and classes to these classes' maps, float32
# [k, h, w]; and what makes that of a checkpoint: the whole of ppcls, which prediction does without
# (see `ppcls/prediction.py`).
Explain = Callable[[np.ndarray, Sequence[int]], np.ndarray]
explainer: Callable[[Path], Explain] | None = None


@dataclass(frozen=True)
class Prediction:
    """The best classes of one image, or all above their thresholds; the likeliest first."""

    path: str | None  # None: it was no file
    classes: list[int]
    labels: list[str]  # class names; the class numbers where names are unknown
    scores: list[float]  # probabilities
    milliseconds: float  # reading, preprocessing and network, the mean over its batch
    error: str | None = None  # why there is no answer, with `on_error="skip"`
    time: float | None = None  # seconds from a video's beginning, of its frames
    # float32 [D], what the classifier takes, where it was asked for
    features: np.ndarray | None = field(default=None, repr=False, compare=False)
    # with a calibration, else None: the names of the classes of which one is right as often as it
    # says, and how sure that is (sure, unsure, unknown)
    set: list[str] | None = None
    state: State | None = None
    # where the calibration knows costs, else None: the class that costs least
    decision: str | None = None
    # float32 [k, h, w], where they were asked for: each class's logit, place by place of what comes
    # to the network of the image (`Preprocess.seen`)
    maps: np.ndarray | None = field(default=None, repr=False, compare=False)
    # float32 [LOOKS], how the image looks (`ppcls.inference.looks`), where drift is looked for
    looks: np.ndarray | None = field(default=None, repr=False, compare=False)

    def plain(self) -> dict[str, Any]:
        """All but the arrays, by name."""
        kept = (one.name for one in fields(self) if one.name not in ARRAYS)
        return {name: getattr(self, name) for name in kept}

    def __str__(self) -> str:
        named = ", ".join(
            f"{label} {score:.4f}" for label, score in zip(self.labels, self.scores, strict=True)
        )
        answer = f"error: {self.error}" if self.error else self.doubt or named or NOTHING
        answer = "; ".join(filter(None, (answer, self.decided)))
        return f"{self.path}: {answer}" if self.path and not self.error else answer

    @property
    def doubt(self) -> str:
        """What to say of an answer that is not sure; "" of a sure one, or without calibration."""
        if self.state in (None, "sure"):
            return ""
        # Classes with thresholds of their own may be in the set without the likeliest one.
        names = list(dict.fromkeys([*(self.set or ()), *self.labels[:1]]))
        if self.state == "unsure" and len(names) > 1:
            return f"unsure: {' or '.join(first_of(names, NAMED_IN_SET))}"
        return f"{self.state} (most like {self.labels[0]} {self.scores[0]:.2f})"

    @property
    def decided(self) -> str:
        """The decision in words; "" where there is none."""
        return "" if self.decision is None else f"decision {self.decision}"


@dataclass(frozen=True)
class Batch:
    """Images that run together; `first` is the place of the first among all, None: it is alone."""

    images: Sequence[ImageInput]
    first: int | None

    def name(self, place: int) -> str:
        return name_of(self.images[place], None if self.first is None else self.first + place)


@dataclass(frozen=True)
class Run:
    """A batch on its way: mistakes by image, the images of all others and, where that was asked,
    how each of these looks, then their outputs.
    """

    mistakes: list[DataError | None]
    images: np.ndarray | None
    seconds: float
    outputs: Sequence[np.ndarray] = ()
    looks: Sequence[np.ndarray] = ()


class Predictor:
    """An exported folder, ready to predict: `Predictor("exported/x").predict(["a.jpg"])`.

    One serves any number of threads. `close`, or leaving a `with` block, ends its own threads,
    which otherwise end with it.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        device: str = "auto",
        threads: int | None = None,
        engine: str = AUTO,
        precision: str = "fp32",
        batch_size: int = 8,
        calibrated: bool = True,
        **given: Any,
    ):
        """Open a folder that ppcls, PaddleClas or PaddleX exported.

        Args:
            device: auto, cpu or gpu.
            threads: CPU threads; None: as many as are fastest, or with an engine named, all cores.
            engine: a name in `engines.table.ENGINES`, or auto: the fastest here, measured once; or
                the import path of an engine of one's own, in a module that `ppcls.use` named.
            precision: of the arithmetic: fp32, bf16 (CPUs that have it) or fp16 (GPUs).
            batch_size: images per run of the network; changes the speed alone.
            calibrated: use the folder's calibration where it has one: calibrated scores, a set of
                classes and a state. False: the network's own answers.
            given: in place of what inference.yml says: fit, resize, crop, fill, interpolation,
                backend, mean, std (fields of `Preprocess`), class_names (or labels, the older
                name), a file of class names, "imagenet" or a sequence of them, and threshold.

        Raises:
            ValueError: an argument is unknown or wrong, the folder is incomplete, or the device or
                the engine is not there.
        """
        settings = Settings(
            inputs.one_of("engine", engine, (AUTO, *ENGINES, *own_engine(engine))),
            inputs.one_of("device", device, DEVICES),
            inputs.one_of("precision", precision, PRECISIONS),
            batch=inputs.whole_number("batch_size", batch_size),
        )
        threads = None if threads is None else inputs.thread_count(threads)
        self.batch_size = settings.batch
        self.threads = threads
        name = inputs.folder_name(folder)
        with user_errors(str(name)):
            path = Path(expanded(name))
            self.folder = open_exported(path, in_place(given), calibrated)
            self.manifest = self.folder.manifest
            self.engine = self.opened(replace(settings, device=device_for(device)))
        self.calibration = self.manifest.calibration
        self.output = self.manifest.output
        self.named = self.manifest.named
        self.parallel: Engine | None = None
        self.checkpoint = checkpoint_in(path)
        self.explain: Explain | None = None  # of the checkpoint, once maps were asked for
        self.opening = threading.Lock()
        self.workers = LastingThreads(threads or environment.threads(), "ppcls-predict")

    def opened(self, settings: Settings) -> Engine:
        """The engine named, or else the fastest."""
        if settings.engine == AUTO:
            return choose(self.folder, settings, self.threads)
        threads = self.threads or environment.threads()
        return open_engine(self.folder, replace(settings, threads=threads))

    def __enter__(self) -> "Predictor":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads; what runs is waited for, and nothing can be predicted any more."""
        self.workers.close()
        for engine in (self.engine, self.parallel):
            if engine:
                engine.close()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes by number; () where they are unknown."""
        return self.manifest.labels

    @property
    def labels(self) -> tuple[str, ...]:
        """`class_names`, by its older name."""
        return self.manifest.labels

    def __repr__(self) -> str:
        about = self.manifest
        names = f" ({at_most(list(map(visible, about.labels)), NAMED)})" if about.labels else ""
        count = about.about.get("num_classes") or len(about.labels)
        classes = f"{plural(count, 'class')}{names}" if count else "classes without names"
        features = f", {about.features} features" if about.features else ""
        features += ", class activation maps" if about.maps else ""
        side = about.preprocess.crop
        sides = [side, side] if isinstance(side, int) else side
        text = "x".join(map(str, sides))
        size = "images of any size" if about.dynamic_size else f"images of {text}"
        return (
            f"<ppcls.Predictor {visible(str(self.folder.path))!r}: {visible(about.model)}, "
            f"{classes}{features}, {self.engine.settings}, {size}>"
        )

    def __call__(
        self, images: ImageInput | Iterable[ImageInput], **options: Any
    ) -> list[Prediction]:
        """As `predict`, with its options."""
        return self.predict(images, **options)

    def features(
        self, images: ImageInput | Iterable[ImageInput], batch_size: int | None = None
    ) -> np.ndarray:
        """The pooled features of images, float32 [N, D]: what the classifier takes.

        Two images look alike to the network where the cosine of their features is near 1.

        Args:
            images, batch_size: as of `predict`.

        Raises:
            ValueError: the folder was exported without `--features`, or an image is broken.
        """
        self.require_features()
        found = [
            answer.features
            for answer in self.stream(images, 1, batch_size, features=True)
            if answer.features is not None
        ]
        empty = np.empty((0, self.manifest.features), np.float32)
        return np.stack(found) if found else empty

    def require_features(self) -> None:
        """UserError where the network was exported without features."""
        if not self.manifest.features:
            raise UserError(
                f"{self.folder.path}: gives no features; export it again with ppcls export "
                "--features"
            )

    def require_maps(self) -> None:
        """UserError where there is nothing to say where the network saw a class."""
        if self.manifest.maps:
            return
        if not self.checkpoint or not explainer:
            raise UserError(
                f"{self.folder.path}: gives no maps; export it again with ppcls export --explain, "
                "or give the checkpoint itself"
            )
        with self.opening:
            if self.explain is None:
                self.explain = explainer(self.checkpoint)

    def predict(
        self,
        images: ImageInput | Iterable[ImageInput],
        topk: int | None = None,
        batch_size: int | None = None,
        on_error: str = "stop",
        features: bool = False,
        every: float = inputs.EVERY,
        explain: bool = False,
    ) -> list[Prediction]:
        """Classify images.

        Args:
            images: files, folders (all images in them), patterns (`photos/**/*.jpg`), http(s)
                addresses, video files, lists of files, the bytes of an image's file, Pillow images,
                or arrays uint8 [H, W], [H, W, 1], [H, W, 3] (RGB) or [H, W, 4] (RGBA).
            topk: classes per image; None: what the export says (5). A multi-label network gives
                all classes above their thresholds, at most `topk` where it is given. One with a
                threshold for its second class (PaddleClas's ThreshOutput) gives the class decided
                on, and more only where `topk` asks for them: behind it, the likeliest first.
            batch_size: images per run of the network; None: the predictor's.
            on_error: at an image that is missing or broken, or for which the network's output is
                no number: stop raises; skip gives a prediction without classes that has an `error`.
            features: give each prediction its pooled `features`, too, float32 [D], which needs a
                folder exported with `--features`.
            every: seconds between the frames of a video, whose predictions have a `time`.
            explain: give each prediction a map of each of its classes, `maps`, float32 [k, h, w]:
                of a folder exported with `--explain` its class activation maps
                (arXiv:1512.04150), else, of a checkpoint, Grad-CAM (arXiv:1610.02391).
                `ppcls.draw_maps` draws them over the image.

        Raises:
            ValueError: an image that is missing or broken, named; in a list, as `images[3]`.
        """
        return list(self.stream(images, topk, batch_size, on_error, features, every, explain))

    def stream(
        self,
        images: ImageInput | Iterable[ImageInput],
        topk: int | None = None,
        batch_size: int | None = None,
        on_error: str = "stop",
        features: bool = False,
        every: float = inputs.EVERY,
        explain: bool = False,
    ) -> Generator[Prediction, None, None]:
        """As `predict`, a batch at a time, in their order; those before a broken one come first.

        The next batches are being prepared meanwhile; of many, as many run at once as there are
        threads, for that wastes least. An iterator is asked for no more than is being prepared.
        """
        size = self.batch_size
        if batch_size is not None:
            size = inputs.whole_number("batch_size", batch_size)
        if topk is not None:
            topk = inputs.whole_number("topk", topk)
        else:
            topk = self.named
        skip = inputs.one_of("on_error", on_error, inputs.ON_ERROR) == "skip"
        if features:
            self.require_features()
        if explain:
            self.require_maps()
        every = inputs.seconds("every", every)
        if self.workers.closed:
            raise UserError("the predictor is closed; open another one")
        alone = is_one(images)
        count = 0  # of batches; 0 where it is not known
        if alone or not isinstance(images, Iterator):
            images = find(images, skip, every)
            count = -(-len(images) // size)
            alone = alone and len(images) == 1
        found = images if count else each(images, skip, every)
        batches = batched(with_frames(found), size, alone)  # type: ignore
        asked = Asked(topk or MANY_CLASSES, skip, features, explain)
        return self.answer(batches, count, asked)

    def answer(
        self, batches: Iterator[Batch], count: int, asked: "Asked"
    ) -> Generator[Prediction, None, None]:
        if count == 1:  # at once, in the calling thread
            for batch in batches:
                yield from self.finish(batch, self.prepare(batch, asked), self.engine, asked)
            return
        engine = self.engine_for(count)
        streams = engine.settings.streams
        work = partial(self.prepare_and_run, engine) if streams > 1 else self.prepare
        waiting: deque[tuple[Batch, Future[Run]]] = deque()
        try:
            for batch in batches:
                waiting.append((batch, self.workers.submit(work, batch, asked)))
                if len(waiting) > AHEAD * streams:
                    ready, future = waiting.popleft()
                    yield from self.finish(ready, result_of(future), engine, asked)
            while waiting:
                ready, future = waiting.popleft()
                yield from self.finish(ready, result_of(future), engine, asked)
        finally:
            for _, future in waiting:
                future.cancel()

    def engine_for(self, batches: int) -> Engine:
        """The engine for so many batches: for many, one that runs a batch on each thread."""
        settings = self.engine.settings
        threads = self.threads or environment.threads()
        small = self.folder.size() < LARGE  # else reading images hardly counts
        if settings.device != "cpu" or threads == 1 or batches < MANY * threads or not small:
            return self.engine
        with self.opening:
            if self.parallel is None:
                settings = replace(settings, threads=1, streams=threads)
                self.parallel = open_engine(self.folder, settings)
            return self.parallel

    def finish(
        self, batch: Batch, done: Run, engine: Engine, asked: "Asked"
    ) -> Iterator[Prediction]:
        if not done.outputs:
            done = run(engine, done, self.keeps(asked))
        scores = iter(self.probabilities(done.outputs[0]) if done.outputs else ())
        wanted = done.outputs and (asked.features or self.needs_features)
        features = iter(self.pooled(done.outputs) if wanted else ())
        maps = iter(self.explaining(done) if done.outputs and asked.maps else ())
        looks = iter(done.looks)
        milliseconds = done.seconds * 1000 / len(done.mistakes)
        for place, unread in enumerate(done.mistakes):
            path = path_of(batch.images[place])
            time = time_of(batch.images[place])
            row = None if unread else next(scores)
            pooled = None if unread else next(features, None)
            explain = None if unread else next(maps, None)
            seen = None if unread else next(looks, None)
            if row is not None and np.isfinite(row).all():
                found = self.prediction(path, row, asked.topk, milliseconds, pooled)
                own = explain(found.classes) if explain else None
                kept = pooled if asked.features else None
                yield replace(found, time=time, features=kept, maps=own, looks=seen)
                continue
            mistake = unread or self.not_finite(batch.name(place))
            if not asked.skip:
                raise mistake
            yield Prediction(path, [], [], [], 0.0, str(mistake), time)

    def keeps(self, asked: "Asked") -> bool:
        """Whether the images are needed after their run, too."""
        return asked.maps and not self.manifest.maps

    def explaining(self, done: Run) -> Iterator[Callable[[Sequence[int]], np.ndarray]]:
        """What gives each image's maps of classes, float32 [k, h, w]."""
        if self.manifest.maps:
            for maps in self.class_maps(done.outputs):
                yield partial(maps_of, maps)
            return
        assert self.explain
        assert done.images is not None
        for place in range(len(done.images)):
            yield partial(self.explain, done.images[place : place + 1])

    def class_maps(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        """The last of the network's outputs, float32 [N, classes, h, w]."""
        wanted = self.manifest.maps
        assert wanted
        place = self.manifest.outputs.index("maps")
        shape = outputs[place].shape if len(outputs) > place else ()
        counted = 2 if self.manifest.dynamic_size else 4  # of sides that are known
        if len(shape) != 4 or shape[1:counted] != wanted[: counted - 1]:
            raise UserError(
                f"{self.folder.path}: the network's output {place + 1} is "
                f"{list(shape) or 'missing'}, and {MANIFEST} says maps {list(wanted)} an image; "
                "export it again"
            )
        return outputs[place]

    def pooled(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        """The second of the network's outputs, float32 [N, D]."""
        count = self.manifest.features
        if len(outputs) < 2 or outputs[1].shape[1:] != (count,):
            shape = list(outputs[1].shape) if len(outputs) > 1 else "missing"
            raise UserError(
                f"{self.folder.path}: the network's second output is {shape}, and {MANIFEST} says "
                f"{count} features an image; export it again"
            )
        return outputs[1]

    @property
    def needs_features(self) -> bool:
        """Whether an image's state depends on its features."""
        return self.calibration is not None and self.calibration.needs_features

    def scores(self, row: np.ndarray) -> np.ndarray:
        """The probabilities [classes] to show, calibrated where that can be, of the network's."""
        return row if self.calibration is None else self.calibration.scores(row[None])[0]

    def prediction(
        self,
        path: str | None,
        row: np.ndarray,
        topk: int,
        milliseconds: float,
        features: np.ndarray | None = None,
    ) -> Prediction:
        """What is said of an image.

        Args:
            row: the network's probabilities, float32 [classes].
            features: float32 [D], where `needs_features`.
        """
        if self.manifest.default is not None:
            classes, row = self.manifest.decide(row, topk)
        else:
            classes = best_of(row, topk)
        if self.manifest.task == "multilabel":
            above = row > np.array(self.manifest.threshold)
            classes = classes[above[classes]]
        labels = [self.label(index) for index in classes]
        found = Prediction(path, classes.tolist(), labels, row[classes].tolist(), milliseconds)
        if self.calibration is None:
            return found
        held, state = self.calibration.judge(row, features)
        scores = self.scores(row)[classes].tolist()  # in the order of the network's own
        decided = self.calibration.decide(row)
        return replace(
            found,
            scores=scores,
            set=[self.label(i) for i in held],
            state=state,
            decision=None if decided is None else self.label(decided),
        )

    def not_finite(self, name: str) -> DataError:
        settings = self.engine.settings
        fix = "export it again from whole weights"
        if settings.precision != "fp32":
            fix = "use precision fp32"
        elif self.manifest.precision == "fp16":
            fix = "export it without --precision fp16"
        elif self.manifest.precision != "fp32":
            fix = "use the float network, or quantize it anew"
        return DataError(
            f"{name}: the output of {self.folder.path} is not finite (NaN or infinite, by "
            f"{settings}): its weights are damaged or it overflows; {fix}"
        )

    def prepare_and_run(self, engine: Engine, batch: Batch, asked: "Asked") -> Run:
        return run(engine, self.prepare(batch, asked), self.keeps(asked))

    def prepare(self, batch: Batch, asked: "Asked") -> Run:
        """The network's input, and the seconds it took; unless they are skipped, up to the first
        mistake.
        """
        start = time.perf_counter()
        preprocess = self.manifest.preprocess
        images: list[np.ndarray] = []
        mistakes: list[DataError | None] = []
        for place, image in enumerate(batch.images):
            index = None if batch.first is None else batch.first + place
            try:
                with user_errors(batch.name(place), DataError):
                    images.append(open_image(image, preprocess, index))
                mistakes.append(None)
            except DataError as error:
                mistakes.append(error)
                if not asked.skip:
                    break
        if not images:
            return Run(mistakes, None, 0.0)
        result = preprocess.network_input(images, self.manifest.input)
        seconds = time.perf_counter() - start
        return Run(mistakes, result, seconds, looks=[*map(looks_of, images)] if asked.looks else ())

    def probabilities(self, output: np.ndarray) -> np.ndarray:
        """The network's output, [N, classes], as probabilities; NaN in rows that are not finite."""
        if output.ndim != 2:
            raise UserError(
                f"{self.folder.path}: the network's output is {list(output.shape)}, not a number "
                "for each class: is it a classifier?"
            )
        if self.manifest.labels and len(self.manifest.labels) != output.shape[1]:
            raise UserError(
                f"{self.folder.path}: there are {plural(len(self.manifest.labels), 'label')} and "
                f"the network has {plural(output.shape[1], 'class')}; give the names of these "
                "(labels), or export it again"
            )
        threshold = self.manifest.threshold
        multilabel = self.manifest.task == "multilabel"
        if multilabel and np.ndim(threshold) and len(output[0]) != np.size(threshold):
            raise UserError(
                f"{self.folder.path}: there are {plural(np.size(threshold), 'threshold')} and the "
                f"network has {plural(output.shape[1], 'class')}; export it again"
            )
        if self.calibration and self.calibration.made_from.classes != output.shape[1]:
            raise UserError(
                f"{self.folder.path}: its calibration is of "
                f"{plural(self.calibration.made_from.classes, 'class')} and the network has "
                f"{output.shape[1]}; make it anew with ppcls calibrate"
            )
        default = self.manifest.default
        if default is not None and not 0 <= default < output.shape[1]:
            raise UserError(
                f"{self.folder.path}: default_label_index is {default} and the network has "
                f"{output.shape[1]} classes, 0 to {output.shape[1] - 1}; correct it in {MANIFEST}"
            )
        finite = are_finite(output)
        ending = self.output
        if ending is None and finite.any():
            found = is_probabilities(output[finite], multilabel)
            ending = self.output = "probabilities" if found else "logits"
        scores = output if ending == "probabilities" else link(output, self.manifest.task)
        return np.where(finite[:, None], scores, np.float32(np.nan))

    def label(self, index: int) -> str:
        return self.manifest.labels[index] if self.manifest.labels else str(index)


def own_engine(engine: Any) -> tuple[str, ...]:
    """The name itself, where it is an import path."""
    return (engine,) if isinstance(engine, str) and "." in engine else ()


@dataclass(frozen=True)
class Asked:
    """What is to come of each image: classes, what to do with broken ones, features, maps, how it
    looks.
    """

    topk: int
    skip: bool
    features: bool
    maps: bool = False
    looks: bool = False


def in_place(given: dict[str, Any]) -> dict[str, Any]:
    """What is given in place of the manifest, checked."""
    inputs.refuse_unknown(given, (*OWN, *PREPARED, "class_names", "labels", "threshold"))
    checked = {name: value for name, value in given.items() if value is not None}
    if "class_names" in checked:
        if "labels" in checked:
            raise UserError("labels and class_names are the same; give one of them")
        checked["labels"] = checked.pop("class_names")
    for name, value in checked.items():
        if name in ("resize", "crop"):
            checked[name] = inputs.side_or_pair(name, value)
        elif name in ("mean", "std") and isinstance(value, np.ndarray):
            checked[name] = value.tolist()
        elif name == "labels":
            checked[name] = inputs.class_names(value)
        elif name == "threshold":
            checked[name] = inputs.share(name, value)
    return checked


def batched(images: Iterable[ImageInput], size: int, alone: bool) -> Iterator[Batch]:
    rest = iter(images)
    first = 0
    while batch := list(islice(rest, size)):
        yield Batch(batch, None if alone else first)
        first += len(batch)


def result_of(future: "Future[Run]") -> Run:
    try:
        return future.result()
    except CancelledError:
        raise UserError("the predictor was closed while it predicted") from None


def maps_of(maps: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """Those of some classes, float32 [k, h, w], of all."""
    return maps[np.array(classes, int)]


def best_of(row: np.ndarray, topk: int) -> np.ndarray:
    """The classes of the highest numbers, the highest first; of equal ones the first comes first.

    Without sorting all of them, which for 1,000 classes takes as long as reading an image's file.
    """
    if topk >= len(row):
        return np.argsort(-row, kind="stable")
    least = np.partition(row, -topk)[-topk]
    (found,) = np.nonzero(row >= least)
    return found[np.argsort(-row[found], kind="stable")][:topk]


def run(engine: Engine, prepared: Run, keep: bool = False) -> Run:
    """The batch with its outputs and, with `keep`, still with its images."""
    if prepared.images is None:
        return prepared
    outputs, seconds = engine.run_timed(prepared.images)
    images = prepared.images if keep else None
    seconds += prepared.seconds
    return replace(prepared, images=images, seconds=seconds, outputs=outputs)


def are_finite(output: np.ndarray) -> np.ndarray:
    """Which rows of outputs [N, classes] mean something: -inf is a class that cannot be."""
    wrong = np.isnan(output) | (output == np.inf)
    return ~wrong.any(axis=1) & (output > -np.inf).any(axis=1)


def is_probabilities(output: np.ndarray, multilabel: bool) -> bool:
    """Whether numbers [N, classes] look like probabilities: from 0 to 1, in a row's sum or each."""
    sums = output.max(axis=1) if multilabel else output.sum(axis=1)
    low, high = (0, 1) if multilabel else (1, 1)
    fits = (sums >= low - SUMS_TO_ONE) & (sums <= high + SUMS_TO_ONE)
    return bool((output >= 0).all() and fits.all())


def link(logits: np.ndarray, task: str) -> np.ndarray:
    """Logits [N, classes] as probabilities: softmax or, where each class is its own, logistic."""
    with np.errstate(over="ignore", invalid="ignore"):  # in rows that are not finite
        return softmax(logits) if task == "classify" else 1 / (1 + np.exp(-logits))


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
