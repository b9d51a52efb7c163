"""`inference.yml`: what an exported network expects and what its outputs mean.

The top level is what PaddleX 3 reads; what only ppcls needs stands under its own key.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from ppcls.data.class_names import by_number, read_class_names
from ppcls.data.preprocess import Preprocess
from ppcls.inference import calibration
from ppcls.inference.calibration import Calibration
from ppcls.utils.errors import UserError
from ppcls.utils.files import read_file
from ppcls.utils.log import say
from ppcls.utils.text import decimal, quoted, to_json, visible, whole_number
from ppcls.utils.yaml_files import compose, construct, to_yaml

FILE = "inference.yml"
OWN = "ppcls"  # the key of what PaddleX does not know
WEIGHT_BITS = "weight_bits"  # the key below it of what a network was trained to be rounded to
INPUTS = ("float32", "uint8")
OUTPUTS = ("probabilities", "logits")
PRECISIONS = ("fp32", "fp16", "int8")
TASKS = ("classify", "multilabel")
THRESHOLD = 0.5  # where no other is known
MOST = 1 << 31  # above all numbers of classes
SEVERAL = "MultiLabelThreshOutput"  # PaddleX's name of post-processing by thresholds
DECIDED = "ThreshOutput"  # PaddleClas's, of one class that needs a threshold to be the answer
TEXTS = ("label_list", "label_0", "label_1", "class_id_map_file", "model_name", "delimiter")


class MapShape(NamedTuple):
    """Of an image's class activation maps."""

    classes: int
    height: int  # places from top to bottom …
    width: int  # … and from left to right, of images of the size that was exported


