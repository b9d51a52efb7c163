"""What a recipe's author is told who uses a word of another project, or a word out of place."""

import pytest

from ppcls.cli import main

MEANT = {  # an override → what was meant
    "train.optimizer.kind=adamW": "did you mean 'adamw'?",
    "train.optimizer.kind=AdamWDL": "did you mean 'adamw'?",
    "train.optimizer.kind=RMSprop": "did you mean 'rmsprop'?",
    "train.transforms.0.op=random_rotation": "did you mean 'rotation'?",
    "train.transforms.0.op=RandomHorizontalFlip": "did you mean 'horizontal_flip'?",
    "train.transforms.0.op=RandFlipImage": "did you mean 'horizontal_flip'?",
    "train.transforms.0.op=RandCropImage": "did you mean 'random_resized_crop'?",
    "train.transforms.0.op=RandCropImageV2": "did you mean 'random_crop'?",
    "train.transforms.0.op=ColorJitter": "did you mean 'color_jitter'?",
    "train.transforms.0.op=CoarseDropout": "did you mean 'cutout'?",
    "train.transforms.0.op=RandomErase": "did you mean 'random_erasing'?",
    "train.transforms.0.op=TimmAutoAugment": "did you mean 'auto_augment'?",
    "train.transforms.0.op=NormalizeImage": "preprocess.mean and preprocess.std normalise; leave it out",  # noqa: E501
    "train.transforms.0.op=mixup": "'mixup' stands under train.batch_transforms",
    "train.batch_transforms=[{op: MixupOperator}]": "did you mean 'mixup'?",
    "train.transforms.1.p=0.3": "did you mean 'prob'?",
    "train.lr=0.1": "it is 'train.schedule.lr'",
    "learning_rate=0.1": "it is 'train.schedule.lr'",
    "epochs=3": "it is 'train.epochs'",
    "batch_size=3": "it is 'train.batch_size' or 'eval.batch_size'",
    "train.momentum=0.9": "it is 'train.optimizer.momentum'",
    "train.weight_decay=1e-4": "it is 'train.optimizer.weight_decay'",
    "train.num_classes=10": "it is 'model.num_classes'",
    "train.label_smoothing=0.1": "it is 'task.loss.smoothing'",
    "train.schedule.warmup_epochs=5": "did you mean 'warmup'?",
    "train.schedule.decay.kind=CosineAnnealingLR": "did you mean 'cosine'?",
    "train.schedule.decay.kind=MultiStepLR": "did you mean 'piecewise'?",
    "train.schedule.decay.kind=ReduceLROnPlateau": "did you mean 'plateau'?",
    "task.loss.kind=CELoss": "did you mean 'cross_entropy'?",
    "task.loss.kind=FocalLoss": "did you mean 'focal'?",
    "model.pretrained=true": "did you mean 'weights'?",
    "model.class_num=3": "did you mean 'num_classes'?",
    "data.num_workers=2": "did you mean 'workers'?",
    "data.val=x": "did you mean 'eval'?",
    "data.transforms=x": "it is 'train.transforms'",
    "train.scheduler.lr=1": "did you mean 'schedule'?",
    "train.sampler.kind=WeightedRandomSampler": "did you mean 'weighted'?",
    "Arch.name=ResNet50": "a config of PaddleClas becomes a recipe with tools/import_paddleclas.py",
    "train.transforms.0.op=foo": "known: random_resized_crop, horizontal_flip, ",
    "train.optimizer.beta1=0.9": "only adam, adamw, ",
    "train.fp16=true": "did you mean 'precision'?",
    "train.shuffle=false": "did you mean 'sampler'?",
    "data.test=x": "did you mean 'eval'?",
    "train.mixup=0.2": "did you mean 'batch_transforms'?",
    "train.resume=true": "it is an option of the command and no key: --resume",
    "train.xyzzy=1": "known: accumulate, ",
    "data.q=1": "known: builtin, ",
}
MAPPINGS = {
    "train.sampler=weighted": "should be a mapping, with kind among its keys: {kind: weighted}",
    "task=multilabel": "should be a mapping, with kind among its keys: {kind: multilabel}",
    "train.batch_transforms=[mixup]": "should be a mapping, with op among its keys: {op: mixup}",
    "train.batch_transforms=mixup": "should be a list, [ … ] (got 'mixup')",
}
NOT_HERE = "its family is not here (yet); here are ResNet, SE_ResNet, "
NAMES = {
    "ShuffleNetV2_x1_0": NOT_HERE,
    "PPLCNetV2_base": NOT_HERE,
    "vit_base_patch16_224": NOT_HERE,
    "SwinTransformer_tiny_patch4_window7_224": NOT_HERE,
    "RegNetY_4GF": NOT_HERE,
    "tf_efficientnetv2_s": NOT_HERE,
    "wide_resnet50_2": NOT_HERE,
    "ResNet50V2": NOT_HERE,
    "resnet50": "did you mean 'ResNet50'?",
    "resnet50.a1_in1k": "did you mean 'ResNet50'?",
    "resnet50d": "did you mean 'ResNet50_vd'?",
    "tf_efficientnet_b0_ns": "did you mean 'EfficientNetB0'?",
    "efficientnet_lite0": "did you mean 'EfficientNetLite0'?",
    "ig_resnext101_32x16d": "did you mean 'ResNeXt101_32x16d_wsl'?",
    "seresnet50": "did you mean 'SE_ResNet50_vd'?",
    "resnest50d": "did you mean 'ResNeSt50'?",
    "regnetx_040": "did you mean 'RegNetX_4GF'?",
    "regnetx_032": "did you mean 'RegNetX_3200MF'?",
    "regnet_x_1_6gf": "did you mean 'RegNetX_1600MF'?",
    "regnet_x_400mf": "did you mean 'RegNetX_400MF'?",
    "res2net50_26w_4s": "did you mean 'Res2Net50_26w_4s'?",
    "ResNet5": "did you mean 'ResNet50'",
    "ResNte50": "did you mean 'ResNet50'",
}


@pytest.fixture
def told(workdir, capsys):
    """The one line that a recipe with an override ends in, behind what is wrong."""
    (workdir / "small.yaml").write_text(
        "_base_: recipe.yaml\ntrain: {ops: [{op: random_resized_crop}, {op: horizontal_flip}]}\n"
    )

    def told(override):
        assert main(["show-data", "-c", "small.yaml", "-o", override]) == 2
        line, *more = capsys.readouterr().err.splitlines()
        return line, more

    return told


@pytest.mark.parametrize("override", MEANT)
def test_a_word_of_another_project_or_place(told, override):
    line, more = told(override)
    assert line.startswith(f"error: -o {override}: ")
    assert f"; {MEANT[override]}" in line
    assert not more or "unknown" not in more[0]


@pytest.mark.parametrize("override", MAPPINGS)
def test_a_word_in_the_place_of_several_keys(told, override):
    line, _ = told(override)
    assert line.startswith(f"error: -o {override}: ")
    assert MAPPINGS[override] in line


@pytest.mark.parametrize("name", NAMES)
def test_a_network_under_another_name(told, name):
    line, more = told(f"model.name={name}")
    assert f"unknown model {name!r}; {NAMES[name]}" in line
    assert not more
