"""An exported model in other formats: ONNX, also above 2 GB and in FP16, and OpenVINO's.

ONNX of networks above 2 GB, which paddle2onnx and one protocol buffer cannot hold.

paddle2onnx converts the program without its weights; they go into a file beside it.
"""

import errno
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Container
from contextlib import suppress
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import TypeVar

from ppcls.inference import exported_model as stored
from ppcls.inference.exported_model import ONNX, ExportedModel
from ppcls.utils import environment
from ppcls.utils.errors import UserError
from ppcls.utils.files import remove
from ppcls.utils.log import say
from ppcls.utils.text import plural

LIMIT = 1 << 31  # bytes of an ONNX file
PARAMETER = re.compile(r'"#":"p","A":\[\d+,\d+,\d+,"([^"]+)"\]')  # in Paddle 3's programs
CHUNK = 1 << 26


def is_large(params: Path, limit: int = LIMIT) -> bool:
    return params.stat().st_size > 0.95 * limit


def add_weights(onnx_file: Path, program: Path, params: Path) -> None:
    """Give the weights of `params` to a network that was converted without; writes `.data`."""
    import onnx

    model = onnx.load(str(onnx_file))
    made = {name for node in model.graph.node for name in node.output}
    inputs = {given.name for given in model.graph.input}
    wanted = {name for node in model.graph.node for name in node.input if name} - made - inputs
    if program.suffix != ".json":
        raise UserError(f"{program}: above 2 GB only Paddle 3's inference.json can become ONNX")
    names = sorted(PARAMETER.findall(program.read_text(encoding="utf-8")))
    found = list(stored.tensors(params))
    if len(names) != len(found) or wanted - set(names):
        raise UserError(
            f"{params}: has {plural(len(found), 'tensor')}, {program.name} names {len(names)}"
        )
    data = onnx_file.with_name(onnx_file.name + ".data")
    with params.open("rb") as source, data.open("wb") as target:
        for name, tensor in zip(names, found, strict=True):
            if name not in wanted:
                continue
            initializer = model.graph.initializer.add()
            initializer.name = name
            initializer.data_type = onnx.TensorProto.FLOAT
            initializer.dims.extend(tensor.dims)
            initializer.data_location = onnx.TensorProto.EXTERNAL
            place = {"location": data.name, "offset": target.tell(), "length": tensor.bytes}
            for key, value in place.items():
                initializer.external_data.add(key=key, value=str(value))
            source.seek(tensor.start)
            left = tensor.bytes
            while left:
                left -= target.write(source.read(min(left, CHUNK)))
    onnx.save(model, str(onnx_file))


# --------------------------------------------------------------------------
# From one form of an exported network to another: Paddle's to ONNX, ONNX to OpenVINO's

Loaded = TypeVar("Loaded")


def onnx_of(folder: ExportedModel) -> Path:
    """The folder's ONNX file; made from Paddle's program, and kept, where there is none."""
    if folder.onnx:
        return folder.onnx
    if not folder.program:
        raise UserError(f"{folder.path}: has no {ONNX}; export with --format onnx")
    path = folder.cache() / ONNX
    if not path.is_file():
        to_onnx(folder.program, folder.params, path)
    return path


def with_onnx(folder: ExportedModel, load: Callable[[Path], Loaded]) -> Loaded:
    """What `load` makes of the folder's ONNX file; one that was kept and is refused is made anew.

    Raises:
        UserError: as `load` raises.
    """
    if folder.onnx or not folder.program:
        return load(onnx_of(folder))
    kept = folder.cache() / ONNX
    if kept.is_file():
        with suppress(UserError):
            return load(kept)
        say(f"note: {kept} is damaged and made again")
    if kept.exists():
        remove(kept)
    return load(onnx_of(folder))


def to_onnx(program: Path, params: Path, target: Path, limit: int = LIMIT) -> None:
    """Write `target`, and `target` + `.data` for weights that one ONNX file of `limit` bytes cannot
    hold.

    Raises:
        UserError: paddle2onnx is not installed, or cannot convert the network.
        OSError: the disk is full.
    """
    for module in ("paddle", "polygraphy", "paddle2onnx"):
        if find_spec(module) is None:
            raise UserError(
                f"{program}: making ONNX of it needs {module}; pip install 'ppcls[deploy]'"
            )
    large = is_large(params, limit)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".onnx") as temporary:
        made = Path(temporary) / target.name
        command = [*environment.program("ppcls.inference.to_onnx"), str(program)]
        command += ["" if large else str(params), str(made)]
        done = subprocess.run(command, env=importing(), capture_output=True, check=False)
        if done.returncode or not made.is_file() or not made.stat().st_size:
            full = os.strerror(errno.ENOSPC)
            if full.encode() in done.stderr:
                raise OSError(errno.ENOSPC, full, str(target))
            reason = errors_of(done.stdout + done.stderr)[-300:] or f"exit code {done.returncode}"
            raise UserError(f"{program}: paddle2onnx cannot convert it ({reason})")
        if large:
            add_weights(made, program, params)
        for path in sorted(Path(temporary).iterdir(), key=lambda path: path == made):
            os.replace(path, target.parent / path.name)


def errors_of(output: bytes) -> str:
    """What a process said of errors, else all that it said, in one line without colours."""
    lines = re.sub(r"\x1b\[[\d;]*m", "", output.decode("utf-8", "replace")).splitlines()
    return " ".join(" ".join([line for line in lines if "ERROR" in line] or lines).split())


