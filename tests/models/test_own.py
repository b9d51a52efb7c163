"""Networks of one's own: registered, and then trained, resumed, exported and predicted by name."""

import re
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn

import ppcls
from ppcls.models import complexity, registry
from ppcls.models.own import OwnSpec
from ppcls.train import curves
from ppcls.utils.errors import UserError

SIDE = 32


@pytest.fixture
def registered(monkeypatch):
    """What is registered in a test is gone after it."""
    monkeypatch.setattr(registry, "SPECS", dict(registry.SPECS))
    return registry.SPECS


class Tiny(nn.Layer):
    """No stem, no stages, no head by our names."""

    def __init__(self, num_classes, in_channels=3, width=8):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2D(in_channels, width, 3, 2, 1), nn.BatchNorm2D(width), nn.ReLU()
        )
        self.squeeze = nn.Linear(width, width)
        self.fc = nn.Linear(width, num_classes)

    def features(self, images):
        return [self.body(images)]

    def forward(self, images):
        return self.fc(self.squeeze(self.features(images)[-1].mean([2, 3])))


def make_tiny(num_classes, **options):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, num_classes, bias_attr=False))


def images(count=2, side=SIDE):
    values = np.random.default_rng(0).standard_normal((count, 3, side, side))
    return paddle.to_tensor(values.astype(np.float32))


def test_trained_resumed_exported_and_predicted_by_name(registered, workdir, run, monkeypatch):
    monkeypatch.setattr(curves, "draw", lambda records, picture, of: None)
    ppcls.register_model("Tiny", resolution=SIDE)(Tiny)
    own = ("model.name=Tiny", "model.num_classes=null", "train.schedule.decay={kind: constant}")
    options = ("-c", "recipe.yaml", "-o", *own)
    code, out, err = run("train", *options)
    assert code == 0, err
    assert "Tiny: 0.00 M parameters, 2 classes" in out
    assert run("train", *options, "train.epochs=1", "output=runs/cut")[0] == 0
    code, _, err = run("train", *options, "output=runs/cut", "--resume")
    assert code == 0, err
    whole, cut = (
        ppcls.create_model("Tiny", 2, f"runs/{name}/latest.safetensors")
        for name in ("small", "cut")
    )
    for name, value in whole.state_dict().items():
        np.testing.assert_array_equal(cut.state_dict()[name].numpy(), value.numpy(), err_msg=name)
    assert cut.preprocess.crop == SIDE  # as its recipe says

    assert run("eval", *options)[0] == 0
    code, _, err = run("export", *options, "--output", "exported")
    assert code == 0, err
    engine = ("--model-dir", "exported", "--engine", "onednn")
    code, out, err = run("predict", *engine, "photos/eval/ant/0.png")
    assert code == 0, err
    assert "ant" in out or "bee" in out


def test_it_is_in_the_lists_and_counted(registered, run):
    ppcls.register_model(resolution=SIDE)(Tiny)
    ppcls.register_model("Odd", resolution=SIDE + 1)(make_tiny)
    assert ppcls.list_models("tin*") == ["Tiny"]
    params = (27 + 1) * 8 + 16 + 8 * 8 + 8 + 8 * 1000 + 1000
    state = paddle.get_rng_state()[0].current_seed()
    assert complexity.count_by_name("Tiny") == complexity.Complexity(
        params, 27 * 8 * 16 * 16 + 64 + 8000
    )
    assert paddle.get_rng_state()[0].current_seed() == state
    code, out, _ = run("models", "Tiny")
    assert (code, "0.01" in out) == (0, True)
    code, out, _ = run("models", "Odd")
    assert code == 0
    assert "note: Odd: not counted: " in out
    with pytest.raises(UserError, match="unknown model 'tyny'; did you mean 'Tiny'"):
        ppcls.create_model("tyny")


