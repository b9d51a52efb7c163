"""What is measured: networks x engines x precisions x threads x batch sizes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from ppcls import environment
from ppcls.data.preprocess import Preprocess
from ppcls.docs.facts import published
from ppcls.errors import UserError
from ppcls.inference.arguments import thread_count
from ppcls.inference.engines.base import PRECISIONS, Settings
from ppcls.inference.engines.table import ENGINES
from ppcls.inference.folder import open_folder
from ppcls.models import zoo
from ppcls.models.efficientnet_specs import EfficientNetSpec

ALL = "all"  # the published networks
INT8 = "int8"  # precision of a folder whose weights are so; engines run it as it is


@dataclass(frozen=True)
class Conditions:
    """What measurements must have in common to stand in one file.

    Attributes:
        device: cpu or gpu.
        rounds: turns of each engine.
        seconds: of timed runs in a turn; always at least one run.
    """

    device: str = "cpu"
    rounds: int = 5
    seconds: float = 0.5


@dataclass(frozen=True)
class Model:
    """A network of the zoo, filled with numbers and exported, or an exported folder."""

    name: str  # of the zoo, or the folder as it was given
    network: str
    preprocess: Preprocess
    folder: Path | None = None
    fingerprint: str = ""  # of the folder's files
    int8: bool = False


@dataclass(frozen=True)
class Cell:
    """One measurement."""

    model: str
    fingerprint: str
    engine: str
    precision: str
    threads: int
    batch: int

    def settings(self, device: str, batch: int) -> Settings:
        precision = "fp32" if self.precision == INT8 else self.precision
        return Settings(self.engine, device, precision, self.threads, batch)


@dataclass(frozen=True)
class Plan:
    """All measurements of a run."""

    models: Sequence[Model]
    engines: Sequence[str]
    precisions: Sequence[str]
    threads: Sequence[int]
    batches: Sequence[int]
    conditions: Conditions

    def cells(self, model: Model) -> list[Cell]:
        precisions = (INT8,) if model.int8 else self.precisions
        every = product(self.engines, precisions, self.threads, self.batches)
        return [
            Cell(model.name, model.fingerprint, engine, precision, threads, batch)
            for engine, precision, threads, batch in every
        ]


def make_plan(
    names: Sequence[str],
    folders: Sequence[Path],
    conditions: Conditions,
    batches: Sequence[int],
    engines: Sequence[str] = (),
    precisions: Sequence[str] = ("fp32",),
    threads: Sequence[int] = (),
) -> Plan:
    """The plan of a command line.

    Args:
        names: of networks; `all`: those that are published.
        engines: default: all of the device.
        threads: default: all cores. On a GPU they are not varied.

    Raises:
        UserError: an unknown name, an incomplete folder, or nothing to measure.
    """
    names = [n for name in names for n in (published() if name == ALL else [name])]
    models = [*map(by_name, dict.fromkeys(names)), *map(of_folder, dict.fromkeys(folders))]
    if not models:
        raise UserError("nothing to measure: --models NAME,… (or all), or --model-dir FOLDER …")
    device = conditions.device
    engines = engines or [name for name, entry in ENGINES.items() if device in entry.devices]
    check_known("--engines", engines, ENGINES)
    check_known("--precisions", precisions, PRECISIONS)
    threads = sorted(set(map(thread_count, threads))) or [environment.threads()]
    return Plan(
        models,
        list(dict.fromkeys(engines)),
        list(dict.fromkeys(precisions)),
        threads[:1] if device == "gpu" else threads,
        sorted(set(batches)),
        conditions,
    )


def check_known(option: str, given: Iterable[str], known: Iterable[str]) -> None:
    for name in given:
        if name not in known:
            raise UserError(f"{option} {name}: unknown; known are {', '.join(known)}")


def by_name(name: str) -> Model:
    """A network of the zoo, with photos prepared as for its published figures."""
    spec, side = zoo.spec_of(name), zoo.resolution(name)
    efficient = isinstance(spec, EfficientNetSpec)
    preprocess = Preprocess(
        resize=side if name.startswith("Fix_") else side + 32,
        crop=side,
        interpolation="bicubic" if efficient else "bilinear",
    )
    return Model(name, name, preprocess)


def of_folder(path: Path) -> Model:
    folder = open_folder(path)
    about = folder.manifest
    int8 = about.precision == INT8
    return Model(str(path), about.model, about.preprocess, path, folder.fingerprint(), int8)
