"""Ops on images and batches: what a recipe says of each, and what is remarked."""

import pytest
from paddleclas_rows import subset

from ppcls.config.load import to_plain
from ppcls.data.preprocess import Preprocess
from ppcls.migrate.transforms import MIXING, OPS
from ppcls.utils.errors import UserError

TRAIN = "DataLoader.Train.dataset"


def added(recipe):
    """The ops beside the two of every test."""
    return [to_plain(op) for op in recipe.train.transforms[2:]]


def half(*ops):
    return {"op": "random_apply", "prob": 0.5, "ops": list(ops)}


RAND = {"op": "rand_augment", "num_ops": 1, "magnitude": 9.0, "magnitude_std": 0.5}
OP_ROWS = [
    ("CropImage", {"size": 224}, [{"op": "center_crop"}], ""),
    ("CenterCrop", {"size": 224}, [{"op": "center_crop"}], ""),
    ("RandCropImageV2", {"size": 224}, [{"op": "random_crop"}], ""),
    ("RandomCropImage", {"size": 224}, [{"op": "random_crop"}], ""),
    (
        "RandCropImage",
        {"size": 224, "scale": [0.25, 1], "interpolation": "random", "backend": "pil"},
        [{"op": "random_resized_crop", "scale": [0.25, 1.0], "interpolation": "random"}],
        "log scale",
    ),
    (
        "RandomResizedCrop",
        {"size": 224, "ratio": [0.5, 2.0]},
        [{"op": "random_resized_crop", "ratio": [0.5, 2.0], "backend": "cv2"}],
        "",
    ),
    (
        "ResizeImage",
        {"size": 224, "backend": "pil"},
        [{"op": "resize", "backend": "pil", "interpolation": "bicubic"}],
        "",
    ),
    (
        "ResizeImage",
        {"resize_short": 256, "interpolation": "hamming"},
        [{"op": "resize_short", "pixels": 256, "interpolation": "bilinear"}],
        "hamming is not known",
    ),
    ("Resize", {"size": [224, 224]}, [{"op": "resize"}], ""),
    ("RandFlipImage", {"flip_code": 0}, [{"op": "vertical_flip", "prob": 0.5}], ""),
    (
        "RandFlipImage",
        {"flip_code": -1},
        [half({"op": "horizontal_flip", "prob": 1.0}, {"op": "vertical_flip", "prob": 1.0})],
        "",
    ),
    ("RandomHorizontalFlip", {"prob": 0.3}, [{"op": "horizontal_flip", "prob": 0.3}], ""),
    (
        "RandomRotation",
        {"degrees": 30, "interpolation": "bilinear"},
        [half({"op": "rotation", "degrees": [-30.0, 30.0]})],
        "",
    ),
    (
        "RandomRotation",
        {"degrees": [0, 90], "prob": 1},
        [{"op": "rotation", "degrees": [0.0, 90.0]}],
        "bilinear",
    ),
    (
        "ColorJitter",
        {"brightness": 0.4, "hue": 0.1},
        [{"op": "color_jitter", "brightness": 0.4, "hue": 0.1, "contrast": 0.0}],
        "",
    ),
    ("ColorJitter", {"contrast": 0.4, "prob": 0.5}, [half({"contrast": 0.4})], ""),
    ("RandomGrayscale", {"p": 0.2}, [{"op": "grayscale", "prob": 0.2}], ""),
    ("PCALighting", {}, [{"op": "lighting", "std": 0.1}], ""),
    ("Pad", {"padding": 4}, [{"op": "pad", "pixels": [4, 4, 4, 4], "mode": "constant"}], ""),
    (
        "Pad",
        {"padding": [1, 2, 3, 4], "padding_mode": "edge", "fill": [7, 8, 9]},
        [{"op": "pad", "pixels": [1, 2, 3, 4], "mode": "edge", "fill": 7}],
        "one value for all channels",
    ),
    ("Padv2", {"size": 231}, [{"op": "pad", "pixels": [0, 0, 7, 7], "fill": 127}], ""),
    (
        "Padv2",
        {"size": [231, 231], "pad_mode": 1, "fill_value": [5, 6, 7]},
        [{"op": "pad", "pixels": [3, 3, 4, 4], "fill": 5}],
        "one value for all channels",
    ),
    ("Padv2", {"size": 231, "pad_mode": 2}, [{"op": "pad", "pixels": [7, 7, 0, 0]}], ""),
    ("Padv2", {"size": 220}, [], "not known before an image is read"),
    (
        "Padv2",
        {"size": [244, 264], "pad_mode": 1, "fill_value": 0},
        [{"op": "pad", "pixels": [10, 20, 10, 20], "fill": 0}],
        "",
    ),
    ("Padv2", {"size": [244, 220]}, [], "not known before an image is read"),
    ("RandomErasing", {"EPSILON": 0.0}, [], ""),
    ("ColorJitter", {"hue": 0.1, "prob": 0}, [], ""),
    (
        "RandomApply",
        {"p": 0.5, "transforms": [{"RandFlipImage": {"flip_code": 0}}, {"AutoAugment": None}]},
        [half({"op": "vertical_flip"}, {"op": "auto_augment"})],
        "to both sides here",
    ),
    ("AutoAugment", {}, [{"op": "auto_augment"}], "to both sides here"),
    (
        "RandAugment",
        {"num_layers": 3, "magnitude": 5},
        [{"op": "rand_augment", "num_ops": 3, "magnitude": 5.0, "magnitude_std": 0.0}],
        "without invert",
    ),
    ("RandAugmentV2", {"magnitude": 5}, [{"op": "rand_augment"}], "its own table"),
    ("RandAugmentV3", {"magnitude": 5}, [{"op": "rand_augment"}], "its own table"),
    ("RandAugmentV4", {}, [{"op": "rand_augment", "num_ops": 2}], "its own table"),
    (
        "TimmAutoAugment",
        {"config_str": "rand-m9-mstd0.5-inc1", "interpolation": "bilinear", "img_size": 224},
        [half(RAND), half(RAND)],
        "without invert and solarize_add",
    ),
    ("TimmAutoAugment", {"config_str": "original-mstd0.5"}, [{"op": "auto_augment"}], ""),
    ("TimmAutoAugment", {"config_str": "v0"}, [{"op": "auto_augment"}], "policy of the paper"),
    (
        "TimmAutoAugment",
        {"config_str": "augmix-m5-w4", "prob": 0.5},
        [half({"op": "augmix", "severity": 5.0, "width": 4})],
        "",
    ),
    (
        "AugMix",
        {"aug_severity": 3, "mixture_depth": -1},
        [half({"op": "augmix", "severity": 3.0, "width": 3, "alpha": 0.1, "depth": None})],
        "",
    ),
    ("AugMix", {"prob": 1}, [{"op": "augmix", "severity": 1.0, "depth": 1}], ""),
    (
        "RandomErasing",
        {"EPSILON": 0.25, "sl": 0.02, "sh": "1.0/3.0", "r1": 0.3, "mode": "pixel"},
        [
            {
                "op": "random_erasing",
                "prob": 0.25,
                "scale": [0.02, 0.333333],
                "ratio": [0.3, 3.333333],
                "mode": "pixel",
            }
        ],
        "log scale",
    ),
    (
        "RandomErasing",
        {"mean": [0.0, 0.0, 0.0], "attempt": 10, "use_log_aspect": True},
        [{"op": "random_erasing", "prob": 0.5, "mode": "constant"}],
        "",
    ),
    ("Cutout", {"length": 112}, [{"op": "cutout", "holes": 1, "length": 112}], ""),
    ("HideAndSeek", {}, [{"op": "hide_and_seek", "prob": 0.5, "mode": "constant"}], ""),
    (
        "GridMask",
        {"d1": 96, "d2": 224, "rotate": 360, "ratio": 0.6, "mode": 1, "prob": 0.8},
        [
            {
                "op": "grid_mask",
                "prob": 0.8,
                "unit": [96, 223],
                "ratio": 0.6,
                "rotate": 359.0,
            }
        ],
        "does not grow",
    ),
    ("GridMask", {}, [{"op": "grid_mask", "rotate": 0.0}], "not the bars"),
    ("ToCHWImage", {}, [], ""),
    ("ToTensor", {}, [], ""),
]


