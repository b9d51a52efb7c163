"""Small configs in PaddleClas's form, written here, and their conversion."""

import copy

import pytest
import yaml
from paddleclas_rows import FREE, FROZEN

from ppcls.config.load import load
from ppcls.migrate.convert import convert, recipe_text
from ppcls.recipe import Recipe

NORMALIZE = {"scale": "1.0/255.0", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
LIST = {"name": "ImageNetDataset", "image_root": "./photos/"}
OLD = {
    "Global": {"epochs": 20, "output_dir": "./output/", "device": "gpu"},
    "Arch": {"name": "ResNet18", "class_num": 1000},
    "Loss": {"Train": [{"CELoss": {"weight": 1.0}}]},
    "Optimizer": {
        "name": "Momentum",
        "momentum": 0.9,
        "lr": {"name": "Cosine", "learning_rate": 0.1},
        "regularizer": {"name": "L2", "coeff": 0.0001},
    },
    "DataLoader": {
        "Train": {
            "dataset": {
                **LIST,
                "cls_label_path": "./photos/train.txt",
                "transform_ops": [
                    {"DecodeImage": {"to_rgb": True, "channel_first": False}},
                    {"RandCropImage": {"size": 224, "use_log_aspect": True}},
                    {"RandFlipImage": {"flip_code": 1}},
                    {"NormalizeImage": {**NORMALIZE, "order": ""}},
                ],
            },
            "sampler": {"name": "DistributedBatchSampler", "batch_size": 64, "drop_last": False},
            "loader": {"num_workers": 4, "use_shared_memory": True},
        },
        "Eval": {
            "dataset": {
                **LIST,
                "cls_label_path": "./photos/val.txt",
                "transform_ops": [
                    {"DecodeImage": {"to_rgb": True}},
                    {"ResizeImage": {"resize_short": 256}},
                    {"CropImage": {"size": 224}},
                    {"NormalizeImage": {**NORMALIZE}},
                ],
            },
            "sampler": {"batch_size": 32, "drop_last": False, "shuffle": False},
            "loader": {"num_workers": 4},
        },
    },
    "Metric": {"Eval": [{"TopkAcc": {"topk": [1, 5]}}]},
}


class Old:
    """A config that is changed by dotted keys, and what becomes of it."""

    def __init__(self, path):
        self.path, self.values = path, copy.deepcopy(OLD)

    def set(self, key, value):
        *parents, last = key.split(".")
        node = self.values
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
        return self

    def train_op(self, name, **arguments):
        """One more op before normalising."""
        ops = self.values["DataLoader"]["Train"]["dataset"]["transform_ops"]
        ops.insert(-1, {name: arguments or None})
        return self

    def write(self):
        self.path.write_text(yaml.safe_dump(self.values, sort_keys=False))
        return self.path

    def convert(self, cards=4):
        """The recipe, checked to be what its file says, and the remarks by key."""
        converted = convert(self.write(), cards)
        new = self.path.with_name("new.yaml")
        new.write_text(recipe_text(converted, self.path))
        lines, self.remarks = self.path.read_text().splitlines(), {}
        for remark in converted.remarks:  # a key that is left out has the line of what it is in
            assert any(part in lines[remark.line - 1] for part in remark.key.split(".")[-2:])
            self.remarks[remark.key] = self.remarks.get(remark.key, "") + remark.text
        return load(Recipe, new)

    def distilled(self, losses, teacher=FROZEN, student=FREE, flags=(True, False)):
        """The recipe of a distillation."""
        models = [{"Teacher": teacher}, {"Student": student}]
        arch = {"name": "DistillationModel", "class_num": 1000, "models": models}
        if flags:
            arch["freeze_params_list"] = list(flags)
        self.set("Arch", {**arch, "infer_model_name": "Student"})
        return self.set("Loss.Train", losses).convert()

    def said(self, end):
        """What is said of the one key that ends so."""
        (text,) = [text for key, text in self.remarks.items() if key.endswith(end)]
        return text


@pytest.fixture
def old(tmp_path):
    return Old(tmp_path / "old.yaml")
