"""What a checkpoint of a running trainer says about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle

import ppcls
from ppcls.config.load import to_plain
from ppcls.train.checkpoint import Record

if TYPE_CHECKING:
    from ppcls.train.trainer import Trainer


def record_of(trainer: Trainer) -> Record:
    """The record of the step that the trainer has come to."""
    scale = trainer.precision.scale
    return Record(
        recipe=to_plain(trainer.recipe),
        labels=list(trainer.inputs.names),
        step=trainer.step,
        epoch_steps=trainer.epoch_steps,
        data=trainer.inputs.digests(),
        best=trainer.best,
        scores=trainer.scores,
        versions={"ppcls": ppcls.__version__, "paddle": paddle.__version__},
        evaluations=trainer.evaluations,
        thresholds=trainer.thresholds,
        loss_scale=scale.state() if scale else {},
        processes=trainer.processes.count,
        teachers=trainer.lesson.digests,
    )


def take(trainer: Trainer, record: Record) -> None:
    """Let a trainer go on from a record; a checkpoint's tensors are restored apart."""
    trainer.step, trainer.best, trainer.scores = record.step, record.best, record.scores
    trainer.evaluations, trainer.thresholds = record.evaluations, record.thresholds
    if trainer.precision.scale and record.loss_scale:
        trainer.precision.scale.restore(record.loss_scale)
    trainer.lesson.take(record.teachers)
