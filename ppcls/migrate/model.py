"""PaddleClas's `Arch`: the network, its classes, weights and features; student and teachers."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ppcls.migrate.sections import Section
from ppcls.models import registry
from ppcls.models.spec import Family, Feature, StagedSpec
from ppcls.utils.errors import UserError
from ppcls.weights.store import read_registry

CLASSES = 1000  # what PaddleClas takes where class_num is left out


def network(arch: Section) -> str:
    """The network's name, checked.

    Raises:
        UserError: not a classifier, or no network of ours; the nearest names are given.
    """
    name = arch.get("name")
    place = arch.place("name")
    if "Backbone" in arch:
        raise UserError(f"{place}: {name}: a network for retrieval; ppcls classifies only")
    try:
        registry.spec_of(str(name))
    except UserError as error:
        raise UserError(f"{place}: {arch.name('name')}: {error}") from None
    return str(name)


def classes(arch: Section, root: Section) -> int:
    """How many classes: a student's own, or those of all; `Global.class_num` is the older place."""
    older = root.section("Global").get("class_num", CLASSES)
    count = arch.get("class_num", root.section("Arch").get("class_num", older))
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise UserError(f"{arch.place('class_num')}: {arch.name('class_num')} should be a number")
    return count


def weights(arch: Section, root: Section, name: str) -> str | bool | None:
    """What `model.weights` should be: `Global.pretrained_model` comes after `Arch.pretrained`."""
    file = root.section("Global").get("pretrained_model")
    if not file:
        return told_weights(arch, name)
    if own_weights(arch, name):
        arch.remark("pretrained", "replaced by Global.pretrained_model, as PaddleClas does")
    return str(file)


def own_weights(arch: Section, name: str) -> str | bool | None:
    """What a network's own keys ask for: a file, a registered tag or True for the default."""
    own = arch.get("pretrained")
    ssld = arch.get("use_ssld")
    if own is not True:
        return str(own) if own else None
    return "ssld" if ssld and "ssld" in read_registry().get(name, {}) else True


def told_weights(arch: Section, name: str) -> str | bool | None:
    """As `own_weights`; says where others than asked for are taken."""
    found = own_weights(arch, name)
    if found is True and arch.get("use_ssld"):
        arch.remark("use_ssld", f"no such weights are registered for {name}: its default ones")
    return found


def convert_model(arch: Section, root: Section) -> dict[str, Any]:
    """The recipe's `model`."""
    name = network(arch)
    count = classes(arch, root)
    model: dict[str, Any] = {"name": name, "num_classes": count}
    source = weights(arch, root, name)
    if source:
        model["weights"] = source
        if count != CLASSES:
            model["new_head"] = True  # PaddleClas skips what does not fit
    if arch.get("input_image_channel", 3) != 3:
        text = "its fourth channel is zeros, which only makes some GPUs faster: 3 are used"
        arch.remark("input_image_channel", text)
    say_arguments(arch, name)
    return model


def say_arguments(arch: Section, name: str) -> None:
    """Say which arguments make another network of it than there is here."""
    family = registry.family_of(registry.spec_of(name))
    names = family.projects.get("paddleclas") if family else None
    for key, ours in names.arguments.items() if names else ():
        if arch.get(key, ours) != ours:
            arch.matters(key, f"not carried over: {name} has {str(ours).lower()} here")


def rates(arch: Section, name: str) -> dict[str, float]:
    """`train.lr_scale` that says the same as `lr_mult_list`; norms of a 0 are in training mode."""
    if "lr_mult_list" not in arch:
        return {}
    factors = arch.numbers("lr_mult_list")
    family = registry.family_of(registry.spec_of(name))
    parts = rated(family) if family else ()
    if not parts or len(factors) != len(parts):
        every = ((len(rated(one)), one.words) for one in registry.FAMILIES if rated(one))
        known = ", ".join(f"{count} are known, of {words}" for count, words in every)
        arch.matters("lr_mult_list", f"not carried over: {known}")
        return {}
    pairs = zip(parts, factors, strict=True)
    return {part: float(factor) for part, factor in pairs if factor != 1}


def rated(family: Family) -> tuple[str, ...]:
    """The parts of a family's networks that entries of `lr_mult_list` are for."""
    names = family.projects.get("paddleclas")
    return names.rates if names else ()


# --------------------------------------------------------------------------
# `Arch` of a distillation: which networks there are, and which of them is the student

KIND = "DistillationModel"


