"""`Arch` of a distillation: which networks there are, and which of them is the student."""

from dataclasses import dataclass

from ppcls.errors import UserError
from ppcls.models import zoo
from ppcls.paddleclas_config import arch
from ppcls.paddleclas_config.page import Section

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
        weights = arch.own_weights(self.network, self.model)
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
    wanted, entries = whole.get("infer_model_name", "Student"), whole.entries("models")
    flags = freezes(whole, len(entries))
    found = [party(*entry, flag) for entry, flag in zip(entries, flags, strict=True)]
    student = next((one for one in found if one.name == wanted), None)
    if not student:
        names = ", ".join(one.name for one in found) or "none"
        place, problem = whole.place("infer_model_name"), f"no model is named {wanted!r}"
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
        place, name = whole.place("freeze_params_list"), whole.name("freeze_params_list")
        raise UserError(f"{place}: {name} should be a list of {count}, one for each of models")
    return flags


def party(name: str, model: Section, frozen: bool | None) -> Party:
    """A model; the network in one that has others built on it, as `AttentionModel` has."""
    entries = model.entries("models") if "models" in model else []
    if not entries:
        return Party(name, model, model, (), frozen)
    for key in ("name", "pretrained_list"):
        model.get(key)
    known = [str(part.values.get("name")) in zoo.SPECS for _, part in entries]
    index = known.index(True) if any(known) else 0
    said = [flag for flag in (frozen, freezes(model, len(entries))[index]) if flag is not None]
    parts = tuple(entry for i, entry in enumerate(entries) if i != index)
    return Party(name, model, entries[index][1], parts, any(said) if said else None)
