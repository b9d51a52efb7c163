"""Who may teach: a network of ppcls, an exported one, or a second student."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from ppcls.config.node import PathText, node
from ppcls.train.named import ModelName, Weights


@node
class Network:
    """A network with its weights, which stay exactly as they are."""

    kind: Literal["network"] = "network"
    name: ModelName
    weights: Weights  # file, URL, hf://org/name, registered tag; true: the default
    cache: PathText | None = (
        None  # a file of `ppcls teach` with its answers, which then serves for it
    )

    @property
    def features(self) -> bool:
        """Whether its stages' features can be learnt from."""
        return self.cache is None


@node
class Exported:
    """A folder with an exported network, run by an engine of inference."""

    kind: Literal["exported"] = "exported"
    folder: PathText
    engine: str | None = None  # None: Paddle's own, on the run's device
    cache: PathText | None = None
    features: ClassVar[bool] = False


@node
class Peer:
    """A second student: each learns from the other as from a teacher (arXiv:1706.00384).

    Both take their step at once, where the paper's algorithm takes turns. It is saved in
    latest.safetensors for --resume, and not evaluated or handed on.
    """

    kind: Literal["peer"] = "peer"
    name: ModelName
    weights: Weights | None = None
    features: ClassVar[bool] = True


def named(value: Any) -> Any:
    """A teacher without a kind is an exported folder where it has one, else a network."""
    if not isinstance(value, dict):
        return value
    return {"kind": "exported" if "folder" in value else "network", **value}


def listed(value: Any) -> Any:
    """One teacher is a list of one."""
    return [value] if isinstance(value, dict | Network | Exported | Peer) else value


Teacher = Annotated[
    Annotated[Network | Exported | Peer, Field(discriminator="kind")], BeforeValidator(named)
]
Teachers = Annotated[tuple[Teacher, ...], BeforeValidator(listed)]
