"""A run's scalars where people compare runs: VisualDL, TensorBoard, MLflow, Weights & Biases.

Each is a callback that a run can spare: where it cannot begin, the run does not either; where it
fails later, it is left out. Values carry the names that they have in `run.jsonl`, as in
`train/loss` and `eval/top1`. A run that goes on goes on in the tracker, too, where each step
stands once: what the tracker has not is first given to it from `run.jsonl`.
"""

import importlib.util
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice, starmap
from pathlib import Path
from typing import Any, ClassVar

from ppcls.train.callbacks import Callback
from ppcls.train.run_folder import TRACKERS
from ppcls.utils.errors import UserError
from ppcls.utils.files import read_file, write_text
from ppcls.utils.log import is_number, read_records, say, step_of
from ppcls.utils.text import from_json, to_json

OFF = "or without trackers: -o log=[]"
LONGEST = 500  # characters of a parameter in any MLflow
AT_ONCE = {"params": 100, "metrics": 1000}  # that MLflow takes in one call
# How long a server may keep training waiting before it counts as gone, unless the user says more.
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
SECONDS = 60.0  # that Weights & Biases may take to begin, and to send the rest at the end


class Tracker(Callback):
    """What trackers have in common.

    Attributes:
        kind: its name in recipes, and that of its extra.
        module: what has to be installed.
        where: where the run is kept, for messages.
    """

    essential = False
    kind: ClassVar[str]
    module: ClassVar[str]
    where = ""

    @property
    def name(self) -> str:
        return f"log: {self.kind}"

    def require(self) -> None:
        """UserError where it is not installed, or not whole."""
        try:
            self.library()
        except Exception as error:  # an ImportError, or what else a broken one raises
            raise UserError(
                f"log: {self.kind} cannot be imported ({short(error)}): "
                f"pip install 'ppcls[{self.kind}]', {OFF}"
            ) from error

    def library(self, part: str = "") -> Any:
        """Its module, or a part of it; a type checker need not have it."""
        return importlib.import_module(f"{self.module}{part}")

    def installed(self) -> bool:
        """Whether it can be used; where it is there and cannot, that is said."""
        if importlib.util.find_spec(self.module) is None:
            return False
        try:
            self.require()
        except UserError as error:
            say(f"note: {error}")
            return False
        return True

    def begin(self, about: Mapping[str, Any]) -> None:
        self.folder = Path(about["folder"])
        try:
            self.open(about)
        except UserError:
            raise
        except Exception as error:
            place = f" at {self.where}" if self.where else ""
            raise UserError(
                f"log: {self.kind} cannot begin{place} ({short(error)}): mend that, {OFF}"
            ) from error

    def open(self, about: Mapping[str, Any]) -> None:
        """Begin; any exception says why not."""
        raise NotImplementedError

    def record(self, event: str, step: int, values: Mapping[str, float]) -> None:
        self.draw(step, time.time(), dict(tagged(event, values)))

    def draw(self, step: int, when: float, scalars: dict[str, float]) -> None:
        """Take in values of a step, by name; `when` in seconds since 1970."""
        raise NotImplementedError

    def draw_earlier(self) -> None:
        """Take in what the run has recorded before."""
        for step, when, scalars in earlier(self.folder):
            self.draw(step, when, scalars)


