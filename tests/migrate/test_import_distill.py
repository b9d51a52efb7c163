"""Distillation: the task of a recipe for every method of PaddleClas."""

import pytest
from paddleclas_rows import FREE, FROZEN, TRUTH, between

from ppcls.config.load import to_plain
from ppcls.migrate.model import PAIRS
from ppcls.migrate.training import BETWEEN

BOTH = {"DistillationGTCELoss": {"weight": 0.5, "model_names": ["Student", "Teacher"]}}
PATTERNS = {"return_patterns": ["blocks[7]"]}
SHAPES = [[64, 56, 56], [128, 28, 28], [256, 14, 14], [512, 7, 7]]
TEACHER = {"kind": "network", "name": "ResNet34", "weights": "true", "cache": None}
PEER = {"kind": "peer", "name": "ResNet18", "weights": None}
STAGE = 512 * 7 * 7  # numbers that the last stage of both gives for an image of 224 px


def pair(base, **keys):
    return between(DistillationPairLoss={"base_loss_name": base, **keys})


# Method, losses between the networks, its task.losses, and what is said of the weight.
METHODS = [
    ("ssld", between(DistillationDMLLoss={}), {"kind": "symmetric_kl", "weight": 1.0}, ""),
    ("ssld", between(DistillationCELoss={}), {"kind": "soft_cross_entropy", "weight": 1.0}, ""),
    ("kd", between(DistillationKLDivLoss={"weight": 0.9}), {"kind": "kl", "temperature": 4.0}, ""),
    (
        "dkd",
        between(DistillationDKDLoss={"temperature": 2, "alpha": 3, "beta": 8}),
        {"kind": "dkd", "temperature": 2.0, "target": 3.0, "others": 8.0},
        "",
    ),
    ("wsl", between(DistillationWSLLoss={"weight": 2.5}), {"kind": "wsl", "temperature": 2.0}, ""),
    (
        "skd",
        between(DistillationSKDLoss={"temperature": 4, "weight": 2.0}),
        {"kind": "skd", "weight": 1.8, "temperature": 4.0, "length": 63.2456},
        "",
    ),
    (
        "dist",
        between(DistillationDISTLoss={"weight": 2.0, "beta": 0.5}),
        {"kind": "dist", "weight": 2.0, "temperature": 1.0, "inter": 0.5, "intra": 1.0},
        "",
    ),
    (
        "rkd",
        between(DistillationRKDLoss={"student_keepkeys": ["blocks[7]"], "target_size": 1}),
        {"kind": "rkd", "distance": 1.0, "angle": 1.0},
        "last stages are compared",
    ),
    (
        "mgd",
        pair("MGDLoss", s_keys=["blocks[7]"], t_keys=["blocks[15]"], student_channels=512),
        {"kind": "mgd", "weight": pytest.approx(1.756 / STAGE, 1e-5), "stage": -1},
        "pixels are masked",
    ),
    (
        "mgd",
        pair("MGDLoss", s_key="blocks[5]", t_key="blocks[12]", alpha_mgd=1, lambda_mgd=0.5),
        {"weight": pytest.approx(1 / STAGE / 2, 1e-5), "stage": -2, "masked": 0.5},
        "pixels are masked",
    ),
    ("pefd", pair("PEFDLoss", s_key="avg_pool", t_key="avg_pool"), {"kind": "pefd"}, ""),
    (
        "pefd",
        pair("PEFDLoss", s_key="blocks[7]", t_key="blocks[15]", num_projectors=2, weight=25.0),
        {"kind": "pefd", "weight": 25.0, "projectors": 2},
        "means over the pixels",
    ),
    (
        "afd",
        [{"AFDLoss": {"weight": 50.0, "t_shapes": SHAPES, "s_shapes": SHAPES, "qk_dim": 64}}],
        # 50 * (1 / 3136 + 1 / 784 + 1 / 196 + 1 / 49) / 4
        {"kind": "afd", "weight": pytest.approx(0.338807, 1e-5), "width": 64},
        "stages are compared",
    ),
]


@pytest.mark.parametrize(("method", "losses", "expected", "remark"), METHODS)
def test_every_method_with_a_frozen_teacher(old, method, losses, expected, remark):
    recipe = old.distilled([TRUTH, *losses], {**FROZEN, **PATTERNS}, {**FREE, **PATTERNS})
    task = to_plain(recipe.task)
    assert (recipe.model.name, recipe.train.without) == ("ResNet18", ())
    assert (task["kind"], task["teacher"]) == ("distill", [TEACHER])
    (loss,) = task["losses"]
    given = next(iter(losses[0].values()))["weight"]
    assert {key: loss[key] for key in expected} == expected
    assert "weight" in expected or loss["weight"] == given
    assert task["labels_weight"] == (1.2 if method == "skd" else 1.0)
    told = {key for key in old.remarks if key.startswith(("Arch", "Loss"))}
    kind = next(iter(losses[0]))
    assert told == {f"Loss.Train.1.{kind}.{'alpha' if method == 'skd' else 'weight'}"} or not remark
    assert bool(told) == bool(remark or method == "skd")
    if remark:
        assert remark in old.said(".weight")


def test_every_loss_between_networks_is_tried():
    names = {name for _, losses, _, _ in METHODS for name in losses[0]}
    assert names | {"DistillationDistanceLoss"} == set(BETWEEN)
    found = [next(iter(losses[0].values())).get("base_loss_name") for _, losses, _, _ in METHODS]
    assert set(found) - {None} == set(PAIRS)


