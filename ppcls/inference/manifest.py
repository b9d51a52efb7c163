"""`inference.yml`: what an exported network expects and what its outputs mean.

The top level is what PaddleX 3 reads; what only ppcls needs stands under its own key.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ppcls.data.preprocess import Preprocess
from ppcls.errors import UserError

FILE = "inference.yml"
OWN = "ppcls"  # the key of what PaddleX does not know


@dataclass(frozen=True)
class Manifest:
    """The contents of `inference.yml`; `labels` are () when the class names are unknown."""

    model: str
    preprocess: Preprocess
    labels: tuple[str, ...] = ()
    topk: int = 5
    about: dict[str, Any] = field(default_factory=dict)  # provenance and checks

    def to_yaml(self) -> str:
        top = {"topk": self.topk}
        names = {"label_list": list(self.labels)} if self.labels else {}
        document = {
            "Global": {"model_name": self.model},
            "PreProcess": {"transform_ops": self.preprocess.to_ops()},
            "PostProcess": {"Topk": top | names},
            OWN: self.about,
        }
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)


def read(folder: Path) -> Manifest:
    """The manifest of an exported folder.

    Raises:
        UserError: no such folder, no manifest, or one that cannot be understood.
    """
    path = folder / FILE
    if not path.is_file():
        what = "has no" if folder.is_dir() else "does not exist, so there is no"
        raise UserError(f"{folder}: {what} {FILE}; make such a folder with tools/export.py")
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        ops = document["PreProcess"]["transform_ops"]
        top = document.get("PostProcess", {}).get("Topk", {})
        labels = tuple(str(name) for name in top.get("label_list") or ())
        model = str(document["Global"]["model_name"])
        topk = max(1, int(top.get("topk", 5)))
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise UserError(f"{path}: not the manifest of an exported network: {reason}") from None
    try:
        preprocess = Preprocess.from_ops(ops)
    except ValueError as error:
        raise UserError(f"{path}: PreProcess: {error}") from None
    return Manifest(model, preprocess, labels, topk, document.get(OWN, {}))
