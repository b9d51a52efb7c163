"""What the tests here compare with."""

from typing import Any


def subset(part: Any, whole: Any) -> bool:
    """Whether everything that is said in `part` stands in `whole`."""
    if isinstance(part, dict):
        return all(key in whole and subset(value, whole[key]) for key, value in part.items())
    if isinstance(part, list):
        return len(part) == len(whole) and all(map(subset, part, whole))
    return part == whole


# Distillation: networks and losses as PaddleClas's configs have them.
PAIR = {"model_name_pairs": [["Student", "Teacher"]]}
TRUTH = {"DistillationGTCELoss": {"weight": 1.0, "model_names": ["Student"]}}
FROZEN = {"name": "ResNet34", "class_num": 1000, "pretrained": True}
FREE = {"name": "ResNet18", "class_num": 1000, "pretrained": False}


def between(**losses: dict[str, Any]) -> list[dict[str, Any]]:
    """Losses between student and teacher."""
    return [{name: {"weight": 1.0, **PAIR, **keys}} for name, keys in losses.items()]
