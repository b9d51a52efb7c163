"""`ppcls.Predictor`: prediction as in `ppcls.inference`, which is told here what it does without:
how the exported folder of a checkpoint is made, and its network's maps.
"""

from pathlib import Path
from typing import Any

from PIL import Image

from ppcls.inference import exported_model, predictor
from ppcls.inference.inputs import ImageInput, name_of, pixels_of
from ppcls.inference.predictor import NOTHING, Explain, Prediction, Predictor
from ppcls.utils.errors import UserError
from ppcls.utils.guard import guarded

__all__ = ["Predictor", "draw_maps"]


def export_now(checkpoint: Path, folder: Path) -> None:
    """Write the exported folder of a checkpoint of ours; Paddle is imported now."""
    from ppcls.export import export_checkpoint

    export_checkpoint(checkpoint, folder)


def explain_now(checkpoint: Path) -> Explain:
    """What gives the maps of a checkpoint of ours; Paddle is imported now."""
    from ppcls.explain import explainer_of

    return explainer_of(checkpoint)


exported_model.exporter = export_now
predictor.explainer = explain_now


@guarded
def draw_maps(
    image: ImageInput, prediction: Prediction, predictor: Predictor, most: int = 1
) -> Image.Image:
    """A picture of where the network saw the classes of an image.

    Args:
        image: what was predicted, as `Predictor.predict` takes it: one, no folder.
        prediction: what `predictor.predict(image, explain=True)` gave.
        most: classes that are drawn, from the likeliest on.

    Raises:
        UserError: the prediction has no maps, or the image cannot be read.
    """
    from ppcls.report.heatmaps import explained

    if prediction.maps is None:
        raise UserError("the prediction has no maps: predict with explain=True")
    name = prediction.path or ""
    pixels = pixels_of(image, 3, name_of(image, None))
    return explained(pixels, classes_with_maps(prediction, most), predictor.manifest.preprocess,
                     name, NOTHING)  # fmt: skip


def classes_with_maps(prediction: Prediction, most: int) -> list[tuple[str, float, Any]]:
    """Label, score and map of the likeliest classes."""
    maps = prediction.maps if prediction.maps is not None else ()
    return list(zip(prediction.labels, prediction.scores, maps, strict=True))[:most]
