"""Distillation that cannot be carried over as it is: what is said, and what is left."""

import pytest
from paddleclas_rows import FREE, FROZEN, TRUTH, between

from ppcls.utils.errors import UserError

REFUSALS = [
    ({"name": "ShuffleNetV2_x1_0", "pretrained": True}, (True, False), "ppcls has no such network"),
    ({"name": "ResNet34", "pretrained": False}, (True, False), "no weights; give it pretrained"),
    ({"name": "RegNetX_8GF", "pretrained": True}, (True, False), "no weights are registered"),
    ({"name": "ResNet34"}, (False, False), "students of each other need labels"),
]


@pytest.mark.parametrize(("teacher", "flags", "reason"), REFUSALS)
def test_a_teacher_that_cannot_be(old, teacher, flags, reason):
    recipe = old.distilled(between(DistillationKLDivLoss={}), teacher, flags=flags)
    assert (recipe.task.kind, recipe.task.loss.kind) == ("classify", "cross_entropy")
    assert recipe.train.without == ("distillation from a teacher",)
    told = old.remarks["Arch.models.0.Teacher"]
    assert reason in told
    assert told.endswith("the labels alone teach")
    assert "a loss between networks" in old.remarks["Loss.Train.0.DistillationKLDivLoss"]


MANY = {"DistillationMultiLabelLoss": {"weight": 0.5, "model_names": ["Student"]}}


@pytest.mark.parametrize("act", ["sigmoid", "softmax"])
@pytest.mark.parametrize(("flags", "kind"), [((True, False), "network"), ((False, False), "peer")])
def test_photos_with_several_labels_have_a_teacher(old, act, flags, kind):
    old.set("DataLoader.Train.dataset.name", "MultiLabelDataset")
    teacher = FROZEN if kind == "network" else FREE
    recipe = old.distilled([MANY, *between(DistillationDMLLoss={"act": act})], teacher, flags=flags)
    task = recipe.task
    assert (task.kind, task.loss.kind, task.labels_weight) == ("distill_multilabel", "bce", 0.5)
    assert [(loss.kind, loss.act) for loss in task.losses] == [("symmetric_kl", act)]
    assert task.teacher[0].kind == kind
    assert recipe.train.without == ()


def test_a_loss_of_one_label_goes_not_with_several(old):
    old.set("DataLoader.Train.dataset.name", "MultiLabelDataset")
    recipe = old.distilled([MANY, *between(DistillationDKDLoss={})])
    assert (recipe.task.kind, recipe.task.loss.kind) == ("multilabel", "bce")
    assert "one label an image" in old.remarks["Loss.Train.1.DistillationDKDLoss"]
    assert "counts 1 here" in old.said("MultiLabelLoss.weight")


LOST = [
    ("DistillationDMLLoss", {"act": "tanh"}, "act tanh"),
    ("DistillationDistanceLoss", {"key": "blocks[7]", "mode": "l1"}, "l1 distances"),
    ("DistillationDistanceLoss", {"key": "blocks5"}, "blocks5 is not where a stage"),
    ("DistillationDistanceLoss", {"key": "blocks[6]"}, "blocks[6] is not where a stage"),
    ("DistillationDistanceLoss", {}, "None is not where a stage"),
    ("DistillationPairLoss", {"base_loss_name": "ReviewKDLoss"}, "ReviewKDLoss is not known"),
    ("DistillationPairLoss", {"base_loss_name": "MGDLoss"}, "as many layers"),
    ("AFDLoss", {}, "t_shapes should list"),
    ("AFDLoss", {"t_shapes": [[1, 2]]}, "t_shapes should list"),
    ("DistillationDKDLoss", {"model_name_pairs": [["Teacher", "Student"]]}, "it compares others"),
    ("DistillationDKDLoss", {"model_name_pairs": [["Student"]]}, "it compares others"),
    ("DistillationDKDLoss", {"key": "features"}, "features is not the logits"),
    ("DistillationGuidedKLDivLoss", {}, "not known here"),
]


