"""`Arch`: the network, its classes and the weights it starts from."""

from typing import Any

from ppcls.errors import UserError
from ppcls.models import zoo
from ppcls.models.residual_specs import ResidualSpec
from ppcls.paddleclas_config.page import Section
from ppcls.weights.store import registry

CLASSES = 1000  # what PaddleClas takes where class_num is left out
PARTS = ("stem.*", "stages.0.*", "stages.1.*", "stages.2.*", "stages.3.*")  # of lr_mult_list


def network(arch: Section) -> str:
    """The network's name, checked.

    Raises:
        UserError: not a classifier, or no network of ours; the nearest names are given.
    """
    name, place = arch.get("name"), arch.place("name")
    if "Backbone" in arch:
        raise UserError(f"{place}: {name}: a network for retrieval; ppcls classifies only")
    try:
        zoo.spec_of(str(name))
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
    own, ssld = arch.get("pretrained"), arch.get("use_ssld")
    if own is not True:
        return str(own) if own else None
    return "ssld" if ssld and "ssld" in registry().get(name, {}) else True


def told_weights(arch: Section, name: str) -> str | bool | None:
    """As `own_weights`; says where others than asked for are taken."""
    found = own_weights(arch, name)
    if found is True and arch.get("use_ssld"):
        arch.remark("use_ssld", f"no such weights are registered for {name}: its default ones")
    return found


def convert(arch: Section, root: Section) -> dict[str, Any]:
    """The recipe's `model`."""
    name, count = network(arch), classes(arch, root)
    model: dict[str, Any] = {"name": name, "num_classes": count}
    source = weights(arch, root, name)
    if source:
        model["weights"] = source
        if count != CLASSES:
            model["new_head"] = True  # PaddleClas skips what does not fit
    if arch.get("input_image_channel", 3) != 3:
        text = "its fourth channel is zeros, which only makes some GPUs faster: 3 are used"
        arch.remark("input_image_channel", text)
    return model


def rates(arch: Section, name: str) -> dict[str, float]:
    """`train.lr_scale` that says the same as `lr_mult_list`; norms of a 0 are in training mode."""
    if "lr_mult_list" not in arch:
        return {}
    factors = arch.numbers("lr_mult_list")
    if len(factors) != len(PARTS) or not isinstance(zoo.spec_of(name), ResidualSpec):
        arch.matters(
            "lr_mult_list", f"not carried over: {len(PARTS)} are known, of the residual networks"
        )
        return {}
    pairs = zip(PARTS, factors, strict=True)
    return {part: float(factor) for part, factor in pairs if factor != 1}
