"""Losses, optimizers and schedules: what a recipe says of each, and what is remarked."""

import math

import pytest
from paddleclas_rows import subset

from ppcls.config.load import to_plain
from ppcls.config.node import Span
from ppcls.migrate.training import LOSSES, OPTIMIZERS, SCHEDULES

LOSS_ROWS = [
    ("CELoss", {"weight": 1.0, "epsilon": 0.1}, {"kind": "cross_entropy", "smoothing": 0.1}),
    ("SoftTargetCrossEntropy", {"weight": 1.0}, {"kind": "cross_entropy", "smoothing": 0.0}),
    ("DistillationGTCELoss", {"weight": 1.0}, {"kind": "cross_entropy"}),
    # a share above (0.2 - 0.1 / 1000) / 0.9 is above 0.2 once it is smoothed by 0.1
    ("BCELoss", {"epsilon": 0.1}, {"kind": "bce", "smoothing": 0.0, "threshold": 0.222111}),
    ("BCELoss", {}, {"kind": "bce", "threshold": 0.2}),
    ("CELoss", {"epsilon": 1.0}, {"kind": "cross_entropy", "smoothing": 0.0}),
    ("MultiLabelLoss", {"epsilon": 1.5}, {"kind": "bce", "smoothing": 0.0}),
    ("MultiLabelLoss", {"weight": 1.0}, {"kind": "bce", "threshold": None}),
    ("MultiLabelLoss", {"weight_ratio": True}, {"kind": "bce", "frequencies": "counted"}),
    ("MultiLabelLoss", {"size_sum": True}, {"kind": "bce", "reduction": "sum"}),
    ("DistillationMultiLabelLoss", {"epsilon": 0.1}, {"kind": "bce", "smoothing": 0.1}),
    (
        "MultiLabelAsymmetricLoss",
        {"gamma_neg": 2, "clip": 0.0},
        {"kind": "asymmetric", "gamma_positive": 1.0, "gamma_negative": 2.0, "clip": 0.0},
    ),
    (
        "MultiLabelAsymmetricLoss",
        {"reduction": "mean", "disable_focal_loss_grad": False, "clip": None},
        {"kind": "asymmetric", "reduction": "mean", "focal_gradient": True, "clip": 0.0},
    ),
    ("MultiLabelAsymmetricLoss", {}, {"reduction": "sum", "focal_gradient": False, "clip": 0.05}),
]


@pytest.mark.parametrize(("name", "given", "expected"), LOSS_ROWS)
def test_losses(old, name, given, expected):
    recipe = old.set("Loss.Train", [{name: given}]).convert()
    assert subset(expected, to_plain(recipe.task.loss))


@pytest.mark.parametrize("mixing", ["MixupOperator", "CutmixOperator", "OpSampler"])
def test_mixed_labels_without_smoothing_are_others_there(old, mixing):
    """There their softmax is learnt, in which one class of 1000 has e / (e + 999)."""
    keys = {"MixupOperator": {"alpha": 0.2, "prob": 1}} if mixing == "OpSampler" else {"alpha": 0.2}
    old.set("DataLoader.Train.dataset.batch_transform_ops", [{mixing: keys}]).convert()
    assert old.remarks["Loss.Train.0.CELoss"].endswith("0.0027 for the one class of 1000")
    old.set("Loss.Train", [{"CELoss": {"weight": 1.0, "epsilon": 0.1}}]).convert()
    assert "Loss.Train.0.CELoss" not in old.remarks


def test_every_loss_has_a_row():
    assert {row[0] for row in LOSS_ROWS} == set(LOSSES)


def test_other_losses_are_listed(old):
    losses = [{"GoogLeNetLoss": None}, {"CELoss": {"weight": 0.5}}, {"BCELoss": {"weight": 1.0}}]
    recipe = old.set("Loss.Train", losses).set("Loss.Eval", [{"BCELoss": None}]).convert()
    assert recipe.task.loss.kind == "cross_entropy"
    assert recipe.train.without == ("GoogLeNetLoss", "BCELoss beside another loss")
    assert "counts 1" in old.remarks["Loss.Train.1.CELoss.weight"]
    assert "top-1" in old.remarks["Loss.Eval.0.BCELoss"]