def test_students_of_each_other(old):
    recipe = old.distilled([BOTH, *between(DistillationDMLLoss={})], FREE, flags=(False, False))
    task = to_plain(recipe.task)
    assert task["teacher"] == [PEER]
    assert [loss["kind"] for loss in task["losses"]] == ["symmetric_kl"]
    assert (task["labels_weight"], task["loss"]["smoothing"]) == (0.5, 0.0)
    assert "each learns from the other" in old.said("Teacher.name")
    names = ("Student", "Teacher")
    apart = [{"DistillationGTCELoss": {"weight": 0.5, "model_names": [name]}} for name in names]
    again = old.distilled([*apart, *between(DistillationDMLLoss={})], FREE, flags=None)
    assert again.task == recipe.task
    assert not any("GTCE" in key for key in old.remarks)
    apart[1]["DistillationGTCELoss"]["weight"] = 0.25
    old.distilled([*apart, *between(DistillationDMLLoss={})], FREE, flags=None)
    assert "the loss of the first" in old.remarks["Loss.Train.1.DistillationGTCELoss.weight"]


def test_features_of_students_of_each_other(old):
    losses = between(DistillationDMLLoss={}, DistillationDistanceLoss={"key": "blocks[7]"})
    recipe = old.distilled([BOTH, *losses], FREE, flags=(False, False))
    dml, distance = to_plain(recipe.task)["losses"]
    assert dml["kind"] == "symmetric_kl"
    expected = {"kind": "feature_l2", "weight": pytest.approx(2 / STAGE, 1e-5), "stage": -1}
    assert distance == expected
    assert "their mean there: 1 is" in old.remarks["Loss.Train.2.DistillationDistanceLoss.weight"]
    small = [{"RandCropImage": {"size": 100, "use_log_aspect": True}}, {"NormalizeImage": None}]
    old.set("DataLoader.Train.dataset.transform_ops", small)
    losses[1]["DistillationDistanceLoss"]["key"] = "blocks[5]"
    loss = to_plain(old.distilled([BOTH, *losses], FREE, flags=(False, False)).task)["losses"][1]
    assert loss["weight"] == pytest.approx(2 / (256 * 7 * 7), 1e-5)  # 100 px / 16, rounded up


def test_weights_of_teachers(old):
    def weights(**teacher):
        recipe = old.distilled(between(DistillationCELoss={}), {"class_num": 1000, **teacher})
        return recipe.task.teacher[0].weights

    assert weights(name="ResNet50_vd", pretrained=True, use_ssld=True) == "ssld"
    assert weights(name="ResNet50_vd", pretrained=True) == "true"
    assert weights(name="ResNet34", pretrained=True, use_ssld=True) == "true"
    assert "no such weights" in old.said("Teacher.use_ssld")
    assert weights(name="RegNetX_8GF", pretrained="./best_model") == "./best_model"
    assert weights(name="ResNet34", pretrained="https://host/x.pdparams").startswith("https")


def test_without_labels(old):
    task = to_plain(old.distilled(between(DistillationDMLLoss={"weight": 3.0})).task)
    assert (task["labels_weight"], task["losses"][0]["weight"]) == (0.0, 1.0)
    assert "weight of a loss that is alone" in old.said("DMLLoss.weight")
    assert "labels are not learnt from" in old.remarks["DataLoader.Train.dataset.cls_label_path"]
    old.distilled(between(DistillationWSLLoss={}))
    assert "DataLoader.Train.dataset.cls_label_path" not in old.remarks


def test_smoothed_labels(old):
    truth = {"DistillationGTCELoss": {"weight": 2.0, "epsilon": 0.1, "model_names": ["Student"]}}
    task = old.distilled([truth, *between(DistillationKLDivLoss={})]).task
    assert (task.labels_weight, task.loss.smoothing) == (2.0, 0.1)
    hybrid = [{"MixupCutmixHybrid": {"label_smoothing": 0.2, "cutmix_alpha": 1.0}}]
    old.set("DataLoader.Train.dataset.batch_transform_ops", hybrid)
    assert old.distilled([truth, *between(DistillationKLDivLoss={})]).task.loss.smoothing == 0.2
    assert old.distilled(between(DistillationKLDivLoss={})).task.labels_weight == 0


def test_networks_with_others_built_on_them(old):
    def model(name, network, part, flags):
        models = [{name: network}, {part: {"name": part, "qk_dim": 128}}]
        return {"name": "AttentionModel", "freeze_params_list": flags, "models": models}

    teacher = model("ResNet34", {**FROZEN, **PATTERNS}, "LinearTransformTeacher", [True, False])
    student = model("ResNet18", FREE, "LinearTransformStudent", [False, False])
    names = {"model_name_pair": ["Student", "Teacher"]}
    afd = [{"AFDLoss": {"weight": 1.0, "t_shapes": SHAPES, **names}}]
    kl = between(DistillationKLDivLoss={})
    recipe = old.distilled([TRUTH, *kl, *afd], teacher, student, None)
    task = to_plain(recipe.task)
    assert (task["teacher"], recipe.train.without) == ([TEACHER], ())
    assert [loss["kind"] for loss in task["losses"]] == ["kl", "afd"]
    assert not any(key.startswith("Arch") for key in old.remarks)
    recipe = old.distilled([TRUTH, *kl], teacher, student, None)
    assert recipe.train.without == ("distillation from a teacher",)
    assert "serves distillation alone" in old.said("Student.models.1.LinearTransformStudent")
    recipe = old.distilled([TRUTH], {"name": "ShuffleNetV2_x1_0"}, student)
    assert recipe.model.name == "ResNet18"
