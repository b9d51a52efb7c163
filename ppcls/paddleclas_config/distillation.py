"""Distillation: the one place that knows teachers, students and the losses between them.

No task of kind `distill` is written yet: the student is carried over with everything around it, the
teacher and the losses between the two are listed.
"""

from ppcls.models import zoo
from ppcls.paddleclas_config.page import Section

KIND = "DistillationModel"
GROUND_TRUTH = "DistillationGTCELoss"  # the student's own loss, against the labels
WITHOUT = "distillation from a teacher"


def is_loss(name: str) -> bool:
    """Whether a loss compares networks with one another."""
    return name.startswith("Distillation") or name == "AFDLoss"


def student(arch: Section) -> Section:
    """The section of the student: `Arch` itself where nothing is distilled."""
    if arch.get("name") != KIND:
        return arch
    wanted = arch.get("infer_model_name", "Student")
    models = arch.entries("models")
    arch.get("freeze_params_list")
    arch.get("pretrained_list")
    for name, model in models:
        if name != wanted:
            teacher = model.get("name")
            model.lose(
                f"the teacher {teacher} is not carried over: the labels alone teach", WITHOUT
            )
    for name, model in models:
        if name == wanted:
            return inner(model)
    return arch


def inner(model: Section) -> Section:
    """The network in a student that has others built on it, as `AttentionModel` has."""
    if "models" not in model:
        return model
    found = model
    for key in ("name", "freeze_params_list", "pretrained_list"):
        model.get(key)
    for _, part in model.entries("models"):
        if found is model and str(part.values.get("name")) in zoo.SPECS:
            found = part
        else:
            part.lose("serves distillation alone: not carried over", WITHOUT)
    return found


def lose(loss: Section) -> None:
    """List a loss between networks."""
    loss.lose("a loss between networks: not carried over", WITHOUT)
