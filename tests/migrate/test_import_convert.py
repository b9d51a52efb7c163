"""Everything around the training: weights, data, precision, and mistakes."""

from pathlib import Path

import pytest
import yaml

from ppcls.config.node import Span
from ppcls.migrate.convert import convert
from ppcls.utils.errors import UserError

TRAIN = "DataLoader.Train.dataset"


def test_weights(old):
    def model(**arch):
        return old.set("Arch", {"name": "ResNet50_vd", **arch}).convert().model

    assert model(pretrained=False).weights is None
    assert model(class_num=1000, pretrained=True).weights == "true"
    assert not model(class_num=1000, pretrained=True).new_head
    found = model(class_num=7, pretrained=True, use_ssld=True)
    assert (found.weights, found.num_classes, found.new_head) == ("ssld", 7, True)
    assert model(pretrained="out/best_model").weights == "out/best_model"
    old.set("Global.pretrained_model", "https://host/x.pdparams").set("Global.class_num", 5)
    found = model(pretrained=True)
    assert (found.weights, found.num_classes) == ("https://host/x.pdparams", 5)
    assert "replaced" in old.remarks["Arch.pretrained"]


def test_rates_by_layer(old):
    recipe = old.set("Arch.lr_mult_list", [0, 0.1, 0.2, 0.3, 1.0]).convert()
    assert recipe.model.freeze == ()  # whose norms would stand in evaluation mode
    expected = {"stem.*": 0.0, "stages.0.*": 0.1, "stages.1.*": 0.2, "stages.2.*": 0.3}
    assert recipe.train.lr_scale == expected


def test_average_and_precision(old):
    train = old.convert().train
    assert (train.ema, train.precision) == (None, "fp32")
    amp = {"use_amp": False, "level": "O2", "scale_loss": 128.0}
    train = old.set("EMA", {"decay": 0.9996}).set("AMP", amp).convert().train
    assert (train.ema.decay, train.ema.warmup, train.precision) == (0.9996, False, "fp32")
    assert not [key for key in old.remarks if key.startswith("AMP")]
    train = old.set("AMP.use_amp", True).convert().train
    assert (train.precision, train.amp_level) == ("fp16", "O2")
    assert "AMP.scale_loss" in old.remarks
    del old.values["AMP"]["use_amp"]  # before 2.5 the section was enough
    assert old.convert().train.precision == "fp16"
    del old.values["AMP"], old.values["EMA"]
    old.set("AMP_BF16", {"use_pure_bf16": True}).set("Global.ema", {"enable": True, "decay": 0.99})
    train = old.convert().train
    assert (train.precision, train.amp_level) == ("bf16", "O2")
    assert (train.ema.decay, train.ema.warmup) == (0.99, True)


def test_how_often_where_and_with_what_seed(old):
    values = {"print_batch_step": 20, "save_interval": 5, "eval_interval": 2, "seed": 7}
    for key, value in {**values, "output_dir": "./runs_here", "device": "cpu"}.items():
        old.set(f"Global.{key}", value)
    recipe = old.convert()
    assert (recipe.train.log_every, recipe.train.save_every) == (20, Span(5, "epochs"))
    assert (recipe.eval.every, recipe.seed, recipe.device) == (2, 7, "cpu")
    assert str(recipe.folder) == "runs_here/ResNet18"
    assert "latest and the best" in old.remarks["Global.save_interval"]
    recipe = old.set("Global.eval_during_train", False).set("Global.device", "npu").convert()
    assert (recipe.eval.every, recipe.device) == (20, "auto")
    assert "npu is not known" in old.remarks["Global.device"]


@pytest.mark.parametrize("value", [-1, 0])
def test_a_config_may_save_no_file_an_epoch(old, value):
    recipe = old.set("Global.save_interval", value).convert()
    assert recipe.train.save_every == Span(1, "epochs")
    assert "latest and the best" in old.remarks["Global.save_interval"]


def test_what_matters_stands_first(old):
    for key in ("save_interval", "use_visualdl", "save_inference_dir"):
        old.set(f"Global.{key}", 1)
    old.set("Arch.data_format", "NHWC").set("Arch.dropout", 0.5).convert()
    lines = old.path.with_name("new.yaml").read_text().splitlines()
    said = [line for line in lines if line.startswith("# ") and "old.yaml" not in line][1:]
    assert [line for line in said if not line.startswith("#  ")] == [
        "# Here a run's numbers are others than PaddleClas's:",
        "# Said otherwise, or without a place here:",
        "# As of every config:",
    ]
    keys = list(old.remarks)
    assert keys[0] == "Arch.dropout"
    assert {key.partition(".")[0] for key in keys[-3:]} == {"Global"}
    assert set(keys[1:-3]) == {"Arch.data_format", "Optimizer.lr.learning_rate"}