@dataclass(frozen=True)
class Party:
    """A network that takes part."""

    name: str  # in the config
    listed: Section  # among the models
    network: Section  # what of it is a network of ours
    parts: tuple[tuple[str, Section], ...] = ()  # what is built on that
    frozen: bool | None = None  # None: the config does not say

    @property
    def model(self) -> str:
        return str(self.network.get("name"))

    @property
    def peer(self) -> bool:
        """Whether it is trained, too."""
        weights = own_weights(self.network, self.model)
        return not (weights if self.frozen is None else self.frozen)


@dataclass(frozen=True)
class Parties:
    """One student; nobody else where nothing is distilled."""

    student: Party
    others: tuple[Party, ...] = ()


def find(root: Section) -> Parties:
    """Who takes part.

    Raises:
        UserError: the student is none of the models, or a list has not one entry for each.
    """
    whole = root.section("Arch")
    if whole.get("name") != KIND:
        return Parties(Party("", whole, whole))
    wanted = whole.get("infer_model_name", "Student")
    entries = whole.entries("models")
    flags = freezes(whole, len(entries))
    found = [party(*entry, flag) for entry, flag in zip(entries, flags, strict=True)]
    student = next((one for one in found if one.name == wanted), None)
    if not student:
        names = ", ".join(one.name for one in found) or "none"
        place = whole.place("infer_model_name")
        problem = f"no model is named {wanted!r}"
        raise UserError(f"{place}: Arch.infer_model_name: {problem}; there are: {names}")
    if student.frozen:
        whole.remark("freeze_params_list", "the student trains here")
    if whole.get("pretrained_list", [None] * len(entries)) != [None] * len(entries):
        text = "not carried over: PaddleClas fails at it; each model has a pretrained of its own"
        whole.remark("pretrained_list", text)
    if root.section("Global").get("pretrained_model"):
        text = "taken as the student's weights; there it is a file of all networks together"
        root.section("Global").remark("pretrained_model", text)
    return Parties(student, tuple(one for one in found if one is not student))


def freezes(whole: Section, count: int) -> list[bool | None]:
    """What `freeze_params_list` says of each model."""
    flags = whole.get("freeze_params_list", [None] * count)
    if not isinstance(flags, list) or len(flags) != count:
        place = whole.place("freeze_params_list")
        name = whole.name("freeze_params_list")
        raise UserError(f"{place}: {name} should be a list of {count}, one for each of models")
    return flags


def party(name: str, model: Section, frozen: bool | None) -> Party:
    """A model; the network in one that has others built on it, as `AttentionModel` has."""
    entries = model.entries("models") if "models" in model else []
    if not entries:
        return Party(name, model, model, (), frozen)
    for key in ("name", "pretrained_list"):
        model.get(key)
    known = [str(part.values.get("name")) in registry.SPECS for _, part in entries]
    index = known.index(True) if any(known) else 0
    said = [flag for flag in (frozen, freezes(model, len(entries))[index]) if flag is not None]
    parts = tuple(entry for i, entry in enumerate(entries) if i != index)
    return Party(name, model, entries[index][1], parts, any(said) if said else None)


# --------------------------------------------------------------------------
# Losses between the features of networks, which PaddleClas names layer by layer

Nodes = list[dict[str, Any]]


@dataclass
class Scene:
    """Who is compared; `labels` gathers what losses between networks ask of the labels."""

    student: str  # their names in the config
    teachers: tuple[str, ...]
    models: tuple[str, str]  # the networks of the student and of the first teacher
    peer: bool
    classes: int
    size: tuple[int, int]  # height and width of the images in training, pixels
    many: bool = False  # labels of an image
    labels: float = 0.0


def rkd(loss: Section, weight: float, scene: Scene) -> Nodes:
    for key in ("target_size", "avgpool", "student_keepkeys", "teacher_keepkeys"):
        loss.get(key)
    text = "the last stages are compared here, as means over the pixels, and distances are divided "
    loss.matters("weight", text + "by their mean over pairs; there an image is a pair with itself")
    return [{"kind": "rkd", "weight": weight, "distance": 1.0, "angle": 1.0}]


def feature_l2(loss: Section, weight: float, scene: Scene) -> Nodes:
    mode = loss.get("mode", "l2")
    act = loss.get("act")
    key = loss.get("key")
    if mode != "l2" or act:
        loss.lose(f"not carried over: {act or mode} distances are not known here")
        return []
    stage = same_stage(loss, key, key, scene)
    if not stage:
        return []
    ours = rounded(weight * 2 / values(stage, scene))
    text = f"half the sum over channels and pixels here, their mean there: {weight:g} is {ours:g}"
    loss.matters("weight", text)
    return [{"kind": "feature_l2", "weight": ours, "stage": stage}]


