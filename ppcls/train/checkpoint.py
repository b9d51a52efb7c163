"""A run's state in one file: weights by name, optimizer slots, and a JSON record as metadata.

The file is a safetensors file. Weights stand under their own names, optimizer slots under
`optimizer/<parameter>/<slot>`, so that a checkpoint serves as weights, too. Everything else that a
run needs (order of photos, augmentation, dropout, learning rate) is computed from the step.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.optimizer import Optimizer

from ppcls.errors import UserError
from ppcls.weights import files
from ppcls.weights.load import OPTIMIZER

LATEST, BEST = "latest.safetensors", "best.safetensors"  # a run's checkpoints
RECORD = "ppcls"  # the metadata key of the record


@dataclass(frozen=True)
class Record:
    """What a checkpoint says about itself."""

    recipe: dict[str, Any]  # plain, resolved
    labels: list[str]  # class names; empty: unknown
    step: int  # steps done
    epoch_steps: int
    data: dict[str, str]  # "train" and "eval": how many photos, and their digest
    best: dict[str, float] = field(default_factory=dict)  # scores of the best evaluation so far
    scores: dict[str, float] = field(default_factory=dict)  # scores of these weights, if evaluated
    versions: dict[str, str] = field(default_factory=dict)


def save(path: Path, net: nn.Layer, optimizer: Optimizer | None, record: Record) -> None:
    """Write a checkpoint, whole or not at all; without optimizer: weights only."""
    tensors = {name: value.numpy() for name, value in net.state_dict().items()}
    if optimizer:
        tensors |= slots(net, optimizer)
    for name, value in tensors.items():
        if not np.isfinite(value).all():
            raise UserError(
                f"after step {record.step}, {name} holds NaN or infinity, so {path} was not "
                "written (an earlier one stays): lower train.schedule.lr or lengthen its warmup"
            )
    files.write_safetensors(path, tensors, {RECORD: json.dumps(asdict(record))})


def read_record(path: Path, checkpoint: files.Checkpoint) -> Record:
    """The record of a checkpoint that training wrote."""
    if RECORD not in checkpoint.metadata:
        raise UserError(
            f"{path}: weights alone, no state of a run to resume; "
            f"to start a new run from them: -o model.weights={path}"
        )
    try:
        return Record(**json.loads(checkpoint.metadata[RECORD]))
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: written by another version of ppcls ({error})") from None


def restore(path: Path, checkpoint: files.Checkpoint, net: nn.Layer, optimizer: Optimizer) -> None:
    """Put a checkpoint's optimizer slots into the optimizer of a network of the same recipe."""
    saved = {k: v for k, v in checkpoint.tensors.items() if k.startswith(OPTIMIZER)}
    if not saved:
        raise UserError(f"{path}: holds no optimizer state; resume from latest.safetensors")
    parameters = {name: parameter.name for name, parameter in net.named_parameters()}
    state = {}
    for key, value in saved.items():
        name, slot = key.removeprefix(OPTIMIZER).rsplit("/", 1)
        tensor = paddle.to_tensor(value)
        tensor.name = state_key = f"{parameters[name]}_{slot}"
        state[state_key] = tensor
    optimizer.set_state_dict(state)


def slots(net: nn.Layer, optimizer: Optimizer) -> dict[str, np.ndarray]:
    """The optimizer's tensors by parameter path; Paddle names them by a process-wide counter."""
    state = {k: v for k, v in optimizer.state_dict().items() if isinstance(v, paddle.Tensor)}
    found = {}
    for name, parameter in net.named_parameters():
        prefix = parameter.name + "_"
        for key, value in state.items():
            if key.startswith(prefix):
                found[f"{OPTIMIZER}{name}/{key.removeprefix(prefix)}"] = value.numpy()
    assert len(found) == len(state), "an optimizer slot belongs to no parameter"
    return found