@pytest.mark.parametrize(("name", "given", "expected", "said"), OP_ROWS)
def test_training_ops(old, name, given, expected, said):
    recipe = old.train_op(name, **given).convert()
    assert subset(expected, added(recipe))
    own = [text for key, text in old.remarks.items() if name in key]
    assert any(said in text for text in own) if said else not own


def test_every_op_has_a_row():
    shared = {"DecodeImage", "NormalizeImage", "Normalize"}  # in every config
    assert {row[0] for row in OP_ROWS} | shared == set(OPS)


def test_after_normalising_zero_is_the_mean_colour(old):
    ops = old.values["DataLoader"]["Train"]["dataset"]["transform_ops"]
    ops += [{"Cutout": {"length": 56}}, {"RandomErasing": {"use_log_aspect": True}}]
    assert [op["mode"] for op in added(old.convert())] == ["mean", "mean"]


def test_an_op_that_is_not_known_is_listed_and_said_in_the_log(old):
    recipe = old.train_op("RandomRot90", orientation=1).convert()
    key = "DataLoader.Train.dataset.transform_ops.3.RandomRot90"
    assert old.remarks[key] == "this op is not known here: not carried over"
    assert recipe.train.without == ("RandomRot90",)


def test_sizes_of_training_and_evaluation(old):
    for op in old.values["DataLoader"]["Eval"]["dataset"]["transform_ops"]:
        if "CropImage" in op:
            op["CropImage"]["size"] = 256
    recipe = old.convert()
    assert (recipe.train_size, recipe.preprocess.crop) == (224, 256)