OPTIMIZER_ROWS = [
    ("SGD", {}, {"kind": "sgd"}),
    ("Momentum", {"momentum": 0.8, "use_nesterov": True}, {"momentum": 0.8, "nesterov": True}),
    ("Adam", {"beta2": 0.99}, {"kind": "adam", "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8}),
    ("AdamW", {"epsilon": 1e-6}, {"kind": "adamw", "epsilon": 1e-6}),
    ("AdamWDL", {}, {"kind": "adamw"}),
    ("Lamb", {}, {"kind": "lamb", "epsilon": 1e-6}),
    (
        "RMSProp",
        {"momentum": 0.9, "rho": 0.9, "epsilon": "1e-3"},
        {"kind": "rmsprop", "momentum": 0.9, "rho": 0.9, "epsilon": 1e-3, "mean_square": 0.0},
    ),
    ("RMSProp", {}, {"momentum": 0.0, "rho": 0.95, "epsilon": 1e-6}),
]


@pytest.mark.parametrize(("name", "given", "expected"), OPTIMIZER_ROWS)
def test_optimizers(old, name, given, expected):
    lr = {"name": "Constant", "learning_rate": 0.1}
    old.set("Optimizer", {"name": name, **given, "lr": lr, "weight_decay": 5e-5})
    found = to_plain(old.convert().train.optimizer)
    assert subset({**expected, "weight_decay": 5e-5}, found)


def test_every_optimizer_has_a_row():
    assert {row[0] for row in OPTIMIZER_ROWS} == set(OPTIMIZERS)


def test_what_stands_beside_an_optimizer(old):
    old.set("Optimizer.no_weight_decay_name", "bn bias pos_embed").set("Optimizer.clip_norm", 5)
    old.set("Optimizer.weight_decay", 0.3)
    train = old.convert().train
    assert (train.decay_norms, train.clip_norm) == (False, 5.0)
    assert train.optimizer.weight_decay == 1e-4
    assert train.decay_biases is None
    assert old.remarks["Optimizer.no_weight_decay_name"].startswith("pos_embed: no norm and no")
    assert "all gradients together" in old.remarks["Optimizer.clip_norm"]
    assert "the regularizer counts" in old.remarks["Optimizer.weight_decay"]


DECAYS = [  # of ResNet18: norms are named bn, the classifier fc
    ("Momentum", {}, (True, None), ""),
    ("Momentum", {"one_dim_param_no_weight_decay": True}, (True, None), "passed over by"),
    ("AdamW", {"one_dim_param_no_weight_decay": True}, (False, None), ""),
    ("RMSProp", {"one_dim_param_no_weight_decay": True}, (False, None), ""),
    ("Momentum", {"no_weight_decay_name": "bn", "one_dim_param_no_weight_decay": True},
     (False, None), ""),
    ("Momentum", {"no_weight_decay_name": "bn"}, (False, True), ""),
    ("AdamW", {"no_weight_decay_name": "fc.bias"}, (True, False), ""),
    ("AdamW", {"no_weight_decay_name": "bias"}, (True, False), "some parameters there and others"),
    ("AdamW", {"no_weight_decay_name": "norm"}, (True, None), "named so"),
    ("AdamWDL", {"layerwise_decay": 0.9}, (False, None), ""),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "keys", "expected", "said"), DECAYS)
def test_what_is_not_decayed(old, kind, keys, expected, said):
    lr = {"name": "Constant", "learning_rate": 0.1}
    train = old.set("Optimizer", {"name": kind, "lr": lr, "weight_decay": 0.1, **keys}).convert()
    assert (train.train.decay_norms, train.train.decay_biases) == expected
    texts = " ".join(text for key, text in old.remarks.items() if "weight_decay" in key)
    assert said in texts
    assert bool(said) == bool(texts)


def test_resnest_alone_decays_no_norms(old):
    old.set("Arch.name", "ResNeSt50")
    train = old.convert().train
    assert (train.decay_norms, train.decay_biases) == (False, True)
    adamw = {"name": "AdamW", "weight_decay": 0.1, "lr": old.values["Optimizer"]["lr"]}
    assert old.set("Optimizer", adamw).convert().train.decay_norms  # whose decay is no regularizer
    assert old.set("Arch.name", "ResNet50").convert().train.decay_norms


def test_a_list_of_optimizers(old):
    one = {**old.values["Optimizer"], "scope": "RecModel"}
    name = one.pop("name")
    recipe = old.set("Optimizer", [{name: one}, {"SGD": {"scope": "CenterLoss"}}]).convert()
    assert recipe.train.optimizer.momentum == 0.9
    assert recipe.train.schedule.lr == 0.1
    assert recipe.train.without == ("SGD",)
    assert "all parameters" in old.remarks["Optimizer.0.Momentum.scope"]


def rates(recipe, epochs):
    """The learning rate at the beginning of some epochs of ten steps."""
    schedule = recipe.train.schedule
    total = 10 * recipe.train.epochs
    return [schedule.over(10, total, schedule.for_batch)(round(10 * epoch)) for epoch in epochs]


def half_wave(share):
    return (1 + math.cos(math.pi * share)) / 2


SCHEDULE_ROWS = [
    ("Constant", {"learning_rate": 0.4}, {0: 0.4, 19: 0.4}),
    ("ConstLR", {"learning_rate": 0.4}, {0: 0.4, 19: 0.4}),
    ("Cosine", {"learning_rate": 0.4}, {0: 0.4, 10: 0.2, 15: 0.4 * half_wave(0.75)}),
    (
        "Cosine",  # warm-up from 0.1 to 0.4, then from 0.4 to 0.2
        {"learning_rate": 0.4, "warmup_epoch": 4, "warmup_start_lr": 0.1, "eta_min": 0.2},
        {0: 0.1, 2: 0.25, 4: 0.4, 12: 0.3},
    ),
    ("Linear", {"learning_rate": 0.4, "end_lr": 0.2}, {0: 0.4, 10: 0.3}),
    ("Linear", {"learning_rate": 0.4, "power": 2}, {0: 0.4, 10: 0.1}),
    ("Step", {"learning_rate": 0.4, "step_size": 8, "gamma": 0.5}, {7: 0.4, 8: 0.2, 16: 0.1}),
    # Paddle's LinearWarmup starts what follows at its end, so all milestones come later
    (
        "Step",
        {"learning_rate": 0.4, "step_size": 8, "gamma": 0.5, "warmup_epoch": 2},
        {1: 0.2, 9: 0.4, 10: 0.2, 18: 0.1},
    ),
    (
        "MultiStepDecay",
        {"learning_rate": 0.4, "milestones": [5, 10], "warmup_epoch": 2, "step_each_epoch": 1},
        {6: 0.4, 7: 0.04, 12: 0.004},
    ),
    ("Piecewise", {"decay_epochs": [5, 10], "values": [0.4, 0.04, 0.004]}, {4: 0.4, 5: 0.04}),
    (
        "Piecewise",
        {"decay_epochs": [5, 10], "values": [0.4, 0.2, 0.004], "warmup_epoch": 2},
        {1: 0.2, 6: 0.4, 7: 0.2, 12: 0.004},
    ),
    (
        "OneCycleLR",
        {"max_learning_rate": 0.5, "divide_factor": 10, "end_learning_rate": 0, "phase_pct": 0.5},
        {0: 0.05, 9.9: 0.5, 14.9: 0.25},
    ),
]


@pytest.mark.parametrize(("name", "given", "expected"), SCHEDULE_ROWS)
def test_schedules(old, name, given, expected):
    recipe = old.set("Optimizer.lr", {"name": name, **given}).convert()
    assert rates(recipe, expected) == pytest.approx(list(expected.values()))
    texts = [text for key, text in old.remarks.items() if key.startswith("Optimizer")]
    assert len(texts) == 1
    assert "taken as chosen for 256 images a step (4 cards of 64" in texts[0]


def test_a_plateau_counts_evaluations(old):
    lr = {"name": "ReduceOnPlateau", "learning_rate": 0.1, "mode": "max", "patience": 4}
    old.set("Optimizer.lr", {**lr, "factor": 0.5}).set("Global.eval_interval", 2)
    recipe = old.convert()
    decay = recipe.train.schedule.decay
    assert (decay.kind, decay.gamma, decay.patience) == ("plateau", 0.5, Span(10, "epochs"))
    assert recipe.eval.every == 2


def test_every_schedule_has_a_row():
    assert {row[0] for row in SCHEDULE_ROWS} | {"ReduceOnPlateau"} == set(SCHEDULES)


def test_a_schedule_that_is_not_known_stays_constant(old):
    lr = {"name": "Cyclic", "base_learning_rate": 0.1, "max_learning_rate": 0.2}
    recipe = old.set("Optimizer.lr", lr).convert()
    assert recipe.train.schedule.decay.kind == "constant"
    assert recipe.train.without == ("schedule Cyclic",)
    assert "Cyclic is not known here" in old.remarks["Optimizer.lr"]


def test_piecewise_says_what_later_releases_make_of_it(old):
    lr = {"name": "Piecewise", "learning_rate": 0.2, "decay_epochs": [5], "values": [0.1, 0.01]}
    recipe = old.set("Optimizer.lr", lr).convert()
    assert recipe.train.schedule.lr == 0.1
    assert "2.5 and later pass them over" in old.remarks["Optimizer.lr.learning_rate"]
    lr = {**lr, "learning_rate": 0.1, "decay_epochs": [30], "values": [0.1, 0.01]}
    old.set("Global.epochs", 60).set("Optimizer.lr", lr).convert()
    assert "2.5 and later" not in old.remarks["Optimizer.lr.learning_rate"]


def test_the_batch_of_the_learning_rate(old):
    old.set("Global.update_freq", 2)
    recipe = old.convert(cards=1)
    assert recipe.train.accumulate == 2
    assert recipe.train.schedule.for_batch == 128
    assert recipe.train.schedule.scale(recipe.train.images_per_step) == 1
    assert "128 images a step (1 card of 128" in old.remarks["Optimizer.lr.learning_rate"]
