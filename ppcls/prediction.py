"""`ppcls.Predictor`: prediction as in `ppcls.inference`, which is told here what it does without:
how the exported folder of a checkpoint is made.
"""

from pathlib import Path

from ppcls.inference import exported_model
from ppcls.inference.predictor import Predictor

__all__ = ["Predictor"]


def export_now(checkpoint: Path, folder: Path) -> None:
    """Write the exported folder of a checkpoint of ours; Paddle is imported now."""
    from ppcls.export import export_checkpoint

    export_checkpoint(checkpoint, folder)


exported_model.exporter = export_now
