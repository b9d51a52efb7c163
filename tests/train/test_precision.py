"""Narrow floats: what a CPU does with them, and how the loss scale moves."""

import paddle
import pytest

from ppcls.train import step
from ppcls.train.step import FIRST_SCALE, PATIENCE, LossScale, Precision


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_a_cpu_says_so_and_computes_in_float32(kind, monkeypatch):
    monkeypatch.setattr(paddle, "get_device", lambda: "cpu")
    found = Precision(kind, "O1")
    assert (found.kind, found.scale) == ("fp32", None)
    assert f"train.precision: {kind} needs a GPU" in found.note()
    assert found.around(paddle.tanh) is paddle.tanh
    assert Precision("fp32", "O1").note() == ""


def test_a_gpu_is_asked_what_it_can(monkeypatch):
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    monkeypatch.setattr(paddle.amp, "is_float16_supported", lambda: True)
    monkeypatch.setattr(paddle.amp, "is_bfloat16_supported", lambda: False)
    half = Precision("fp16", "O2")
    assert half.note() == "precision fp16, level O2"
    assert half.scale
    assert Precision("bf16", "O1").kind == "fp32"
    asked = []
    real = step.paddle.amp.auto_cast

    def cast(level, dtype):
        asked.append((level, dtype))
        return real(enable=False)

    monkeypatch.setattr(paddle.amp, "auto_cast", cast)
    logits = half.around(lambda images: images.astype("float16"))(paddle.ones([2, 3]))
    assert asked == [("O2", "float16")]
    assert logits.dtype == paddle.float32


def test_the_loss_scale_halves_at_once_and_doubles_in_time():
    scale = LossScale()
    scale.settle(False)
    assert scale.value == FIRST_SCALE / 2
    for _ in range(PATIENCE):
        assert scale.value == FIRST_SCALE / 2
        scale.settle(True)
    assert scale.state() == {"value": FIRST_SCALE, "good": 0}
    for _ in range(40):
        scale.settle(False)
    assert scale.value == 1.0