@pytest.mark.parametrize(("name", "keys", "reason"), LOST)
def test_a_loss_that_cannot_be(old, name, keys, reason):
    losses = [TRUTH, *between(**{"DistillationKLDivLoss": {}, name: keys})]
    recipe = old.distilled(losses)
    assert [loss.kind for loss in recipe.task.losses] == ["kl"]
    assert recipe.train.without == (keys.get("base_loss_name", name),)
    assert reason in old.remarks[f"Loss.Train.2.{name}"]
    recipe = old.distilled([losses[0], losses[2]])  # with nothing else between the networks
    assert recipe.task.kind == "classify"
    assert "no loss that is known here" in old.remarks["Arch.models.0.Teacher"]


def test_losses_that_say_more_than_ours(old):
    hard = between(DistillationCELoss={"use_hard_label": True, "epsilon": 0.1})
    recipe = old.distilled(hard)
    assert recipe.train.without == ("use_hard_label",)
    assert "not its likeliest class" in old.said("use_hard_label")
    assert "not smoothed" in old.said("epsilon")
    old.distilled(between(DistillationDKDLoss={"use_target_as_gt": True, "zzz": 1}))
    assert "labels are those of the list" in old.said("use_target_as_gt")
    assert "not known here" in old.said("zzz")


def test_several_teachers(old):
    models = [{"A": FROZEN}, {"B": {**FROZEN, "name": "ResNet50"}}, {"C": FREE}, {"Student": FREE}]
    arch = {"name": "DistillationModel", "freeze_params_list": [True, True, False, False]}
    old.set("Arch", {**arch, "models": models, "class_num": 1000})
    pairs = {"model_name_pairs": [["Student", "A"], ["Student", "B"]]}
    losses = [TRUTH, {"DistillationKLDivLoss": {"weight": 1.0, **pairs}}]
    losses += [{"DistillationRKDLoss": {"weight": 1.0, **pairs}}]
    recipe = old.set("Loss.Train", losses).convert()
    assert [teacher.name for teacher in recipe.task.teacher] == ["ResNet34", "ResNet50"]
    assert [loss.kind for loss in recipe.task.losses] == ["kl"]
    assert "one network alone" in old.remarks["Arch.models.2.C"]
    assert "averaged" in old.remarks["Arch.models.0.A.name"]
    assert "one teacher alone" in old.remarks["Loss.Train.2.DistillationRKDLoss"]


def test_what_else_is_said_of_networks(old):
    losses = between(DistillationKLDivLoss={})
    old.set("Global.pretrained_model", "best")
    teacher, student = {**FROZEN, "dropout": 1}, {"name": "ResNet18", "class_num": 9}
    recipe = old.distilled(losses, teacher, student, None)
    assert (recipe.model.num_classes, recipe.model.weights) == (9, "best")
    assert "all networks together" in old.remarks["Global.pretrained_model"]
    assert "the student's classes here, 9" in old.said("Teacher.class_num")
    assert "those of a teacher of 9" in old.said("Teacher.pretrained")
    assert "is frozen here" in old.remarks["Arch.freeze_params_list"]
    assert "not known here" in old.said("Teacher.dropout")
    old.distilled(losses, flags=(True, True))
    assert "the student trains" in old.remarks["Arch.freeze_params_list"]
    old.set("Arch.pretrained_list", ["x", None]).convert()
    assert "PaddleClas fails" in old.remarks["Arch.pretrained_list"]


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("infer_model_name", "Pupil", "no model is named 'Pupil'; there are: Teacher, Student"),
        ("freeze_params_list", [True], "should be a list of 2"),
        (
            "models",
            [{"Teacher": FROZEN}, {"Student": {"name": "ShuffleNetV2_x1_0"}}],
            "unknown model",
        ),
    ],
)
def test_mistakes(old, key, value, problem):
    old.distilled(between(DistillationKLDivLoss={}))
    with pytest.raises(UserError, match=rf"old.yaml:\d+: Arch.*{problem}"):
        old.set(f"Arch.{key}", value).convert()


def test_numbers_that_cannot_be_have_their_line(old):
    losses = [TRUTH, *between(DistillationKLDivLoss={"weight": -1.0})]
    with pytest.raises(UserError, match=r"task\.losses\.0\.weight: should be") as raised:
        old.distilled(losses)
    line = int(str(raised.value).split(":")[1])
    assert "DistillationKLDivLoss" in old.path.read_text().splitlines()[line - 1]
