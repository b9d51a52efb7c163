"""From one form of an exported network to another: Paddle's to ONNX, ONNX to OpenVINO's."""

import os
import tempfile
from pathlib import Path

from ppcls.errors import UserError
from ppcls.inference.folder import ONNX, Folder
from ppcls.inference.large import add_weights, is_large
from ppcls.inference.quiet import quiet

OPSET = 17
NO_WEIGHTS = "none.pdiparams"  # a file that is not there: paddle2onnx leaves the weights out


def onnx_of(folder: Folder) -> Path:
    """The folder's ONNX file; made from Paddle's program, and kept, where there is none."""
    if folder.onnx:
        return folder.onnx
    if not folder.program:
        raise UserError(f"{folder.path}: has no {ONNX}; export with --format onnx")
    path = folder.cache() / ONNX
    if not path.is_file():
        to_onnx(folder.program, folder.params, path)
    return path


def to_onnx(program: Path, params: Path, target: Path) -> None:
    """Write `target`, and `target` + `.data` for weights that one ONNX file cannot hold.

    Raises:
        UserError: paddle2onnx is not installed, or cannot convert the network.
    """
    try:
        import paddle  # noqa: F401  paddle2onnx needs its libraries
        import polygraphy.config  # noqa: F401  before paddle2onnx lets it install packages
        import paddle2onnx  # isort: skip
    except ImportError as error:
        raise UserError(
            f"{program}: making ONNX of it needs {error.name}; pip install 'ppcls[deploy]'"
        ) from None
    large = is_large(params)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".onnx") as temporary:
        made = Path(temporary) / target.name
        try:
            with quiet() as said:
                paddle2onnx.export(
                    str(program),
                    NO_WEIGHTS if large else str(params),
                    str(made),
                    opset_version=OPSET,
                    enable_onnx_checker=not large,
                    optimize_tool="none" if large else "polygraphy",
                )
        except Exception as error:  # its kinds of errors are not told
            reason = " ".join(f"{error} {said()}".split())[-300:]
            raise UserError(f"{program}: paddle2onnx cannot convert it ({reason})") from None
        if not made.is_file() or not made.stat().st_size:
            reason = " ".join(said().split())[-300:]
            raise UserError(f"{program}: paddle2onnx cannot convert it ({reason})")
        if large:
            add_weights(made, program, params)
        for path in sorted(Path(temporary).iterdir(), key=lambda path: path == made):
            os.replace(path, target.parent / path.name)


def to_openvino(source: Path, target: Path) -> None:
    """Write OpenVINO's `target` (.xml) and the .bin beside it from an ONNX file."""
    try:
        import openvino
    except ImportError:
        raise UserError("--format openvino: pip install 'ppcls[deploy]'") from None
    openvino.save_model(
        openvino.Core().read_model(str(source)), str(target), compress_to_fp16=False
    )
