"""An ONNX network in INT8, by ONNX Runtime's quantizer: what is quantized stands between
QuantizeLinear and DequantizeLinear (QDQ), the rest stays float.

The range of an activation is the mean over calibration photos of each one's least and greatest
value, so that a single odd photo does not coarsen all steps. Scales of weights are per output
channel. Softmax and the output of the last layer stay float.
"""

import copy
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from ppcls import environment
from ppcls.errors import UserError
from ppcls.inference.folder import ONNX_DATA
from ppcls.log import Progress

PRODUCTS = ("Conv", "Gemm", "MatMul")
COMPUTED = ("Add", "Mul", "Sigmoid", "GlobalAveragePool", "AveragePool")
PASSED = ("Relu", "Clip", "MaxPool", "Concat", "Reshape", "Flatten", "Transpose", "Split", "Slice")
OPSET = 13  # from which on scales may differ by channel
ERRORS_ALONE = 3  # severity of what ONNX Runtime logs


@dataclass(frozen=True)
class Scheme:
    """What an engine runs fastest.

    Attributes:
        ops: kinds of operations to quantize.
        float_outputs: those whose outputs are quantized only where a quantized one takes them.
        tensorrt: as TensorRT reads it: activations symmetric, too, float biases, and weights in
            float with a pair of QuantizeLinear and DequantizeLinear of their own.
    """

    ops: tuple[str, ...]
    float_outputs: tuple[str, ...]
    tensorrt: bool = False

    def options(self) -> dict[str, Any]:
        """The quantizer's own names for this."""
        common = {"OpTypesToExcludeOutputQuantization": list(self.float_outputs)}
        if not self.tensorrt:
            return common
        return common | {
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "AddQDQPairToWeight": True,
            "DedicatedQDQPair": True,
        }


class Quantizer:
    """A float network with the ranges of its tensors; writes it in INT8.

    `layers` are the names of the operations that are quantized and may be left in float.
    """

    def __init__(self, source: Path, scheme: Scheme, images: Iterable[np.ndarray], count: int):
        """Fold batch norms, and run the network on `count` images, each as it takes them, [1, …].

        Raises:
            UserError: `source` is above 2 GB, or of an opset without scales per channel.
        """
        import onnx
        import onnxruntime
        from onnxruntime.quantization import quant_pre_process

        onnxruntime.set_default_logger_severity(ERRORS_ALONE)  # of the quantizer's own sessions
        check(source)
        self.scheme = scheme
        with tempfile.TemporaryDirectory() as temporary:
            folded = Path(temporary) / "folded.onnx"
            quant_pre_process(str(source), str(folded), skip_symbolic_shape=True)
            self.model = onnx.load(str(folded))
            self.given = self.model.graph.input[0].name
            feeds = ({self.given: image} for image in Progress(images, "calibrating", count))
            self.ranges = calibrate(folded, scheme, feeds)
        nodes = self.model.graph.node
        # What stands before the first convolution normalises pixels, which 8 bits would blur.
        self.before = [node.name for node in takewhile(lambda n: n.op_type != "Conv", nodes)]
        self.layers = [
            node.name
            for node in nodes
            if node.op_type in scheme.ops
            and node.op_type not in PASSED
            and node.name not in self.before
        ]

    def write(self, target: Path, in_float: Sequence[str]) -> None:
        """Write the network with the layers `in_float` left as they are."""
        self.quantized((), in_float).save_model_to_file(str(target))

    def quantized(self, alone: Sequence[str], in_float: Sequence[str]):
        """The network, wrapped; `alone`: the only layers to quantize, () for all."""
        from onnxruntime.quantization import QDQQuantizer, QuantType

        quantizer = QDQQuantizer(
            copy.deepcopy(self.model),
            per_channel=True,
            reduce_range=self.weight_bits < 8,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8 if self.scheme.tensorrt else QuantType.QUInt8,
            tensors_range=self.ranges,
            nodes_to_quantize=list(alone),
            nodes_to_exclude=[*self.before, *in_float],
            op_types_to_quantize=list(self.scheme.ops),
            extra_options=self.scheme.options(),
        )
        quantizer.quantize_model()
        return quantizer.model

    @property
    def weight_bits(self) -> int:
        """8, or 7 for x86 without VNNI, where a sum of two 8-bit products overflows 16 bits."""
        vnni = "_vnni" in environment.read("proc/cpuinfo")
        return 7 if environment.X86 and not vnni and not self.scheme.tensorrt else 8

    def rank(self, images: np.ndarray) -> list[str]:
        """The layers, first the one that, quantized alone, changes the outputs on `images` most."""
        expected = self.run(self.model, images)
        errors = {}
        for name in Progress(self.layers, "trying layers", len(self.layers)):
            found = self.run(self.quantized([name], ()).model, images)
            errors[name] = float(np.square(found - expected).sum())
        return sorted(errors, key=lambda name: errors[name], reverse=True)

    def run(self, model, images: np.ndarray) -> np.ndarray:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = environment.threads()
        options.log_severity_level = ERRORS_ALONE
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return np.asarray(session.run(None, {self.given: images})[0])


def check(source: Path) -> None:
    import onnx

    model = onnx.load(str(source), load_external_data=False)
    if source.with_name(ONNX_DATA).exists():
        raise UserError(f"{source}: is above 2 GB, which ONNX Runtime's quantizer cannot read")
    found = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if found < OPSET:
        raise UserError(f"{source}: has ONNX opset {found}; convert it with {OPSET} or later")


def calibrate(source: Path, scheme: Scheme, feeds: Iterable[dict[str, np.ndarray]]):
    """The mean over photos of the least and the greatest value of each tensor."""
    from onnxruntime.quantization import CalibrationDataReader, create_calibrator

    class Reader(CalibrationDataReader):
        rest = iter(feeds)

        def get_next(self):
            return next(self.rest, None)

    with tempfile.TemporaryDirectory() as temporary:
        augmented = Path(temporary) / "augmented.onnx"
        mean = {"moving_average": True}  # over what is collected at once, a plain mean
        calibrator = create_calibrator(str(source), scheme.ops, str(augmented), extra_options=mean)
        calibrator.collect_data(Reader())
        return calibrator.compute_data()
