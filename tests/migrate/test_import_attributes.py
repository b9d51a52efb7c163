"""A config of people's attributes, in PULC's form: several labels, images that are no squares."""

import pytest

from ppcls.data.preprocess import Preprocess

TRAIN = "DataLoader.Train.dataset"
EVAL = "DataLoader.Eval.dataset"
NORMALIZE = {"scale": "1.0/255.0", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
DECODE = {"DecodeImage": {"to_rgb": True, "channel_first": False}}
WHOLE = {"ResizeImage": {"size": [192, 256]}}
END = {"NormalizeImage": {**NORMALIZE, "order": ""}}
ERASING = {"EPSILON": 0.4, "sl": 0.02, "sh": "1.0/3.0", "r1": 0.3, "mean": [0.0, 0.0, 0.0]}


@pytest.fixture
def attributes(old):
    """26 attributes of people, 192 wide and 256 high; another known network in its own's place."""
    augment = {"prob": 0.8, "config_str": "rand-m9-mstd0.5-inc1", "interpolation": "bicubic"}
    old.set("Arch", {"name": "ResNet50_vd", "class_num": 26, "pretrained": True, "use_ssld": True})
    old.set(
        "Loss.Train", [{"MultiLabelLoss": {"weight": 1.0, "weight_ratio": True, "size_sum": True}}]
    )
    old.set("Loss.Eval", [{"MultiLabelLoss": {"weight": 1.0}}])
    old.set("Metric.Eval", [{"ATTRMetric": None}])
    old.set("Global.use_multilabel", True).set("Global.image_shape", [3, 256, 192])
    for part in (TRAIN, EVAL):
        old.set(f"{part}.name", "MultiLabelDataset").set(f"{part}.label_ratio", True)
    ops = [
        DECODE,
        WHOLE,
        {"TimmAutoAugment": {**augment, "img_size": [192, 256]}},
        {"Padv2": {"size": [212, 276], "pad_mode": 1, "fill_value": 0}},
        {"RandomCropImage": {"size": [192, 256]}},
        {"RandFlipImage": {"flip_code": 1}},
        END,
        {"RandomErasing": ERASING},
    ]
    old.set(f"{TRAIN}.transform_ops", ops).set(f"{EVAL}.transform_ops", [DECODE, WHOLE, END])
    old.set("Infer.transforms", [DECODE, WHOLE, END, {"ToCHWImage": None}])
    after = {"name": "PersonAttribute", "threshold": 0.5, "glasses_threshold": 0.3}
    return old.set("Infer.PostProcess", after)


def test_a_config_of_attributes(attributes):
    recipe = attributes.convert()
    assert recipe.model.num_classes == 26
    assert recipe.task.kind == "multilabel"
    assert recipe.task.loss.kind == "bce"
    assert recipe.task.loss.frequencies == "counted"
    assert recipe.task.loss.reduction == "sum"
    assert recipe.preprocess == Preprocess(fit="squash", crop=(256, 192))
    assert recipe.train_size == (256, 192)
    kinds = [op.op for op in recipe.train.transforms]
    assert kinds == [
        "resize",
        "random_apply",
        "pad",
        "random_crop",
        "horizontal_flip",
        "random_erasing",
    ]
    assert recipe.train.transforms[2].pixels == (10, 10, 10, 10)
    assert recipe.train.transforms[5].scale == (0.02, 0.333333)
    assert not recipe.train.without
    remarks = "\n".join(f"{key}: {text}" for key, text in attributes.remarks.items())
    assert "ResizeImage" not in remarks
    assert "RandomCropImage" not in remarks
    assert "Infer.transforms" not in remarks
    assert "label_ratio" not in remarks
    assert "MultiLabelLoss" not in remarks
