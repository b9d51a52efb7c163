"""Where a layer of ours stands in its network, as other projects count."""

from ppcls.models.efficientnet_specs import STAGES, EfficientNetSpec
from ppcls.models.residual_specs import ResidualSpec

Spec = ResidualSpec | EfficientNetSpec


def number(spec: Spec, stage: str, block: str) -> int:
    """The block's number when all stages' blocks are counted through."""
    return sum(spec.depths[: int(stage)]) + int(block)


def roles(spec: EfficientNetSpec, stage: str) -> list[str]:
    """What the layers in the branch of an EfficientNet's blocks are, in their order."""
    expand = ["expand"] if STAGES[int(stage)].expand > 1 else []
    return [*expand, "depthwise", *(["gate"] if spec.se else []), "project"]