@dataclass(frozen=True)
class Manifest:
    """The contents of `inference.yml`.

    Attributes:
        labels: class names; () when unknown.
        input: float32, normalised [N, C, H, W], or uint8, pixels [N, H, W, C].
        output: probabilities or logits; None: to be found out from the first results.
        precision: of the weights and the arithmetic: fp32, fp16 or int8.
        task: classify, one class wins; multilabel, each class whose probability is above its
            threshold.
        threshold: in multilabel, for all classes or for each; else of a decision.
        default: the class that is the answer unless another one reaches the threshold: of two
            classes the first; None: the likeliest class is the answer.
        dynamic_size: whether images of any size fit, not only `preprocess.crop`.
        features: how many numbers the second output has for an image, 0 where there is none: the
            pooled features that the classifier takes.
        maps: the shape of the last output, [N, classes, height, width], which behind all others has
            what each place of an image adds to each class's logit; None: there is none.
        about: provenance and checks.
        paddlex: the name that PaddleX is to read the network under, where that is another.
        calibration: what is known of how good the answers are, None in exports without.
    """

    model: str
    preprocess: Preprocess
    labels: tuple[str, ...] = ()
    topk: int = 5
    input: str = "float32"
    output: str | None = "probabilities"
    precision: str = "fp32"
    dynamic_size: bool = False
    features: int = 0
    maps: MapShape | None = None
    task: str = "classify"
    threshold: float | tuple[float, ...] = THRESHOLD
    default: int | None = None
    about: dict[str, Any] = field(default_factory=dict)
    paddlex: str | None = None
    calibration: Calibration | None = None

    def to_yaml(self) -> str:
        names = {"label_list": list(self.labels)} if self.labels else {}
        network = {
            "input": self.input,
            "output": self.output,
            "precision": self.precision,
            "dynamic_size": self.dynamic_size,
            "task": self.task,
        }
        if self.features:
            network["features"] = self.features
        if self.maps:
            network["map"] = self.maps._asdict()
        if self.task == "multilabel":
            own = self.threshold
            threshold = list(own) if isinstance(own, tuple) else own
            if self.paddlex and isinstance(own, tuple):  # which takes them for those of images
                network["thresholds"] = threshold
                threshold = own[0] if len(set(own)) == 1 else THRESHOLD
            after = {SEVERAL: {"threshold": threshold} | names}
        elif self.default is not None:
            own = {"threshold": self.threshold, "default_label_index": self.default}
            if len(self.labels) == 2:
                names = {"label_0": self.labels[0], "label_1": self.labels[1]}
            after = {DECIDED: own | names}
        else:
            after = {"Topk": {"topk": self.topk} | names}
        if self.paddlex:
            network["model"] = self.model
        document = {
            "Global": {"model_name": self.paddlex or self.model},
            "PreProcess": {"transform_ops": self.preprocess.to_ops()},
            "PostProcess": after,
            OWN: {"network": network, **self.about},
        }
        if self.calibration:
            document[OWN][calibration.KEY] = self.calibration.to_plain()
        return to_yaml(document)

    def to_texts(self) -> dict[str, str]:
        """What an ONNX file carries: this as YAML under OWN and, as JSON for programs of others,
        `task`, `input` and, where they are known, `class_names` and `thresholds`: a class is named
        where its probability is above its own.
        """
        found = {"task": self.task, "input": self.input}
        if self.labels:
            found["class_names"] = to_json(list(self.labels))
        if limits := self.limits():
            found["thresholds"] = to_json(limits)
        return {**found, OWN: self.to_yaml()}

    def limits(self) -> list[float]:
        """Of each class the probability above which it is named; [] where the likeliest is."""
        own = self.threshold
        if self.task == "multilabel":
            return list(own) if isinstance(own, tuple) else [own] * len(self.labels)
        if self.default is not None and len(self.labels) == 2 and not isinstance(own, tuple):
            return [1 - own, own]
        return []

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the network's outputs are, in their order."""
        more = {"features": bool(self.features), "maps": self.maps is not None}
        return ("scores", *(name for name, there in more.items() if there))

    @property
    def named(self) -> int | None:
        """Classes that an answer names where nobody says how many; None: all above thresholds."""
        if self.task == "multilabel":
            return None
        # Of two classes of which one is decided on, that one.
        return self.topk if self.default is None else 1

    def answers(self, probabilities: np.ndarray) -> np.ndarray:
        """What is decided of probabilities [N, classes]: the classes int64 [N] or, in multilabel, 0
        and 1 of all, uint8 [N, classes].
        """
        if self.task == "multilabel":
            return (probabilities > np.array(self.threshold)).astype(np.uint8)
        if self.default is not None:
            return np.array([self.decide(row, 1)[0][0] for row in probabilities])
        return probabilities.argmax(axis=1)

    def decide(self, row: np.ndarray, topk: int) -> tuple[np.ndarray, np.ndarray]:
        """The class decided on and the likeliest of the others, and the probabilities to show.

        As PaddleClas does: of two classes the second from the threshold on, else the first, with
        what is left of 1; of more the likeliest above the threshold, else the default.

        Args:
            row: probabilities [classes].
        """
        order = np.argsort(-row, kind="stable")
        if len(row) == 2:
            answer = int(row[1] >= self.threshold)
            row = np.array([1 - row[1], row[1]], row.dtype)
        else:
            answer = order[0] if row[order[0]] > self.threshold else self.default
        others = order[order != answer]
        return np.array([answer, *others])[:topk], row