def pair(loss: Section, weight: float, scene: Scene) -> Nodes:
    base = str(loss.get("base_loss_name"))
    if base not in PAIRS:
        loss.lose(f"{base} is not known here: not carried over", base)
        return []
    for network in ("student", "teacher"):
        loss.get(f"{network}_channel")
        loss.get(f"{network}_channels")
    return PAIRS[base](loss, weight, scene)


def mgd(loss: Section, weight: float, scene: Scene) -> Nodes:
    own = layers(loss, "s")
    other = layers(loss, "t")
    if not own or len(own) != len(other):
        loss.lose("not carried over: s_keys and t_keys should name as many layers", "MGDLoss")
        return []
    stages = [same_stage(loss, *names, scene) for names in zip(own, other, strict=True)]
    factor = loss.number("alpha_mgd", 1.756)
    masked = float(loss.number("lambda_mgd", 0.15))
    weights = [rounded(weight * factor / values(stage, scene)) for stage in stages if stage]
    if len(weights) != len(stages):
        return []
    text = "pixels are masked here, channels there; the sum over channels and pixels here, "
    text += f"{factor} times their mean there: {weight:g} is {', '.join(f'{w:g}' for w in weights)}"
    loss.matters("weight", text)
    both = zip(weights, stages, strict=True)
    return [{"kind": "mgd", "weight": w, "stage": stage, "masked": masked} for w, stage in both]


def pefd(loss: Section, weight: float, scene: Scene) -> Nodes:
    if {*layers(loss, "s"), *layers(loss, "t")} != {"avg_pool"}:
        loss.matters("weight", "the last stages are compared here, as means over the pixels")
    return [{"kind": "pefd", "weight": weight, "projectors": loss.get("num_projectors", 3)}]


def afd(loss: Section, weight: float, scene: Scene) -> Nodes:
    """There a mean over the pixels for each block of the teacher, here a sum for each stage."""
    for key in ("student_keys", "teacher_keys", "s_shapes"):
        loss.get(key)
    try:
        shares = [1 / (height * width) for _, height, width in loss.get("t_shapes")]
    except (TypeError, ValueError, ZeroDivisionError):
        loss.lose("not carried over: t_shapes should list [channels, height, width] of blocks")
        return []
    stages = len(features(scene.models[1]))
    ours = rounded(weight * sum(shares) / stages)
    text = "stages are compared here, blocks there; the sum over the pixels here, their mean there"
    loss.matters("weight", f"{text}: {weight:g} is about {ours:g}")
    return [{"kind": "afd", "weight": ours, "width": loss.get("qk_dim", 128)}]


def layers(loss: Section, network: str) -> list[str]:
    """The layers a loss of pairs names, in its older form or its newer one."""
    found = loss.get(f"{network}_keys", loss.get(f"{network}_key", []))
    return [str(key) for key in found] if isinstance(found, list) else [str(found)]


def same_stage(loss: Section, own: Any, other: Any, scene: Scene) -> int | None:
    """The stage that ends with these layers; None, which is listed, where there is no such one."""
    ends = [stage(str(key), model) for key, model in zip((own, other), scene.models, strict=True)]
    if ends[0] and ends[0] == ends[1]:
        return ends[0]
    names = own if own == other else f"{own} and {other}"
    loss.lose(f"not carried over: {names} is not where a stage of both networks ends")
    return None


def stage(key: str, model: str) -> int | None:
    """The stage that a layer ends, as `task.losses` counts: -1 is the last."""
    spec = registry.spec_of(model)
    family = registry.family_of(spec)
    names = family.projects.get("paddleclas") if family else None
    return names.stage(key, spec) if names else None


def values(stage: int, scene: Scene) -> int:
    """How many numbers a stage of the teacher gives for an image."""
    feature = features(scene.models[1])[stage]
    return feature.channels * math.prod(math.ceil(s / feature.stride) for s in scene.size)


def features(model: str) -> tuple[Feature, ...]:
    """Those of a network's stages; networks of one's own are none of PaddleClas's."""
    spec = registry.spec_of(model)
    return spec.feature_info if isinstance(spec, StagedSpec) else ()


def rounded(number: float) -> float:
    return float(f"{number:.6g}")


PAIRS: dict[str, Callable[[Section, float, Scene], Nodes]] = {"MGDLoss": mgd, "PEFDLoss": pefd}
