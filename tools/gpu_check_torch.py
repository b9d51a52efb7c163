"""The graph of an ONNX export in PyTorch on a GPU, for machines that have no Paddle.

It says how fast PyTorch runs the network's graph there, and how near to a CPU its logits are; it
says nothing about ppcls's engines or about Paddle. On a machine with onnx and onnxruntime, take the
weights out, which leaves a file of some kilobytes (give it an export made with --logits):

    python tools/gpu_check_torch.py strip exported/r50/inference.onnx r50.graph.onnx

Carry this file, the graph and onnx2torch to the machine with PyTorch, where the weights are filled
by a rule that depends on their names and shapes alone:

    python tools/gpu_check_torch.py run r50.graph.onnx --timm resnet50d --output gpu_check

FP32, TF32 and FP16; eagerly, as a CUDA graph and compiled; batches of 1, 8, 32 and 128. `--device
cpu` tries the program itself: FP32, eagerly.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

LABEL = (
    "The network's graph in PyTorch, by onnx2torch, with weights filled by a rule: "
    "neither ppcls's engines nor Paddle."
)
STRIPPED = "filled by rule"  # the doc string of a tensor whose numbers were taken out
FEWEST = 16  # numbers of a tensor that is filled; smaller ones travel
PRECISIONS = ("fp32", "tf32", "fp16")
WAYS = ("eager", "graph", "compiled")
# Largest difference from a CPU's logits that is no mistake, relative to the largest logit.
ALLOWED = {"fp32": 1e-3, "tf32": 1e-2, "fp16": 2e-2}
COMPARED = 8  # images
WARM_UP = 3  # runs that do not count
CELLS = ("network", "precision", "way", "batch", "milliseconds", "images_per_second", "difference")


def strip(source: Path, target: Path) -> int:
    """Write the network's graph without its weights; how many numbers were taken out."""
    import onnx

    model = plain(source)
    taken = 0
    for tensor in model.graph.initializer:
        count = math.prod(tensor.dims)
        if tensor.data_type == onnx.TensorProto.FLOAT and count >= FEWEST:
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
            tensor.doc_string = STRIPPED
            taken += count
    onnx.save(model, str(target))
    return taken


def plain(source: Path):
    """The network as onnx2torch and CUDA graphs can take it: weights as initializers, and neither
    shapes nor paddings that are computed.
    """
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as temporary:
        tidy = (
            Path(temporary) / "tidy.onnx"
        )  # constants become initializers, which onnx2torch needs
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(tidy)
        onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
        model = onnx.load(str(tidy))
    flatten_simply(model.graph)
    pad_plainly(model)
    used = {node.domain for node in model.graph.node}
    for opset in [one for one in model.opset_import if one.domain not in used]:
        model.opset_import.remove(opset)
    del model.metadata_props[:]
    onnx.checker.check_model(model)
    return model


def flatten_simply(graph) -> None:
    """Let the reshape behind the pooling be a flattening to [N, rest]: a shape that is computed, or
    that onnx2torch keeps on the GPU and looks at, no CUDA graph can hold.
    """
    from onnx import TensorProto, helper, numpy_helper

    makes = {name: node for node in graph.node for name in node.output}
    whole = [one for one in graph.initializer if one.data_type == TensorProto.INT64]
    constants = {one.name: numpy_helper.to_array(one).tolist() for one in whole}
    for place, node in enumerate(graph.node):
        if node.op_type != "Reshape":
            continue
        behind = makes.get(node.input[0])
        pooled = behind is not None and behind.op_type in ("GlobalAveragePool", "ReduceMean")
        shape = constants.get(node.input[1])
        if shape == [0, -1] or (shape is None and pooled):
            flat = helper.make_node("Flatten", node.input[:1], node.output, node.name, axis=1)
            graph.node[place].CopyFrom(flat)
    wanted = {output.name for output in graph.output}
    for node in reversed(list(graph.node)):
        if wanted.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            wanted.update(node.input)
    for tensor in [one for one in graph.initializer if one.name not in wanted]:
        graph.initializer.remove(tensor)