def read(
    folder: Path,
    given: dict[str, Any] | None = None,
    text: str | None = None,
    calibrated: bool = True,
) -> Manifest:
    """The manifest of an exported folder.

    PaddleClas writes no name of the network where none was asked for; it is the folder's then.

    Args:
        given: fields of a Preprocess which, with `crop` among them, stand in for `PreProcess`
            where that says what cannot be represented.
        text: in place of the folder's file: what a file at `folder` carries in itself.
        calibrated: False leaves its calibration out, unread.

    Raises:
        UserError: no such folder, no manifest, or one that cannot be understood.
    """
    path = folder / FILE if text is None else folder
    if not path.is_file():
        what = "has no" if folder.is_dir() else "does not exist, so there is no"
        raise UserError(f"{folder}: {what} {FILE}; make such a folder with tools/export.py")
    stands_in = "crop" in (given or {})
    try:
        document = load(read_file(path).decode() if text is None else text)
        if document is None:
            raise UserError(f"{path}: is empty; export it or copy it again")
        before = document.get("PreProcess", {}) if stands_in else document["PreProcess"]
        ops = before.get("transform_ops") if stands_in else before["transform_ops"]
        after = document.get("PostProcess") or {}
        kind = next((name for name in (SEVERAL, DECIDED) if name in after), "Topk")
        top = after.get(kind) or {}
        labels = read_labels(top, folder)
        named = (document.get("Global") or {}).get("model_name")
        if named is not None and not isinstance(named, str):
            raise ValueError(f"Global.model_name should be a name, not {quoted(named)}")
        model = named or folder.resolve().name
        topk = max(1, read_whole("topk", 5 if top.get("topk") is None else top["topk"]))
        about = dict(document.get(OWN, {}))
        network = about.pop("network", None) or {
            "output": None if OWN not in document else OUTPUTS[0]
        }
        if kind == SEVERAL:
            network = {"task": "multilabel"} | network
        apart = {key: network.pop(key, None) for key in ("model", "thresholds")}
        known = about.pop(calibration.KEY, None)
        features = read_whole("features", network.pop("features", 0))
        maps = read_maps(network.pop("map", None))
        fields: dict[str, Any] = read_network(network) | {"features": features, "maps": maps}
        if kind == DECIDED:
            fields["default"] = read_whole(
                "default_label_index", top.get("default_label_index", 0), len(labels) or MOST
            )
        threshold = apart["thresholds"] or top.get("threshold", THRESHOLD)
        fields["threshold"] = read_thresholds(threshold, len(labels))
        if apart["model"]:
            if not isinstance(apart["model"], str):
                raise ValueError(f"{OWN}.network.model should be a name")
            model, fields["paddlex"] = apart["model"], model
        one_class = kind == "Topk" and fields.get("task") != "multilabel"
        fields["calibration"] = read_calibration(known if calibrated else None, one_class)
    except UserError as error:
        at = "" if str(error).startswith(str(folder)) else f"{path}: "
        raise UserError(*(at + line for line in error.lines)) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except RecursionError:
        raise UserError(f"{path}: lists or mappings stand too deep in each other") from None
    except (
        yaml.YAMLError,
        KeyError,
        TypeError,
        AttributeError,
        ValueError,
        ArithmeticError,
    ) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        reason = visible(" ".join(reason.split()), 500)
        raise UserError(f"{path}: not the manifest of an exported network: {reason}") from None
    try:
        preprocess = Preprocess.from_ops(ops)
    except (ValueError, ArithmeticError, TypeError) as error:
        if stands_in:
            return Manifest(model, Preprocess(), labels, topk, about=about, **fields)
        advice = "--resize 256 --crop 224 and the like say it otherwise"
        reason = visible(" ".join(str(error).split()), 500)
        raise UserError(f"{path}: PreProcess: {reason}; {advice}") from None
    return Manifest(model, preprocess, labels, topk, about=about, **fields)


def with_calibration(text: str, made: Calibration) -> str:
    """The manifest, whoever wrote it, with a calibration in place of what it has of one."""
    document = load(text)
    own = document.setdefault(OWN, {"network": {"output": None}})
    own[calibration.KEY] = made.to_plain()
    return to_yaml(document)


def calibration_in(text: str) -> dict[str, Any]:
    """What a manifest has of a calibration, unchecked; {} of none."""
    found = (load(text).get(OWN) or {}).get(calibration.KEY)
    return found if isinstance(found, dict) else {}


