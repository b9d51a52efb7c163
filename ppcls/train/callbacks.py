"""What a run tells while it goes on, to whoever wants to hear it: trackers, and users' own code."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from ppcls.utils.errors import UserError
from ppcls.utils.log import say


class Callback:
    """Hears what a run does, between its steps and in its first process alone.

    Each method does nothing unless a subclass says what. An exception of `begin` ends the run
    before its first step. A later one, be it a `UserError` or another, ends the run before its
    next step, with its state saved, in all processes; where `essential` is False it is said once,
    and the callback is left out from then on.
    """

    essential: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """What messages call it."""
        return type(self).__name__

    def begin(self, about: Mapping[str, Any]) -> None:
        """The run is about to train.

        Args:
            about: `recipe`, as nested dicts, lists and scalars; `class_names`, a list, empty where
                classes have only numbers; `parameters`, the network's count of them; `folder`, a
                `Path`, where `run.jsonl` holds the records so far; `step`, the number of steps
                done before, 0 but for a run that is resumed; `epoch_steps` and `total_steps`.
        """

    def record(self, event: str, step: int, values: Mapping[str, float]) -> None:
        """A record was written to `run.jsonl`: `event` is "train" or "eval"."""

    def saved(self, path: Path, step: int) -> None:
        """A checkpoint is written, whole: `latest.safetensors` or `best.safetensors`."""

    def picture(self, name: str, path: Path) -> None:
        """A picture of the run is drawn: `curves`, when it ends."""

    def end(self, done: bool) -> None:
        """The run ends: done, or cut short by a signal or an error. Comes after every `begin`."""


class Callbacks:
    """All callbacks of a run, in order.

    Attributes:
        mistake: what the run has to end with, "" as long as all is well.
        cause: the exception that it came of.
    """

    def __init__(self, callbacks: Iterable[Callback] = ()):
        self.callbacks = list(callbacks)
        self.failed: list[Callback] = []
        self.mistake = ""
        self.cause: Exception | None = None

    def begin(self, about: Mapping[str, Any]) -> None:
        """UserError where one of them cannot; those before it hear the end."""
        begun: list[Callback] = []
        for callback in self.callbacks:
            try:
                callback.begin(about)
            except BaseException as error:
                self.callbacks = begun
                self.end(False)
                if not isinstance(error, Exception):  # a signal
                    raise
                raise UserError(words(callback, "begin", error)) from error
            begun.append(callback)

    def record(self, event: str, step: int, values: Mapping[str, float]) -> None:
        self.tell("record", event, step, values)

    def saved(self, path: Path, step: int) -> None:
        self.tell("saved", path, step)

    def picture(self, name: str, path: Path) -> None:
        self.tell("picture", name, path)

    def end(self, done: bool) -> None:
        """The essential ones that failed hear it, too: they may have something to close."""
        self.failed = []
        self.tell("end", done)

    def tell(self, method: str, *given: Any) -> None:
        """Call a method of each; what fails is noted in `mistake`, or said if it can be spared."""
        for callback in list(self.callbacks):
            if callback in self.failed:
                continue
            try:
                getattr(callback, method)(*given)
            except Exception as error:
                said = words(callback, method, error)
                if not callback.essential:
                    self.callbacks.remove(callback)
                    say(f"note: {said}; it is left out from here on, run.jsonl is not")
                    continue
                self.failed.append(callback)
                if self.mistake:
                    say(f"note: {said}")
                else:
                    self.mistake = said
                    self.cause = error


def words(callback: Callback, method: str, error: Exception) -> str:
    """What went wrong in a callback, in a line."""
    if isinstance(error, UserError):
        return str(error)
    return f"{callback.name}.{method}: {type(error).__name__}: {error}"
