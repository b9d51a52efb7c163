"""A trained network as a folder that predicts without ppcls's training half, checked before use."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

import ppcls
from ppcls.data import builtin, images
from ppcls.errors import UserError
from ppcls.inference import manifest
from ppcls.inference.engines import PaddleInference
from ppcls.inputs import open_eval
from ppcls.log import say
from ppcls.trained import Trained

CHECKED = 8  # photos that the exported and the trained network are compared on
TOLERANCE = 1e-4  # largest difference of a probability …
ROUNDINGS = 10  # … or so many times what rounding the input does to the trained network itself, …
LIMIT = 0.05  # … but never more than this


def export(trained: Trained, output: Path, photos: Sequence[str] = ()) -> Path:
    """Write `inference.json`, `inference.pdiparams` and `inference.yml` into the folder `output`.

    The network takes float32 [N, C, size, size], normalised, and gives probabilities. The files are
    written beside `output`, compared with the trained network on real photos and only then moved.

    Args:
        photos: photos to compare on; default: of the evaluation data, else scikit-learn's two.

    Raises:
        UserError: `output` is something else or not writable, or the networks differ.
    """
    output = output.resolve()
    check_target(output)
    temporary = output.with_name(output.name + ".incomplete")
    preprocess = trained.recipe.preprocess
    network = nn.Sequential(trained.net, nn.Softmax())
    network.eval()
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        size, channels = preprocess.crop, preprocess.channels
        spec = paddle.static.InputSpec([None, channels, size, size], "float32", "image")
        paddle.jit.save(network, str(temporary / "inference"), input_spec=[spec])
        found = [str(p) for p in photos] or check_photos(trained)
        check = compare(network, temporary, trained, found)
        (temporary / manifest.FILE).write_text(describe(trained, check).to_yaml(), encoding="utf-8")
        move(temporary, output)
        say(f"{output}: exported {trained.source}; {words(check)}")
    except OSError as error:
        raise UserError(
            f"{output}: cannot be written ({error.strerror}); --output FOLDER"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return output


def move(temporary: Path, output: Path) -> None:
    """Replace an export's files; the manifest, without which it is none, goes first, comes last."""
    output.mkdir(exist_ok=True)
    (output / manifest.FILE).unlink(missing_ok=True)
    for file in sorted(temporary.iterdir(), key=lambda file: file.name == manifest.FILE):
        file.replace(output / file.name)


def check_target(output: Path) -> None:
    """Only an earlier export is ever replaced."""
    free = not output.exists() or (output.is_dir() and not any(output.iterdir()))
    if not free and not (output / manifest.FILE).exists():
        raise UserError(f"{output} exists and is no exported folder; --output FOLDER")


def check_photos(trained: Trained) -> list[str]:
    """Evaluation photos spread over the data set or, where it is not here, scikit-learn's two."""
    try:
        samples = open_eval(trained.recipe, trained.classes)
    except UserError as error:
        say(f"note: compared on scikit-learn's sample photos, for lack of evaluation data: {error}")
        return [str(path) for path in builtin.sample_photos()]
    chosen = np.linspace(0, len(samples) - 1, min(CHECKED, len(samples))).astype(int)
    return [samples.paths[index] for index in chosen]


def compare(network: nn.Layer, folder: Path, trained: Trained, photos: list[str]) -> dict[str, Any]:
    """Both networks on the same photos; an error when they differ by more than the tolerance."""
    preprocess = trained.recipe.preprocess
    pixels = [preprocess(images.read(photo, preprocess.channels)) for photo in photos]
    inputs = preprocess.normalize(np.stack(pixels))
    rounding = np.float32(1) + np.finfo(np.float32).eps
    with paddle.no_grad():
        expected = network(paddle.to_tensor(inputs)).numpy()
        rounded = network(paddle.to_tensor(inputs * rounding)).numpy()
    # A hardly trained network can be so unsteady that no other order of additions agrees with it.
    unsteady = ROUNDINGS * float(np.abs(rounded - expected).max())
    allowed = min(max(TOLERANCE, unsteady), LIMIT)
    engine = PaddleInference(folder, trained.recipe.device)
    difference = float(np.abs(engine.run(inputs) - expected).max())
    if not difference <= allowed:  # also when it is not a number
        raise UserError(
            f"the exported network differs from {trained.source} by {difference:.2g} in a "
            f"probability on {len(photos)} photos (at most {allowed:.2g} is allowed); "
            "nothing was exported"
        )
    return {"photos": len(photos), "largest_difference": difference, "allowed": allowed}


def words(check: dict[str, Any]) -> str:
    return (
        f"on {check['photos']} photos its probabilities differ from the trained network's by "
        f"{check['largest_difference']:.1e} at most (allowed: {check['allowed']:.1e})"
    )


def describe(trained: Trained, check: dict[str, Any]) -> manifest.Manifest:
    recipe = trained.recipe
    about = {
        "source": str(trained.source),
        "num_classes": trained.classes,
        "scores": trained.scores,
        "check": check,
        "versions": {"ppcls": ppcls.__version__, "paddle": paddle.__version__},
    }
    return manifest.Manifest(recipe.model.name, recipe.preprocess, trained.names, about=about)