def load(text: str) -> Any:
    """A YAML document in which names are the text that stands there: `no`, `007` and `2024-05-01`
    are no boolean, number and date.
    """
    node = compose(text)
    as_text(node, False)
    return construct(node) if node else None


def as_text(node: yaml.Node | None, named: bool) -> None:
    """Make texts of the scalars below a key of TEXTS, or of all of them where `named`."""
    if isinstance(node, yaml.ScalarNode) and named:
        node.tag = "tag:yaml.org,2002:str"
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            as_text(child, named)
    elif isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            as_text(key, named)
            as_text(child, named or key.value in TEXTS)


def read_calibration(value: Any, one_class: bool) -> Calibration | None:
    """What is said of a calibration; UserError where it is damaged, or cannot be."""
    if value is None:
        return None
    if not one_class:
        raise UserError(f"{OWN}.{calibration.KEY}: is for networks with one class an image")
    return calibration.read(value)


def read_labels(top: dict[str, Any], folder: Path) -> tuple[str, ...]:
    """The class names of a post-processing step: a list, or names by number, or a file of them."""
    listed = top.get("label_list")
    if isinstance(listed, dict):
        entries = [
            ("label_list", read_whole("label_list", key), name) for key, name in listed.items()
        ]
        return by_number(entries, "label_list")
    if listed:
        if not isinstance(listed, list) or not all(isinstance(n, str) and n for n in listed):
            raise ValueError("label_list should be a list of class names")
        return tuple(listed)
    if "label_0" in top or "label_1" in top:
        return (top.get("label_0", "0"), top.get("label_1", "1"))
    file = top.get("class_id_map_file")
    if not file or file in ("None", "null", "~"):
        return ()
    if (folder / file).is_file():
        return read_class_names(folder / file)
    say(f"note: {folder / FILE}: {file} is not there, so classes have no names: give labels")
    return ()


def read_maps(value: Any) -> MapShape | None:
    """The shape of maps; ValueError for what is none."""
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) != set(MapShape._fields):
        raise ValueError(f"{OWN}.network.map should be {', '.join(MapShape._fields)}")
    shape = MapShape(**{key: read_whole(f"map.{key}", size) for key, size in value.items()})
    if not all(shape):
        raise ValueError(f"{OWN}.network.map: {quoted(dict(value))} should be numbers from 1")
    return shape


def read_network(network: dict[str, Any]) -> dict[str, Any]:
    """The fields that tell what goes into the network and comes out; ValueError for others."""
    allowed = {
        "input": INPUTS,
        "output": (*OUTPUTS, None),
        "precision": PRECISIONS,
        "dynamic_size": (False, True),
        "task": TASKS,
    }
    for key, value in network.items():
        if key not in allowed or value not in allowed[key]:
            raise ValueError(f"{OWN}.network.{key}: {value!r} is not one this version knows")
    return network


def read_thresholds(value: Any, classes: int) -> float | tuple[float, ...]:
    """PaddleX's threshold: a number, one for each class, or {default: 0.5, 3: 0.7} by class."""
    if isinstance(value, dict):
        rest = read_share(value.get("default", THRESHOLD))
        given = {
            read_whole("threshold", key): read_share(own)
            for key, own in value.items()
            if key != "default"
        }
        return tuple(given.get(i, rest) for i in range(classes))
    return tuple(map(read_share, value)) if isinstance(value, list) else read_share(value)


def read_whole(key: str, value: Any, above: int = MOST) -> int:
    """A whole number below `above`, written in any way; ValueError for all else."""
    if isinstance(value, str):
        value = whole_number(value.strip())
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < above or value != int(value):
        raise ValueError(f"{key} should be a whole number from 0 to below {above:,}")
    return int(value)


def read_share(value: Any) -> float:
    """A threshold; ValueError for what is no number from 0 to 1."""
    if isinstance(value, str):
        value = decimal(value.strip())
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= 1:
        raise ValueError(f"threshold: should be a number from 0 to 1, not {quoted(value)}")
    return float(value)
