"""How many processes train where the user has not said: a few steps are measured, by turns.

Only where the result stays the same: where they can share each step's images, as `--divided` says
(`ppcls/train/divide.py`).
"""

import math
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from statistics import median

from ppcls.data.own_dataset import OwnDataset
from ppcls.data.preprocess import both
from ppcls.data.transforms import sides
from ppcls.recipe import Recipe
from ppcls.train.divide import why_not
from ppcls.train.launch import reserved_ports, start
from ppcls.train.open_data import located, open_part
from ppcls.utils import environment
from ppcls.utils.errors import UserError
from ppcls.utils.files import write_text
from ppcls.utils.log import say, silence
from ppcls.utils.text import plural
from ppcls.weights import files, store

WARM_UP = 2  # steps that do not count: the first ones allocate
COUNTED = 5
MOST = 8  # processes: each has the whole network, and its workers
GAIN = 1.1  # times as fast, or the run stays in one process
# Images of 224 px that a run shows at least: fewer are trained in some minutes, of which
# measuring would take too large a part.
LEAST_SHOWN = 30_000
LONGEST = 180.0  # seconds of measuring, starting included, after which it is given up
TURN = "turn"  # a file with the numbers of processes, that of those first whose turn it is


def choose(recipe: Recipe, command: Sequence[str]) -> int:
    """The number of processes for a new run: 1, or as many as share a step and are faster.

    Args:
        command: that trains by the recipe in one process.
    """
    count = candidate(recipe)
    if count == 1 or shown(recipe) < LEAST_SHOWN:
        return 1
    say(f"measuring whether {count} processes are faster than 1 (--processes 1: no)")
    found = measure(command, (1, count))
    if found.keys() != {1, count}:
        return 1  # the run itself will say what is wrong
    best = count if found[1] >= GAIN * found[count] else 1
    same = "--processes 1" if best == 1 else f"--processes {count} --divided"
    say(
        f"measured: a step takes {found[1]:.3g} seconds in 1 process and {found[count]:.3g} in "
        f"{count} that share it, with the same result: {plural(best, 'process')} "
        f"({same} says so without measuring)"
    )
    return best


def candidate(recipe: Recipe) -> int:
    """The number of processes to try beside 1; 1 where there is none."""
    for_gpu = recipe.device == "gpu" or (recipe.device == "auto" and has_gpu_wheel())
    if environment.threads_given or for_gpu:
        return 1
    most = min(MOST, environment.core_count(), recipe.train.batch_size)
    return 1 if why_not(recipe) else most


def has_gpu_wheel() -> bool:
    with suppress(metadata.PackageNotFoundError):
        return bool(metadata.version("paddlepaddle-gpu"))
    return False


def shown(recipe: Recipe) -> float:
    """How many images a run shows, counted by their pixels in images of 224 px; 0: unknown."""
    data = recipe.data
    if isinstance(data.train, OwnDataset):
        return 0
    try:
        with silence():
            count = len(open_part("data.train", data.train, located(data), recipe.task.multilabel))
            if recipe.model.weights:  # downloaded once, not by each of those that are measured
                store.find(recipe.model.name, recipe.model.weights)
    except UserError:
        return 0
    kept = 1 - 1 / data.folds if data.folds else 1 - data.holdout * data.holds_out
    pixels = math.prod(both(sides(recipe.train_size)[-1]))
    return count * kept * data.labeled * recipe.train.epochs * pixels / 224**2


def of_run(recipe: Recipe) -> tuple[int, bool] | None:
    """The number of processes of the run in a recipe's folder, and whether they share a step."""
    from ppcls.train.checkpoint import LATEST

    record = files.record_of(recipe.folder / LATEST)
    count = record.get("processes")
    if type(count) is not int or count < 1:
        return None  # the run itself will say what is wrong
    return count, record.get("divided") is True


# --------------------------------------------------------------------------
# Measuring: two runs that take turns, one of them in several processes


def measure(command: Sequence[str], counts: Sequence[int]) -> dict[int, float]:
    """Seconds of a step with so many processes; nothing of those that did not come to an end."""
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="ppcls-measured-") as name, ExitStack() as stack:
        folder = Path(name)
        write_text(folder / TURN, " ".join(map(str, counts)))
        try:
            for count in counts:
                ports = stack.enter_context(reserved_ports(count))
                logs = [folder / f"{count}-{rank}.log" for rank in range(count)]
                own = [*command, "--measure", name, *(["--divided"] if count > 1 else [])]
                start(own, ports, logs, processes)
            end = time.monotonic() + LONGEST
            while None in (codes := [p.poll() for p in processes]) and time.monotonic() < end:
                if any(codes):
                    break
                time.sleep(0.05)
        finally:
            for process in processes:
                process.kill()
                process.wait()
                if process.stdin:
                    process.stdin.close()
        times = {count: read_times(folder, count) for count in counts}
    return {n: median(own[WARM_UP:]) for n, own in times.items() if len(own) > WARM_UP}


def read_times(folder: Path, count: int) -> list[float]:
    with suppress(OSError):
        return [float(line) for line in (folder / f"{count}.txt").read_text().split()]
    return []


def take_steps(recipe: Recipe, folder: Path, divided: bool) -> None:
    """In a process that is measured: a few steps of a recipe's run, by turns with the others.

    Raises:
        UserError: as training would, and where the processes would compute something else.
    """
    from ppcls.data.loader import step_batches
    from ppcls.train.distributed import join
    from ppcls.train.setup import build_trainer, first_alone
    from ppcls.utils.device import select

    device = select(recipe.device)
    if device != "cpu":
        raise UserError("processes and threads are for CPUs")
    processes = join(device)
    processes.divided = divided
    recipe, inputs = first_alone(processes, recipe, None)
    recipe = replace(recipe, output=str(folder / "run"))
    trainer = build_trainer(recipe, inputs, processes=processes)
    order = trainer.sampler.order(0)[: WARM_UP + COUNTED]
    own = [processes.part(images) for images in order]
    trainer.set_training()
    steps = step_batches(trainer.loader, "train", own, trainer.batch_size, 0)
    try:
        for batches, images in zip(steps, order, strict=False):
            if processes.first:
                wait_for_turn(folder, processes.count)
            processes.gather(None)
            began = time.monotonic()
            trainer.advance(batches, len(images))
            spent = time.monotonic() - began
            if processes.first:
                with (folder / f"{processes.count}.txt").open("a") as file:
                    file.write(f"{spent}\n")
                pass_turn(folder)
    finally:
        trainer.loader.close()


def wait_for_turn(folder: Path, count: int) -> None:
    while turns(folder)[0] != str(count):
        time.sleep(0.005)


def pass_turn(folder: Path) -> None:
    own, *others = turns(folder)
    write_text(folder / TURN, " ".join([*others, own]))


def turns(folder: Path) -> list[str]:
    return (folder / TURN).read_text().split()