def importing() -> dict[str, str]:
    """The environment of a process that finds the modules that this one finds."""
    path = os.pathsep.join(filter(None, sys.path))
    return os.environ | {"PYTHONPATH": path, environment.SAFE_PATH: "1"}


def require_openvino() -> None:
    """UserError where files in its format cannot be made."""
    if find_spec("openvino") is None:
        raise UserError("--format openvino: pip install 'ppcls[deploy]'")


def to_openvino(source: Path, target: Path) -> None:
    """Write OpenVINO's `target` (.xml) and the .bin beside it from an ONNX file."""
    require_openvino()
    import openvino

    openvino.save_model(openvino_model(source), str(target), compress_to_fp16=False)


def openvino_model(path: Path):
    """OpenVINO's model of an .xml or .onnx file.

    By the reader for such files alone: left to choose, OpenVINO tries TensorFlow's on a damaged
    one, whose libraries break Paddle's in the same process.
    """
    from openvino.frontend import FrontEndManager

    reader = FrontEndManager().load_by_framework("ir" if path.suffix == ".xml" else "onnx")
    return reader.convert(reader.load(str(path)))


# --------------------------------------------------------------------------
# ONNX in FP16

PRODUCTS = ("Conv", "Gemm", "MatMul")


def to_fp16(path: Path, share: float = 0.0) -> tuple[int, int]:
    """Turn an ONNX file's weights and arithmetic into FP16, by ONNX Runtime's own converter.

    Inputs and outputs stay as they are. So does what 16 bits would blur: what stands before the
    first convolution and normalises pixels, and the classifier with what makes probabilities of
    it, for logits of 8 to 16 are 0.008 apart in FP16.

    Args:
        share: of the convolutions, the first ones, that stay in float32, too.

    Returns:
        How many convolutions those are, and how many there are.

    Raises:
        UserError: onnxruntime or onnx is not installed.
    """
    for module in ("onnx", "onnxruntime"):
        if find_spec(module) is None:
            raise UserError(f"--precision fp16: needs {module}; pip install 'ppcls[deploy]'")
    import onnx
    import onnxruntime
    from onnxruntime.transformers import float16

    data = path.with_name(f"{path.name}.data")
    if not data.is_file():  # else weights are where they belong
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(str(path), load_external_data=False).graph
    convolutions = [node.name for node in graph.node if node.op_type == "Conv"]
    kept = math.ceil(share * len(convolutions))
    first = convolutions[kept] if kept < len(convolutions) else ""  # in FP16
    before = [node.name for node in takewhile(lambda node: node.name != first, graph.node)]
    # By its path: shapes are then found in networks above 2 GB, too.
    model = float16.convert_float_to_float16(
        str(path), keep_io_types=True, node_block_list=[*before, *classifying(graph)]
    )
    without_detours(model.graph, {node.name for node in graph.node})
    in_order(model.graph)  # the converter puts its casts behind all others
    used = {node.domain for node in model.graph.node}
    for opset in [one for one in model.opset_import if one.domain not in used]:
        model.opset_import.remove(opset)
    onnx.save(model, str(path))
    data.unlink(missing_ok=True)
    return kept, len(convolutions)


def classifying(graph) -> list[str]:
    """The names of the operations from the classifier's product to the graph's first output."""
    makes = {name: node for node in graph.node for name in node.output}
    found = []
    node = makes.get(graph.output[0].name)
    while node:
        found.append(node.name)
        node = None if node.op_type in PRODUCTS else makes.get(node.input[0])
    return found


def without_detours(graph, own: Container[str]) -> None:
    """Take out casts to FP16 and back that the converter puts between what stays in float32.

    own: the names of the operations that were there before.
    """
    makes = {name: node for node in graph.node for name in node.output}
    added = [node for node in graph.node if node.op_type == "Cast" and node.name not in own]
    casts = {node.output[0]: node for node in added}
    back = {name: casts[node.input[0]] for name, node in casts.items() if node.input[0] in casts}
    renamed = {name: forth.input[0] for name, forth in back.items()}
    for output in graph.output:
        source = renamed.pop(output.name, None)
        if source in makes:  # which then makes the output itself
            renamed[source] = output.name
            places = list(makes[source].output)
            makes[source].output[places.index(source)] = output.name
            graph.node.remove(casts[output.name])
    for node in graph.node:
        for place, given in enumerate(node.input):
            name = given
            while name in renamed:
                name = renamed[name]
            node.input[place] = name
    read = {name for node in graph.node for name in node.input}
    read |= {output.name for output in graph.output}
    for node in added[::-1]:
        if node.output[0] not in read and node in graph.node:
            graph.node.remove(node)
            read = {name for one in graph.node for name in one.input}
            read |= {output.name for output in graph.output}


def in_order(graph) -> None:
    """Let every operation stand behind those that make its inputs."""
    known = {"", *(one.name for one in (*graph.input, *graph.initializer))}
    waiting = list(graph.node)
    found = []
    while waiting:
        later = []
        for node in waiting:
            if known.issuperset(node.input):
                found.append(node)
                known.update(node.output)
            else:
                later.append(node)
        assert len(later) < len(waiting), "a graph without a beginning"
        waiting = later
    del graph.node[:]
    graph.node.extend(found)