def pad_plainly(model) -> None:
    """Say in numbers what convolutions and poolings pad; onnx2torch knows no SAME_UPPER."""
    from onnx import helper, shape_inference

    shapes = {}
    graph = shape_inference.infer_shapes(model).graph
    for value in (*graph.input, *graph.value_info):
        shapes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        known = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        if known.get("auto_pad", b"NOTSET") not in (b"SAME_UPPER", b"SAME_LOWER"):
            continue
        sides = shapes[node.input[0]][2:]
        if not all(sides):
            raise SystemExit(f"{node.name}: pads by the image's size; export it for one size")
        kernel = known.get("kernel_shape") or weights[node.input[1]][2:]
        ends = []
        for axis, side in enumerate(sides):
            stride = (known.get("strides") or [1, 1])[axis]
            reach = (kernel[axis] - 1) * (known.get("dilations") or [1, 1])[axis] + 1
            total = max(0, (math.ceil(side / stride) - 1) * stride + reach - side)
            less = total // 2
            pair = (less, total - less)
            ends.append(pair if known["auto_pad"] == b"SAME_UPPER" else pair[::-1])
        for one in [one for one in node.attribute if one.name in ("auto_pad", "pads")]:
            node.attribute.remove(one)
        pads = [first for first, _ in ends] + [last for _, last in ends]
        node.attribute.append(helper.make_attribute("pads", pads))


def filled(path: Path):
    """The ONNX network with its weights by the rule: normal numbers drawn by the tensor's name,
    with a deviation of 1 / sqrt(numbers that one output adds up).
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(path))
    for tensor in model.graph.initializer:
        if tensor.doc_string != STRIPPED:
            continue
        shape = tuple(tensor.dims)
        name = tensor.name
        random = np.random.default_rng(zlib.crc32(name.encode()))
        added = math.prod(shape[1:]) if len(shape) > 2 else shape[0]
        scale = 0.1 if len(shape) < 2 else 1 / math.sqrt(added)
        tensor.CopyFrom(
            numpy_helper.from_array(
                (scale * random.standard_normal(shape)).astype(np.float32), name
            )
        )
    return model


def side_of(model) -> int:
    """The height of the images that the network takes; 224 where any will do."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    return dims[2].dim_value or 224


# --------------------------------------------------------------------------
# Measuring

Call = Callable[[], Any]


def ready(network: Any, images: Any, precision: str, way: str) -> Call:
    """What runs the network on these images, which stay where they are, in one of the ways."""
    import torch

    tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    if way == "compiled":
        compiled = torch.compile(network)
        return lambda: compiled(images)
    if way == "eager":
        return lambda: network(images)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            network(images)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = network(images)

    def replay() -> Any:
        graph.replay()
        return output

    return replay


def timed(call: Call, device: str, seconds: float) -> float:
    """Median milliseconds of a run, the device's part included."""
    import torch

    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    for _ in range(WARM_UP):
        call()
    wait()
    spent = []
    end = time.perf_counter() + seconds
    while not spent or (time.perf_counter() < end and len(spent) < 1000):
        start = time.perf_counter()
        call()
        wait()
        spent.append(time.perf_counter() - start)
    return 1000 * statistics.median(spent)


def measure(
    name: str,
    network: Any,
    side: int,
    device: str,
    batches: Sequence[int],
    seconds: float,
    end: float,
) -> Iterable[dict[str, Any]]:
    """A network in all precisions and ways, each batch size; a failure is told in its place."""
    import copy

    import torch

    random = np.random.default_rng(0)
    images = torch.from_numpy(random.standard_normal((COMPARED, 3, side, side)).astype(np.float32))
    with torch.inference_mode():
        expected = network(images)
    scale = float(expected.abs().max())
    for precision in PRECISIONS if device == "cuda" else ("fp32",):
        kind = torch.float16 if precision == "fp16" else torch.float32
        own = copy.deepcopy(network).to(device, kind)
        for way in WAYS if device == "cuda" else ("eager",):
            for batch in batches:
                cell: dict[str, Any] = {"network": name, "precision": precision, "way": way}
                cell["batch"] = batch
                if time.monotonic() > end:
                    yield cell | {"failed": "the time was over"}
                    continue
                given = images.repeat(math.ceil(batch / COMPARED), 1, 1, 1)[:batch]
                try:
                    with torch.inference_mode():
                        call = ready(own, given.to(device, kind), precision, way)
                        output = call().float().cpu()[:COMPARED]
                        difference = float((output - expected[: len(output)]).abs().max()) / scale
                        spent = timed(call, device, seconds)
                except Exception as error:  # of PyTorch's compiler, driver or memory
                    reason = " ".join(str(error).split())[:200]
                    yield cell | {"failed": f"{type(error).__name__}: {reason}"}
                    continue
                yield cell | {
                    "milliseconds": round(spent, 3),
                    "images_per_second": round(1000 * batch / spent, 1),
                    "difference": difference,
                    "agrees": difference <= ALLOWED[precision],
                }


