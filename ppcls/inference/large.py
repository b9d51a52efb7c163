"""ONNX of networks above 2 GB, which paddle2onnx and one protocol buffer cannot hold.

paddle2onnx converts the program without its weights; they go into a file beside it.
"""

import re
from pathlib import Path

from ppcls.errors import UserError
from ppcls.inference import params as stored
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
            initializer.name, initializer.data_type = name, onnx.TensorProto.FLOAT
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