def test_data(old, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = old.convert().data
    assert (data.train, data.eval, data.root) == ("photos/train.txt", "photos/val.txt", None)
    assert (data.class_names, data.workers) == (None, 4)
    post = {"name": "Topk", "topk": 5, "class_id_map_file": "ppcls/utils/imagenet1k_label_list.txt"}
    assert old.set("Infer.PostProcess", post).convert().data.class_names == "imagenet"
    old.set("Arch.class_num", 10)
    assert old.convert().data.class_names is None
    assert "ImageNet's names for 10 classes" in old.remarks["Infer.PostProcess.class_id_map_file"]
    old.set("Infer.PostProcess.class_id_map_file", "./mine/names.txt")
    old.set(f"{TRAIN}.image_root", "./elsewhere").set(f"{TRAIN}.delimiter", ";")
    assert old.convert().data.class_names is None  # which training does without
    assert "there is no such file" in old.remarks["Infer.PostProcess.class_id_map_file"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/names.txt").write_text("ant\n")
    data = old.convert().data
    assert (data.root, data.class_names) == ("elsewhere", "mine/names.txt")
    assert "elsewhere" in old.remarks["DataLoader.Eval.dataset.image_root"]
    assert f"{TRAIN}.delimiter" in old.remarks


def test_several_labels_a_photo(old):
    recipe = old.set(f"{TRAIN}.name", "MultiLabelDataset").convert()
    assert (recipe.task.kind, recipe.task.loss.kind) == ("multilabel", "bce")
    assert recipe.train.without == ()
    assert "mAP and F1 are" in old.remarks["Metric.Eval.0.TopkAcc"]
    assert any("several labels an image" in remark for remark in old.remarks.values())
    recipe = old.set("Loss.Train", [{"MultiLabelAsymmetricLoss": {"weight": 1.0}}]).convert()
    assert (recipe.task.kind, recipe.task.loss.kind) == ("multilabel", "asymmetric")
    old.set(f"{TRAIN}.name", "ImageNetDataset").set("Global.use_multilabel", True)
    assert old.convert().task.kind == "multilabel"


def test_data_sets_that_are_not_known(old):
    recipe = old.set(f"{TRAIN}.name", "Cifar10").convert()
    assert recipe.data.train is None
    assert recipe.train.without == ("data set Cifar10",)


def test_samplers(old):
    train, evaluation = "DataLoader.Train.sampler", "DataLoader.Eval.sampler"
    recipe = old.convert()
    assert (recipe.train.drop_last, recipe.eval.batch_size) == (False, 32)
    old.set(f"{train}.name", "PKSampler").set(f"{train}.shuffle", False)
    old.set(f"{train}.drop_last", True).set(f"{evaluation}.drop_last", True)
    recipe = old.convert()
    assert recipe.train.drop_last
    assert recipe.train.without == ("PKSampler",)
    said = {f"{train}.name", f"{train}.shuffle", f"{evaluation}.drop_last"}
    assert said <= set(old.remarks)


def test_unknown_keys_are_listed_with_their_lines(old):
    old.set("Global.epcohs", 3).set("Optimizer.lr.warmup_epochs", 5).set("Slim", {"quant": {}})
    old.set("Arch.dropout", 0.5).set("Mine", {"a": {"b": 1}, "c": 2})
    recipe = old.convert()
    unknown = "not known here: not carried over"
    listed = {key for key, text in old.remarks.items() if text == unknown}
    assert listed == {"Global.epcohs", "Optimizer.lr.warmup_epochs", "Arch.dropout", "Mine"}
    assert "ppcls quantize" in old.remarks["Slim"]
    assert recipe.train.without == ("Arch.dropout", "Optimizer.lr.warmup_epochs")


def test_what_asks_for_nothing_is_not_listed(old):
    asks_nothing = {
        "Global": {"checkpoints": None, "pretrained_model": None, "use_dali": False},
        "Arch": {"pretrained": False, "use_sync_bn": False, "data_format": "NCHW"},
        "Metric": {"Train": None},
    }
    for section, values in asks_nothing.items():
        for key, value in values.items():
            old.set(f"{section}.{key}", value)
    old.convert()
    assert set(old.remarks) == {"Optimizer.lr.learning_rate"}
    for key in ("Global.use_dali", "Arch.use_sync_bn"):
        old.set(key, True)
    old.set("Arch.data_format", "NHWC").set("Global.use_visualdl", False).convert()
    assert {"Global.use_dali", "Arch.use_sync_bn", "Arch.data_format"} <= set(old.remarks)
    assert "Global.use_visualdl" in old.remarks


def test_a_quoted_number_is_a_number(old):
    old.set("Global.epochs", "30").set("Optimizer.lr.learning_rate", "2e-1")
    train = old.convert().train
    assert (train.epochs, train.schedule.lr) == (30, 0.2)


@pytest.mark.parametrize(
    ("key", "value", "line", "problem"),
    [
        ("Arch.name", "ResNet18_vdd", "name: ResNet18_vdd", "did you mean 'ResNet18_vd'"),
        ("Arch.name", "MobileNetV1", "name: MobileNetV1", "unknown model 'MobileNetV1'"),
        ("Arch", {"name": "RecModel", "Backbone": {}}, "name: RecModel", "for retrieval"),
        ("Arch.class_num", "many", "class_num:", "should be a number"),
        ("Optimizer.name", "Adamm", "name: Adamm", "unknown optimizer 'Adamm'; known: SGD"),
        ("Optimizer.lr.learning_rate", "big", "learning_rate:", "should be a number"),
        ("Optimizer.lr.learning_rate", 0, "learning_rate:", "should be above 0"),
        ("Optimizer.lr", [1], "lr:", "should be a mapping"),
        ("Global.epochs", 1.5, "epochs:", "should be a valid integer"),
        ("DataLoader.Train.sampler", None, "sampler:", "batch_size is missing"),
        (f"{TRAIN}.transform_ops", [{"Cutout": 3}], "- Cutout: 3", "mapping of arguments"),
        (f"{TRAIN}.transform_ops", [{"Cutout": {"length": -1}}], "- Cutout", "greater than 0"),
    ],
)
def test_mistakes_are_one_line_with_its_place(old, key, value, line, problem):
    old.set(key, value)
    with pytest.raises(UserError) as raised:
        old.convert()
    (message,) = str(raised.value).splitlines()
    lines = old.path.read_text().splitlines()
    place = message.split(": ")[0]
    assert place.startswith(f"{old.path}:")
    assert line in lines[int(place.rpartition(":")[2]) - 1]
    assert problem in message


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("Global: {a: 1\nArch: [", ":2: not YAML"),
        ("- 1\n", ":1: "),
        ("", ":1: not a training config of PaddleClas: it has no Global"),
        ("Global: {epochs: 1}\n", ":1: not a training config of PaddleClas: it has no Arch"),
        ("model: {name: x}\ntrain: {}\n", "this is a ppcls recipe already"),
        ("mode: train\nARCHITECTURE: {name: x}\n", ":2: ARCHITECTURE: a config from before"),
        (
            "Global: {a: 1}\nDataLoader:\n  Train: {file_list: x}\n",
            ":3: DataLoader.Train.file_list: a config from before",
        ),
    ],
)
def test_what_is_no_config(old, content, problem):
    old.path.write_text(content)
    with pytest.raises(UserError) as raised:
        convert(old.path)
    assert str(raised.value).startswith(str(old.path))
    assert problem in str(raised.value)
    assert "\n" not in str(raised.value)