def to_markdown(about: dict[str, Any], cells: Sequence[dict[str, Any]]) -> str:
    """The label, the machine, and a row for each measurement."""
    lines = [f"**{LABEL}**", "", f"{about['device']}; {about['versions']}.", ""]
    lines += [f"| {' | '.join(CELLS)} |", f"|{'---|' * len(CELLS)}"]
    for cell in cells:
        row = [str(cell.get(key, "")) for key in CELLS[:-1]]
        told = f"{cell['difference']:.1e}" if "difference" in cell else f"FAILED: {cell['failed']}"
        told += "" if cell.get("agrees", True) else " FAILED"
        lines.append(f"| {' | '.join([*row, told])} |".replace("\n", " "))
    return "\n".join(lines) + "\n"


def write(folder: Path, about: dict[str, Any], cells: Sequence[dict[str, Any]]) -> None:
    """What was measured so far, each file whole or as it was."""
    text = json.dumps({**about, "cells": cells}, indent=1) + "\n"
    for name, content in (("json", text), ("md", to_markdown(about, cells))):
        path = folder / f"gpu_check_torch.{name}"
        temporary = path.with_name(f"{path.name}.tmp")
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(path)


def run(options: argparse.Namespace) -> int:
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print("impossible here (no CUDA device); --device cpu tries the program", file=sys.stderr)
        return 2
    from onnx2torch import convert

    end = time.monotonic() + 60 * options.minutes
    model = filled(options.graph)
    side = side_of(model)
    networks = {options.graph.name.partition(".")[0]: convert(model).eval()}
    versions = [f"torch {torch.__version__}"]
    if options.timm:
        import timm

        networks[f"timm {options.timm}"] = timm.create_model(options.timm).eval()
        versions.append(f"timm {timm.__version__}")
    device = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    about = {"label": LABEL, "device": device, "versions": ", ".join(versions), "side": side}
    cells = []
    options.output.mkdir(parents=True, exist_ok=True)
    for name, network in networks.items():
        found = measure(
            name, network, side, options.device, options.batch_sizes, options.seconds, end
        )
        for cell in found:
            cells.append(cell)
            print(", ".join(f"{key} {value}" for key, value in cell.items()), flush=True)
            write(options.output, about, cells)
    return 0 if all(cell.get("agrees") for cell in cells) else 1


def numbers(text: str) -> list[int]:
    found = [int(number) for number in text.split(",")]
    if min(found) < 1:
        raise ValueError(text)
    return found


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("strip", help="take the weights out of an ONNX file")
    one.add_argument("source", type=Path)
    one.add_argument("target", type=Path)
    one = commands.add_parser("run", help="fill the weights by rule, compare and time")
    one.add_argument("graph", type=Path)
    one.add_argument("--timm", metavar="NAME", help="timm's network to measure beside it")
    one.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    one.add_argument("--batch-sizes", type=numbers, default=[1, 8, 32, 128], metavar="N,…")
    one.add_argument("--seconds", type=float, default=0.5, help="of each measurement; default: 0.5")
    one.add_argument("--minutes", type=float, default=10, help="of all together; default: 10")
    one.add_argument("--output", type=Path, default=Path("gpu_check"), metavar="FOLDER")
    options = parser.parse_args(words)
    file = options.source if options.command == "strip" else options.graph
    if not file.is_file():
        parser.error(f"{file}: does not exist")
    if options.command == "run":
        return run(options)
    taken = strip(options.source, options.target)
    size = options.target.stat().st_size
    print(f"{options.target}: {size:,} bytes, without {taken:,} numbers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