def test_a_resize_before_a_crop_keeps_the_shape(old):
    ops = [{"ResizeImage": {"size": 256}}, {"RandomCropImage": {"size": 224}}]
    recipe = old.set(f"{TRAIN}.transform_ops", ops).convert()
    assert [op.op for op in recipe.train.transforms] == ["resize_short", "random_crop"]
    assert recipe.train.transforms[0].pixels == 256
    assert recipe.train_size == 224
    assert "keeps its shape" in old.remarks[f"{TRAIN}.transform_ops.0.ResizeImage.size"]


BATCH_ROWS = [
    ({"MixupOperator": {"alpha": 0.2}}, [("mixup", 0.2, 1.0)]),
    ({"MixupOperator": None}, [("mixup", 1.0, 1.0)]),
    ({"CutmixOperator": None}, [("cutmix", 0.2, 1.0)]),
    ({"FmixOperator": {"alpha": 1, "decay_power": 3}}, [("fmix", 1.0, 1.0)]),
    (
        {
            "OpSampler": {
                "MixupOperator": {"alpha": 0.8, "prob": 0.5},
                "CutmixOperator": {"prob": 0.25},
            }
        },
        [("mixup", 0.8, 0.5), ("cutmix", 0.2, 0.25)],
    ),
    (
        {
            "MixupCutmixHybrid": {
                "mixup_alpha": 0.8,
                "cutmix_alpha": 1.0,
                "prob": 0.8,
                "switch_prob": 0.25,
            }
        },
        [("mixup", 0.8, 0.6), ("cutmix", 1.0, 0.2)],
    ),
    ({"MixupCutmixHybrid": {"prob": 0.5}}, [("mixup", 1.0, 0.5)]),
]


@pytest.mark.parametrize(("given", "expected"), BATCH_ROWS)
def test_batch_ops(old, given, expected):
    recipe = old.set(f"{TRAIN}.batch_transform_ops", [given]).convert()
    assert [(op.op, op.alpha, op.prob) for op in recipe.train.batch_transforms] == expected
    hybrid = "MixupCutmixHybrid" in given
    assert recipe.task.loss.smoothing == (0.1 if hybrid else 0.0)
    assert not any("batch_transform_ops" in key for key in old.remarks)


def test_probabilities_above_one_are_a_mistake(old):
    mixed = {"MixupOperator": {"alpha": 0.8, "prob": 1.0}, "CutmixOperator": {"prob": 0.5}}
    old.set(f"{TRAIN}.batch_transform_ops", [{"OpSampler": {"class_num": 1000, **mixed}}])
    with pytest.raises(UserError, match=r"old.yaml:\d+: .*OpSampler: the probs sum to 1.5"):
        old.convert()
    mixed["MixupOperator"]["prob"] = 0.5
    old.set(f"{TRAIN}.batch_transform_ops", [{"OpSampler": {"class_num": 1000, **mixed}}])
    assert [op.op for op in old.convert().train.batch_transforms] == ["mixup", "cutmix"]
    assert not any("class_num" in key for key in old.remarks)


def test_every_batch_op_has_a_row():
    assert {name for given, _ in BATCH_ROWS for name in given} == set(MIXING)