def test_nothing_of_a_config_is_dropped_in_silence(old):
    """Whatever key is added anywhere is listed."""

    def mappings(value, at=()):
        if isinstance(value, dict):
            yield at
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, child in items:
            if isinstance(child, dict | list):
                yield from mappings(child, (*at, key))

    tried = 0
    for at in list(mappings(old.values)):
        if at[:1] == ("Metric",) or (at and isinstance(at[-1], int)):
            continue  # scores are told apart by name alone; a list's entry has one name
        node = old.values
        for key in at:
            node = node[key]
        node["zzz"] = 1
        old.convert()
        assert any(key.endswith("zzz") for key in old.remarks), at
        del node["zzz"]
        tried += 1
    assert tried > 20


def test_the_file_is_short_and_says_where_it_is_from(old):
    old.convert()
    lines = old.path.with_name("new.yaml").read_text().splitlines()
    assert lines[0] == "# Converted from PaddleClas's old.yaml by `ppcls import-paddleclas`."
    assert any(line.startswith("# old.yaml:") for line in lines)
    body = [line for line in lines if not line.startswith("#")]
    assert len(body) < 25
    assert yaml.safe_load("\n".join(body))["model"] == {"name": "ResNet18", "num_classes": 1000}


def test_labels_that_are_numbered_anew(old, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("0 ant\n1 bee\n")
    old.set(f"{TRAIN}.relabel", True)
    old.set("Infer.PostProcess", {"name": "Topk", "topk": 5, "class_id_map_file": "names.txt"})
    data = old.convert().data
    assert (data.number_labels, data.class_names) == (True, None)
    assert "class_id_map_file is left out" in old.remarks[f"{TRAIN}.relabel"]