def test_the_classifier_is_known_whatever_its_name(registered, tmp_path, capfd):
    ppcls.register_model("Tiny")(Tiny)
    ppcls.register_model("Flat", resolution=SIDE)(make_tiny)
    for name in ("Tiny", "Flat"):
        state = dict(ppcls.create_model(name, 5).state_dict())
        with pytest.raises(UserError, match="its classifier has 5 classes, this network's has 3: "):
            ppcls.create_model(name, 3, state)
        net = ppcls.create_model(name, 3, state, new_head=True)
        assert net(images()).shape == [2, 3]
        features = ppcls.create_model(name, 0, state)
        assert "classifier of 5 classes left out" in "".join(capfd.readouterr())
        assert features(images()).shape == [2, 8 if name == "Tiny" else 3 * SIDE * SIDE]
    state = dict(ppcls.create_model("Tiny", 5).state_dict())
    del state["body.0.bias"]
    with pytest.raises(UserError, match=r"network: 1 of 10 tensors are missing: body\.0\.bias"):
        ppcls.create_model("Tiny", 5, state)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("model.freeze=50%",), "model.freeze: Tiny has no stages of blocks"),
        (("model.freeze=['*']", "model.weights=w.pdparams"), "leave out fc.*"),
        (("train.recompute=true",), "train.recompute: Tiny has no stages of blocks"),
        (("model.drop_path=0.2",), "Tiny: takes no drop_path"),
        (
            (
                "task={kind: distill, labels_weight: 1, losses: [{kind: feature_l2}], "
                "teacher: {kind: peer, name: Tiny}}",
            ),
            "task.losses: Tiny has no features(images) and classify(features)",
        ),
    ],
)
def test_what_it_lacks_is_said_in_a_line(registered, workdir, run, changes, words):
    ppcls.register_model("Tiny")(Tiny)
    paddle.save(ppcls.create_model("Tiny", 2).state_dict(), "w.pdparams")
    code, _, err = run("train", "-c", "recipe.yaml", "-o", "model.name=Tiny", *changes)
    assert code == 2
    assert words in err
    assert len(err.splitlines()) == 1


def test_it_learns_from_a_teacher_by_logits(registered, workdir, run):
    ppcls.register_model("Tiny")(Tiny)
    paddle.save(ppcls.create_model("Tiny", 2).state_dict(), "w.pdparams")
    task = "task={kind: distill, teacher: {name: Tiny, weights: w.pdparams}}"
    options = ("model.name=Tiny", "model.freeze=['body.*']", "model.weights=w.pdparams", task)
    code, _, err = run("train", "-c", "recipe.yaml", "-o", *options, "train.epochs=1")
    assert code == 0, err


def test_features_only(registered):
    ppcls.register_model("Tiny")(Tiny)
    ppcls.register_model("Flat", resolution=SIDE)(make_tiny)
    (feature,) = ppcls.create_model("Tiny", features_only=True)(images())
    assert feature.shape == [2, 8, SIDE // 2, SIDE // 2]
    with pytest.raises(UserError, match=r"^Flat: has no features\(images\), which features_only"):
        ppcls.create_model("Flat", features_only=True)


def test_what_the_page_says(registered):
    page = (Path(ppcls.__file__).parents[1] / "docs/models.md").read_text(encoding="utf-8")
    first, second = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    known = {}
    exec(first, known)
    assert known["net"](images()).shape == [2, 10]
    assert known["pooled"](images()).shape == [2, 1280]
    assert [one.shape[1] for one in known["stages"](images())] == [16, 24, 40, 112, 320]
    exec(second, known)
    assert known["net"](images()).shape == [2, 5]
    assert known["net"].preprocess.crop == 64


def test_names_are_given_once(registered):
    ppcls.register_model("Tiny")(Tiny)
    ppcls.register_model("Tiny")(Tiny)

    @ppcls.register_model
    def again(num_classes, in_channels=3):
        return Tiny(num_classes, in_channels, width=4)

    assert ppcls.create_model("again", 7)(images()).shape == [2, 7]
    with pytest.raises(UserError, match="ResNet18 is a network of ppcls already: give another"):
        ppcls.register_model("ResNet18")(Tiny)
    with pytest.raises(UserError, match=r"Tiny is a network of .*test_own.Tiny already"):
        ppcls.register_model("Tiny")(make_tiny)


@pytest.mark.parametrize(
    ("name", "resolution", "factory", "words"),
    [
        ("../up", 224, Tiny, "'../up' should be letters, digits"),
        ("", 224, Tiny, "'' should be letters"),
        ("Mine", 0, Tiny, "Mine: resolution=0 should be in pixels"),
        ("Mine", 224, lambda classes: None, "Mine: should take num_classes"),
        ("Mine", 224, 3, "Mine: should take num_classes"),
    ],
)
def test_what_is_no_network_is_refused(registered, name, resolution, factory, words):
    with pytest.raises(UserError, match=words):
        ppcls.register_model(name, resolution=resolution)(factory)
    assert "Mine" not in registry.SPECS


def test_what_makes_no_layer_or_takes_no_channels(registered):
    ppcls.register_model("Nothing")(lambda num_classes: None)
    with pytest.raises(UserError, match=r"Nothing: should give a paddle.nn.Layer, not NoneType"):
        ppcls.create_model("Nothing")
    with pytest.raises(UserError, match="Nothing: takes no in_channels: its images have 3"):
        ppcls.create_model("Nothing", in_channels=1)
    assert isinstance(registry.spec_of("Nothing"), OwnSpec)
