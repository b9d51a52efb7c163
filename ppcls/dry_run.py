"""Everything a run will do, once and small: `ppcls train -c RECIPE --dry-run`."""

import tempfile
from dataclasses import replace
from pathlib import Path

from ppcls.export import export
from ppcls.recipe import Recipe
from ppcls.train.checkpoint import LATEST
from ppcls.train.start import train
from ppcls.trained import open_trained
from ppcls.utils.log import say

STEPS = 2


def dry_run(recipe: Recipe) -> bool:
    """Train two steps, evaluate a little, save and export, in a folder that is then removed.

    Returns:
        False when a signal ended it.

    Raises:
        UserError: what would have stopped the run sooner or later.
    """
    with tempfile.TemporaryDirectory(prefix="ppcls-dry-run-") as folder:
        short = replace(recipe, output=str(Path(folder) / "run"))
        if not train(short, limit=STEPS):
            return False
        latest = Path(folder) / "run" / LATEST
        if latest.exists():  # in the process that writes
            export(open_trained(None, (), str(latest)), Path(folder) / "exported")
    say(f"dry run: {STEPS} steps, evaluation, checkpoint and export went well; nothing is kept")
    return True