def tagged(event: object, values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a record under the names of their curves."""
    for name, value in values.items():
        if is_number(value):
            yield f"{event}/{name}", value


def earlier(folder: Path) -> Iterator[tuple[int, float, dict[str, float]]]:
    """Step, time and values of the records that count, from before this run goes on."""
    for record in read_records(folder / "run.jsonl"):
        values = {k: v for k, v in record.items() if k not in ("event", "step", "time")}
        when = record.get("time")
        scalars = dict(tagged(record.get("event"), values))
        yield int(step_of(record)), when if is_number(when) else time.time(), scalars


def short(error: Exception) -> str:
    """The first line of what a library says."""
    text = str(error).strip().partition("\n")[0]
    return masked(text) or type(error).__name__


def masked(text: str) -> str:
    """Without passwords of addresses."""
    return re.sub(r"://[^/@\s]*@", "://…@", text)


# --------------------------------------------------------------------------
# Files in the run's folder: written anew by a run that goes on, from run.jsonl


class VisualDL(Tracker):
    """Scalars for `visualdl --logdir RUN/vdl`."""

    kind = "visualdl"
    module = "visualdl"

    def open(self, about: Mapping[str, Any]) -> None:
        folder = self.folder / "vdl"
        self.where = str(folder)
        shutil.rmtree(folder, ignore_errors=True)
        self.writer = self.library().LogWriter(str(folder))
        self.draw_earlier()

    def draw(self, step: int, when: float, scalars: dict[str, float]) -> None:
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, step, walltime=round(1000 * when))

    def end(self, done: bool) -> None:
        self.writer.close()


class TensorBoard(Tracker):
    """Scalars for `tensorboard --logdir RUN/tensorboard`."""

    kind = "tensorboard"
    module = "tensorboardX"

    def open(self, about: Mapping[str, Any]) -> None:
        # Not its SummaryWriter, whose thread would wait for ever where the disk is full.
        writer = self.library(".event_file_writer").EventsWriter
        folder = self.folder / "tensorboard"
        self.where = str(folder)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.writer = writer(str(folder / "events"))
        self.draw_earlier()
        self.writer.flush()

    def draw(self, step: int, when: float, scalars: dict[str, float]) -> None:
        event = self.library(".proto.event_pb2").Event
        scalar = self.library(".summary").scalar
        for name, value in scalars.items():
            summary = scalar(name, value)
            self.writer.write_event(event(wall_time=when, step=step, summary=summary))

    def record(self, event: str, step: int, values: Mapping[str, float]) -> None:
        super().record(event, step, values)
        self.writer.flush()

    def end(self, done: bool) -> None:
        self.writer.close()


# --------------------------------------------------------------------------
# Runs that are kept elsewhere, and found again by what the run's folder says of them


def kept(folder: Path, kind: str) -> dict[str, str]:
    """What an earlier part of the run noted of its tracker; {} without, or where it is damaged."""
    try:
        noted = from_json(read_file(folder / TRACKERS))[kind]
        return {str(key): str(value) for key, value in noted.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def keep(folder: Path, kind: str, values: Mapping[str, str]) -> None:
    """Note it, beside what other trackers have noted."""
    try:
        noted = dict(from_json(read_file(folder / TRACKERS)))
    except (OSError, ValueError, TypeError):
        noted = {}
    noted[kind] = dict(values)
    write_text(folder / TRACKERS, to_json(noted))


class RemoteTracker(Tracker):
    """One that keeps what it was given once.

    Attributes:
        last: by name, the step of the last value that it has.
    """

    last: dict[str, int]

    def new(self, step: int, scalars: Mapping[str, float]) -> dict[str, float]:
        """Those of a step's values that it has not; they count as given."""
        found = {name: value for name, value in scalars.items() if step > self.last.get(name, -1)}
        self.last |= dict.fromkeys(found, step)
        return found


class MLflow(RemoteTracker):
    """A run of an MLflow experiment: the recipe as parameters, scalars as metrics, the picture."""

    kind = "mlflow"
    module = "mlflow"

    def __init__(self, uri: str | None, experiment: str, name: str | None):
        self.uri = uri
        self.experiment = experiment
        self.title = name

    def open(self, about: Mapping[str, Any]) -> None:
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # says each try
        for variable, value in PATIENCE.items():
            os.environ.setdefault(variable, value)
        uri = self.uri or os.environ.get("MLFLOW_TRACKING_URI") or ""
        self.where = masked(uri)
        if uri and ("://" not in uri or uri.startswith("file:")):
            # Who names a folder means one: MLflow 3 asks for this word as well.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self.client = self.library().MlflowClient(tracking_uri=self.uri)
        self.where = masked(str(self.client.tracking_uri))
        self.run, self.known = self.found() or (self.created(), set())
        keep(self.folder, self.kind, {"uri": self.where, "run": self.run})
        parameters = dict(flat(about["recipe"])) | {"parameters": str(about["parameters"])}
        self.log(params={k: v for k, v in parameters.items() if k not in self.known})
        self.draw_earlier()
        say(f"mlflow: run {self.run} of experiment {self.experiment} at {self.where}")

    def found(self) -> tuple[str, set[str]] | None:
        """The run that goes on, if it is still there, and the names of its parameters."""
        noted = kept(self.folder, self.kind)
        if noted.get("uri") != self.where or "run" not in noted:
            return None
        try:
            run = self.client.get_run(noted["run"])
        except self.library().MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        if run.info.lifecycle_stage != "active":
            return None
        self.client.update_run(noted["run"], status="RUNNING")
        self.last = {
            name: max(point.step for point in self.client.get_metric_history(noted["run"], name))
            for name in run.data.metrics
        }
        return noted["run"], set(run.data.params)

    def created(self) -> str:
        self.last = {}
        experiment = self.client.get_experiment_by_name(self.experiment)
        number = experiment and experiment.experiment_id
        if experiment and experiment.lifecycle_stage != "active":
            raise UserError(
                f"log: mlflow: experiment {self.experiment} is deleted at {self.where}: restore "
                "it there, or name another, -o log={kind: mlflow, experiment: NAME}"
            )
        number = number or self.client.create_experiment(self.experiment)
        title = self.title or self.folder.resolve().name
        tags = {"ppcls.folder": str(self.folder.resolve())}
        return self.client.create_run(number, run_name=title, tags=tags).info.run_id

    def log(self, metrics: Iterable[Any] = (), params: Mapping[str, str] | None = None) -> None:
        """Send it, in as many calls as it takes."""
        parameter = self.library(".entities").Param
        lists = {"metrics": metrics, "params": starmap(parameter, (params or {}).items())}
        for what, items in lists.items():
            rest = iter(items)
            while part := list(islice(rest, AT_ONCE[what])):
                self.client.log_batch(self.run, **{what: part})

    def points(self, step: int, when: float, scalars: dict[str, float]) -> Iterator[Any]:
        """What is not there yet."""
        metric = self.library(".entities").Metric
        for name, value in self.new(step, scalars).items():
            yield metric(name, value, round(1000 * when), step)

    def draw(self, step: int, when: float, scalars: dict[str, float]) -> None:
        self.log(self.points(step, when, scalars))

    def draw_earlier(self) -> None:
        self.log(point for record in earlier(self.folder) for point in self.points(*record))

    def picture(self, name: str, path: Path) -> None:
        try:
            self.client.log_artifact(self.run, str(path))
        except Exception as error:  # some stores want packages of their own
            say(f"note: mlflow: {path.name} is not there ({short(error)}); the rest is")

    def end(self, done: bool) -> None:
        self.client.set_terminated(self.run, "FINISHED" if done else "KILLED")


def flat(value: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of a plain recipe by dotted names; lists, and mappings of patterns, as JSON."""
    if isinstance(value, dict) and value and all(re.fullmatch(r"\w+", key) for key in value):
        for key, inner in value.items():
            yield from flat(inner, f"{at}.{key}".strip("."))
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        yield at, text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


class Wandb(RemoteTracker):
    """A run of a project of Weights & Biases, sent by a process of its own; or a folder offline."""

    kind = "wandb"
    module = "wandb"

    def __init__(self, project: str, entity: str | None, name: str | None, mode: str | None):
        self.project = project
        self.entity = entity
        self.title = name
        self.mode = mode

    def open(self, about: Mapping[str, Any]) -> None:
        wandb = self.library()
        self.where = f"project {self.project}"
        mode = self.mode or wandb.setup().settings.mode
        # It would ask for a key on a terminal, and wait.
        if mode == "online" and not wandb.login(prompt=False, verify=False):
            raise UserError(
                "log: wandb is not logged in: wandb login, or the variable WANDB_API_KEY; without "
                "a network -o log={kind: wandb, mode: offline}"
            )
        noted = kept(self.folder, self.kind)
        own = noted.get("project") == self.project and noted.get("entity") == (self.entity or "")
        key = noted.get("run") if own else None
        self.last = last_steps(self.folder) if key else {}
        key = key or secrets.token_hex(4)
        self.run = wandb.init(
            project=self.project,
            entity=self.entity,
            name=self.title or self.folder.resolve().name,
            id=key,
            resume="allow" if mode == "online" else None,
            mode=self.mode,
            dir=str(self.folder),
            config={**about["recipe"], "parameters": about["parameters"]},
            allow_val_change=True,
            reinit="create_new",  # what the user's own program does with wandb stays its own
            settings=wandb.Settings(
                console="off", silent=True, init_timeout=SECONDS, finish_timeout=SECONDS
            ),
        )
        values = {"project": self.project, "entity": self.entity or "", "run": key}
        keep(self.folder, self.kind, values)
        self.run.define_metric("step", hidden=True)
        self.run.define_metric("*", step_metric="step")
        self.draw_earlier()
        unsent = f"later: wandb sync {Path(self.run.dir).parent}"
        place = unsent if mode == "offline" else self.run.url
        say(f"wandb: run {key} of project {self.project}; {place}")

    def draw(self, step: int, when: float, scalars: dict[str, float]) -> None:
        if found := self.new(step, scalars):
            self.run.log({**found, "step": step})

    def picture(self, name: str, path: Path) -> None:
        self.run.log({name: self.library().Image(str(path))})

    def end(self, done: bool) -> None:
        self.run.finish(exit_code=0 if done else 1)


def last_steps(folder: Path) -> dict[str, int]:
    """Of each curve the last step in `run.jsonl`, also of records that no longer count."""
    last: dict[str, int] = {}
    with (folder / "run.jsonl").open(encoding="utf-8", errors="replace") as file:
        for line in file:
            with suppress(ValueError, AttributeError):  # a line cut short by a crash
                record = from_json(line)
                step = int(step_of(record))
                for name, _ in tagged(record.get("event"), record):
                    last[name] = max(step, last.get(name, -1))
    return last


KINDS: dict[str, type[Tracker]] = {
    tracker.kind: tracker for tracker in (VisualDL, TensorBoard, MLflow, Wandb)
}
