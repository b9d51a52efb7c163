"""Distillation: who teaches, and the recipe's `task: {kind: distill}`."""

from collections.abc import Sequence
from typing import Any

from ppcls.migrate import model, training
from ppcls.migrate.model import Nodes, Parties, Party, Scene, rounded
from ppcls.migrate.sections import Section
from ppcls.migrate.training import Labels
from ppcls.models import registry
from ppcls.weights.store import read_registry

WITHOUT = "distillation from a teacher"
SERVANTS = ("LinearTransformTeacher", "LinearTransformStudent")  # ppcls's afd has them inside
WITH_LABELS = ("dkd", "wsl")  # losses between networks that look at the labels

Places = dict[tuple[str | int, ...], Section]


def convert_distillation(
    parties: Parties, root: Section, labels: Labels, classes: int, size: tuple[int, int]
) -> tuple[dict[str, Any], Places]:
    """The recipe's `task`, and what its parts come from; {} where nobody teaches, which is listed.

    Args:
        classes: of the student.
        size: height and width of the images in training, in pixels.
    """
    teachers, reasons = choose(parties.others, labels)
    losses = []
    sources = []
    weight = labels.weight
    if teachers:
        models = (parties.student.model, teachers[0].model)
        names = tuple(one.name for one in teachers)
        peer = teachers[0].peer
        scene = Scene(parties.student.name, names, models, peer, classes, size, labels.many)
        losses, sources = training.convert_distill_losses(root, scene)
        weight = rounded(labels.weight + scene.labels)
    else:
        training.lose_distill_losses(root, WITHOUT)
    if not losses:
        reasons |= {one.name: "no loss that is known here compares it" for one in teachers}
        teachers = []
    lose_others(parties, teachers, reasons, losses)
    labels.others(peers=any(one.peer for one in teachers))
    if not losses:
        return {}, {}
    nodes = [teacher(one, root, classes, len(teachers)) for one in teachers]
    kind = "distill_multilabel" if labels.many else "distill"
    task = {"kind": kind, "teacher": nodes if len(nodes) > 1 else nodes[0], "losses": losses}
    if weight:
        task |= {"labels_weight": weight} | ({"loss": labels.loss} if labels.loss else {})
    elif not any(loss["kind"] in WITH_LABELS for loss in losses):
        unlabelled(root.section("DataLoader").section("Train").section("dataset"))
    parties.student.network.get("return_patterns")  # ppcls takes what a loss needs
    places: Places = {("losses", index): source for index, source in enumerate(sources)}
    return task, places | {("teacher",): teachers[0].listed}


def choose(others: Sequence[Party], labels: Labels) -> tuple[list[Party], dict[str, str]]:
    """Who can teach, and why each of the others cannot."""
    reasons = {one.name: refusal(one, labels) for one in others}
    able = [one for one in others if not reasons[one.name]]
    teachers = [one for one in able if not one.peer] or able[:1]
    teachers = teachers[:1] if labels.many else teachers
    names = {one.name for one in teachers}
    beside = "a second student learns from one network alone"
    if labels.many:
        beside = "of several labels an image one network alone teaches"
    return teachers, {
        name: reason or beside for name, reason in reasons.items() if name not in names
    }


def refusal(one: Party, labels: Labels) -> str:
    """Why a network cannot teach; "" if it can."""
    weights = model.own_weights(one.network, one.model)
    if one.model not in registry.SPECS:
        return "ppcls has no such network"
    if one.peer:
        return "" if labels.weight else "students of each other need labels, too"
    if weights is None:
        return "it is frozen and has no weights; give it pretrained: FILE and convert again"
    if weights is True and one.model not in read_registry():
        return "no weights are registered for it; give it pretrained: FILE and convert again"
    return ""


def lose_others(
    parties: Parties, teachers: Sequence[Party], reasons: dict[str, str], losses: Nodes
) -> None:
    """List the networks that do not teach, and what is built on others and serves nothing."""
    for one in parties.others:
        if one.name in reasons:
            end = "" if teachers else ": the labels alone teach"
            text = f"{one.model} is not carried over as a teacher, {reasons[one.name]}{end}"
            one.listed.lose(text, WITHOUT)
    used = SERVANTS if any(loss["kind"] == "afd" for loss in losses) else ()
    for one in (parties.student, *teachers):
        for _, part in one.parts:
            if part.get("name") in used:
                part.page.used.add(part.at)
            else:
                part.lose("serves distillation alone: not carried over", WITHOUT)


def teacher(one: Party, root: Section, classes: int, count: int) -> dict[str, Any]:
    """The recipe's teacher, with what is to be said about it."""
    network = one.network
    weights = model.told_weights(network, one.model)
    network.get("return_patterns")
    theirs = model.classes(network, root)
    if theirs != classes:
        network.remark("class_num", f"a teacher has the student's classes here, {classes}")
    if weights in (True, "ssld") and classes != model.CLASSES:
        text = f"those weights are of {model.CLASSES} classes: give those of a teacher of {classes}"
        network.remark("pretrained", text)
    if one.peer:
        text = "a second student: each learns from the other by every loss, and from the labels"
        one.listed.remark("name", text)
        return {"kind": "peer", "name": one.model} | ({"weights": weights} if weights else {})
    if one.frozen is None:
        text = f"{one.name} has weights and is frozen here; there every network trains without it"
        root.section("Arch").remark("freeze_params_list", text)
    if count > 1:
        one.listed.matters("name", f"the probabilities of {count} teachers are averaged here")
    return {"name": one.model, "weights": weights}


def unlabelled(dataset: Section) -> None:
    """A list for distillation alone may have images whose class nobody knows."""
    text = (
        "its labels are not learnt from (task.labels_weight: 0); images without labels may stand "
        "in a list of their own, data.unlabeled"
    )
    dataset.remark("cls_label_path", text)