def test_preprocess(old):
    ops = [
        {"DecodeImage": {"to_rgb": False}},
        {"ResizeImage": {"resize_short": 240, "interpolation": "bicubic", "backend": "pil"}},
        {"CropImage": {"size": [224, 224]}},
        {"NormalizeImage": {"scale": 0.00392157, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}},
        {"ToCHWImage": None},
    ]
    key = "DataLoader.Eval.dataset.transform_ops"
    found = old.set(key, ops).convert().preprocess
    assert (found.resize, found.crop) == (240, 224)
    assert (found.interpolation, found.backend, found.mean) == ("bicubic", "pil", (0.5, 0.5, 0.5))
    assert "images are RGB" in old.remarks[f"{key}.0.DecodeImage.to_rgb"]
    assert "as for evaluation" in old.remarks[f"{TRAIN}.transform_ops.3.NormalizeImage.mean"]
    ops[1:3] = [{"ResizeImage": {"size": 224}}, {"Pad": {"padding": 4}}]
    found = old.set(key, ops).convert().preprocess
    assert (found.fit, found.crop) == ("squash", 224)
    assert f"{key}.2.Pad" in old.remarks


def test_predictions_that_are_prepared_otherwise_are_said(old):
    ops = [{"ResizeImage": {"resize_short": 224}}, {"CropImage": {"size": 224}}]
    old.set("Infer.transforms", [*ops, {"NormalizeImage": None}]).convert()
    assert "evaluation's ops" in old.remarks["Infer.transforms"]


def test_sizes_of_two_sides(old):
    """As PaddleClas's recipes of people's attributes have them: width before height."""
    ops = [
        {"ResizeImage": {"size": [192, 256]}},
        {"Padv2": {"size": [212, 276], "pad_mode": 1, "fill_value": 0}},
        {"RandomCropImage": {"size": [192, 256]}},
        {"RandFlipImage": {"flip_code": 1}},
    ]
    seen = [{"ResizeImage": {"size": [192, 256]}}, {"NormalizeImage": {}}]
    old.set("DataLoader.Eval.dataset.transform_ops", seen).set("Global.image_shape", [3, 256, 192])
    recipe = old.set(f"{TRAIN}.transform_ops", ops).convert()
    assert recipe.preprocess == Preprocess(fit="squash", crop=(256, 192))
    assert recipe.train_size == (256, 192)
    assert recipe.train.size is None
    assert [op.op for op in recipe.train.transforms] == [
        "resize",
        "pad",
        "random_crop",
        "horizontal_flip",
    ]
    assert recipe.train.transforms[1].pixels == (10, 10, 10, 10)
    assert not any("transform_ops" in key or "image_shape" in key for key in old.remarks)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ([{"ResizeImage": {"size": [160, 80]}}], Preprocess(fit="squash", crop=(80, 160))),
        ([{"ResizeImage": {"size": 224}}], Preprocess(fit="squash", crop=224)),
        (
            [{"ResizeImage": {"size": [256, 128]}}, {"CropImage": {"size": [224, 112]}}],
            Preprocess(resize=(128, 256), crop=(112, 224)),
        ),
        (
            [{"ResizeImage": {"size": 256}}, {"CropImage": {"size": 224}}],
            Preprocess(resize=(256, 256), crop=224),
        ),
        (
            [{"ResizeImage": {"resize_short": 256}}, {"CropImage": {"size": [192, 224]}}],
            Preprocess(resize=256, crop=(224, 192)),
        ),
        ([{"CropImage": {"size": [192, 224]}}], Preprocess(resize=224, crop=(224, 192))),
    ],
)
def test_evaluation_of_two_sides(old, seen, expected):
    recipe = old.set("DataLoader.Eval.dataset.transform_ops", seen).convert()
    assert recipe.preprocess == expected
    assert recipe.train_size == 224
    assert not any("DataLoader.Eval.dataset.transform_ops" in key for key in old.remarks)


def test_more_numbers_than_a_size_has(old):
    ops = [{"RandCropImage": {"size": [192, 256, 3, 1]}}]
    recipe = old.set(f"{TRAIN}.transform_ops", ops).convert()
    assert recipe.train.size == (256, 192)
    assert "192 wide, 256 high" in old.remarks[f"{TRAIN}.transform_ops.0.RandCropImage.size"]
    with pytest.raises(UserError, match=r"size should be whole numbers from 1, \[width, height\]"):
        old.set(f"{TRAIN}.transform_ops", [{"RandCropImage": {"size": [192, 0]}}]).convert()
