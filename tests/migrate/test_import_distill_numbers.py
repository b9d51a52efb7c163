"""A converted loss gives PaddleClas's number, which is computed here in numpy."""

import numpy as np
import paddle
import pytest
from paddleclas_rows import TRUTH, between

from ppcls.losses.distill import Outputs
from ppcls.losses.distill_layers import build

rng = np.random.default_rng(3)
Z, T = rng.normal(0, 2, (2, 6, 1000))  # logits of student and teacher
LABELS = rng.integers(0, 1000, 6)
OWN, GUIDE = rng.normal(0, 1, (2, 2, 512, 7, 7))  # their last stages


def logs(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def kl(z, t, temperature=1):
    """T ** 2 * KL(q || p), the mean over the images."""
    p, q = logs(z / temperature), logs(t / temperature)
    return temperature**2 * (np.exp(q) * (q - p)).sum(-1).mean()


def cross(z, t, temperature=1):
    """T ** 2 * -sum q log p of each image."""
    return -(temperature**2) * (np.exp(logs(t / temperature)) * logs(z / temperature)).sum(-1)


def wsl(z, t, temperature):
    own, guide = (-logs(x)[range(6), LABELS] for x in (z, t))
    return ((1 - np.exp(-own / (guide + 1e-7))) * cross(z, t, temperature)).mean()


def dkd(z, t, temperature, alpha, beta):
    hit = np.eye(1000)[LABELS]
    p, q = (np.exp(logs(x / temperature)) for x in (z, t))
    both = [np.stack([(hit * x).sum(1), ((1 - hit) * x).sum(1)], 1) for x in (p, q)]
    target = temperature**2 * (both[1] * np.log(both[1] / both[0])).sum(1).mean()
    others = (x - 1e3 * temperature * hit for x in (z, t))
    return alpha * target + beta * kl(*others, temperature)


def dist(z, t, beta, gamma):
    p, q = (np.exp(logs(x)) for x in (z, t))
    inter = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    intra = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    return beta * inter + gamma * intra


def skd(z, t, temperature, multiplier):
    """Less the teacher's entropy, which no gradient comes from."""
    z, t = (multiplier * (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True) for x in (z, t))
    return kl(z, t, temperature)


def dml(z, t, act=lambda z: np.exp(logs(z))):
    """The mean over all numbers of what is multiplied by the classes."""
    p, q = act(z), act(t)
    ratio = np.log((p + 1e-12) / (q + 1e-12))
    return ((p * ratio - q * ratio) / 2).sum(1).mean()


ROWS = [
    ("DMLLoss", {}, dml(Z, T)),
    ("DMLLoss", {"weight": 0.5, "sum_across_class_dim": True}, 500 * dml(Z, T)),
    ("DMLLoss", {"act": "sigmoid"}, dml(Z, T, lambda z: 1 / (1 + np.exp(-z)))),
    ("CELoss", {"weight": 0.5}, 0.5 * cross(Z, T).mean()),
    ("KLDivLoss", {"weight": 0.9, "temperature": 3}, 0.9 * kl(Z, T, 3)),
    ("WSLLoss", {"weight": 2.5, "temperature": 2}, 2.5 * wsl(Z, T, 2)),
    ("DKDLoss", {"temperature": 2, "alpha": 3, "beta": 8}, dkd(Z, T, 2, 3, 8)),
    ("DISTLoss", {"weight": 2.0, "beta": 0.5}, 2 * dist(Z, T, 0.5, 1)),
    ("SKDLoss", {"alpha": 0.9, "multiplier": 2.0, "temperature": 4}, 0.9 * skd(Z, T, 4, 2)),
]


@pytest.mark.parametrize(("name", "keys", "expected"), ROWS)
def test_logits(old, name, keys, expected):
    (node,) = old.distilled([TRUTH, *between(**{f"Distillation{name}": keys})]).task.losses
    own, guide = (Outputs(paddle.to_tensor(x)) for x in (Z, T))
    value = node.weight * float(node(own, guide, paddle.to_tensor(LABELS)))
    assert value == pytest.approx(expected, rel=1e-5)


def seen(features):
    return Outputs(paddle.zeros([2, 2]), [paddle.to_tensor(features.astype("float32"))])


def test_distances_of_features(old):
    losses = [TRUTH, *between(DistillationDistanceLoss={"weight": 3.0, "key": "blocks[7]"})]
    (node,) = old.distilled(losses, {"name": "ResNet18", "pretrained": "x"}).task.losses
    value = build(node, (512,), (512,))(seen(OWN), seen(GUIDE), paddle.to_tensor([0, 0]))
    assert node.weight * float(value) == pytest.approx(3 * ((OWN - GUIDE) ** 2).mean(), rel=1e-4)


def test_generated_features(old):
    keys = {"s_keys": ["blocks[7]"], "t_keys": ["blocks[15]"], "lambda_mgd": 0, "alpha_mgd": 1.5}
    losses = between(DistillationPairLoss={"base_loss_name": "MGDLoss", "weight": 2.0, **keys})
    (node,) = old.distilled([TRUTH, *losses]).task.losses
    layer = build(node, (512,), (512,))
    value = node.weight * float(layer(seen(OWN), seen(GUIDE), paddle.to_tensor([0, 0])))
    generated = layer.generate(seen(OWN).features[0]).numpy()
    assert value == pytest.approx(2 * 1.5 * ((generated - GUIDE) ** 2).mean(), rel=1e-4)
