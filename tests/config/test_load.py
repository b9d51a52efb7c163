"""Configuration files: values, inheritance, overrides, and a place for every mistake."""

from dataclasses import field
from typing import Annotated, Literal

import pytest
from pydantic import Field

from ppcls.config.load import from_plain, load, to_plain, to_yaml
from ppcls.config.node import Count, Duration, Float, Share, Span, node
from ppcls.config.tree import differences
from ppcls.utils.errors import UserError


@node
class Flip:
    op: Literal["flip"] = "flip"
    prob: Share = 0.5


@node
class Crop:
    op: Literal["crop"] = "crop"
    scale: tuple[Float, Float] = (0.08, 1.0)


@node
class Sgd:
    kind: Literal["sgd"] = "sgd"
    momentum: Share = 0.9


@node
class Adam:
    kind: Literal["adam"] = "adam"
    beta: Share = 0.9


@node
class Train:
    epochs: Count = 10
    warmup: Duration = Span(0, "epochs")
    ops: tuple[Annotated[Flip | Crop, Field(discriminator="op")], ...] = ()
    optimizer: Annotated[Sgd | Adam, Field(discriminator="kind")] = Sgd()

    def __post_init__(self):
        if self.epochs == 13:
            raise ValueError("13 epochs bring bad luck; use 12")


@node
class Sample:
    name: str
    train: Train = field(default_factory=Train)


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(name, text):
        (tmp_path / name).write_text(text)
        return name

    return write


# A list of ten lists of ten lists …
BILLION = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{of}'] * 10)}]\n"
    for of, name in ("ab", "bc", "cd", "de", "ef")
)


def mistakes(path, *overrides):
    with pytest.raises(UserError) as caught:
        load(Sample, path, overrides)
    return str(caught.value).splitlines()


def test_values_and_defaults(write):
    path = write("a.yml", "name: x\ntrain:\n  epochs: 3\n  warmup: 5%\n  ops: [{op: crop}]\n")
    assert load(Sample, path) == Sample(
        name="x", train=Train(epochs=3, warmup=Span(5, "percent"), ops=(Crop(),))
    )


def test_exponents_without_a_point_are_numbers(write):
    path = write("a.yml", "name: x\ntrain: {ops: [{op: crop, scale: [1e-2, 1]}]}\n")
    assert load(Sample, path).train.ops[0].scale == (0.01, 1.0)


def test_bases_merge_key_by_key_and_the_last_wins(write):
    write("one.yml", "name: one\ntrain: {epochs: 1, warmup: 2}\n")
    write("two.yml", "train: {epochs: 2}\n")
    path = write("a.yml", "_base_: [one.yml, two.yml]\ntrain: {ops: [{op: flip}]}\n")
    assert load(Sample, path) == Sample(
        name="one", train=Train(epochs=2, warmup=Span(2, "epochs"), ops=(Flip(),))
    )


def test_another_kind_replaces_the_base_mapping(write):
    write("base.yml", "name: x\ntrain: {optimizer: {kind: sgd, momentum: 0.5}}\n")
    path = write("a.yml", "_base_: base.yml\ntrain: {optimizer: {kind: adam}}\n")
    assert load(Sample, path).train.optimizer == Adam()
    base = write("b.yml", "_base_: base.yml\n")
    overrides = ["train.optimizer.kind=adam", "train.optimizer.beta=0.8"]
    assert load(Sample, base, overrides).train.optimizer == Adam(beta=0.8)


def test_overrides_of_one_thing_come_in_any_order(write):
    path = write("a.yml", "name: x\ntrain: {optimizer: {kind: sgd}}\n")
    overrides = ["train.optimizer.beta=0.8", "train.optimizer.kind=adam"]
    assert load(Sample, path, overrides).train.optimizer == Adam(beta=0.8)


def test_overrides_reach_into_lists_and_keep_equals_signs(write):
    path = write("a.yml", "name: x\ntrain: {ops: [{op: flip}, {op: crop}]}\n")
    value = load(Sample, path, ["train.ops.1.scale=[0.5, 1]", "name=a=b", "train.ops.0.prob=0"])
    assert value.train.ops == (Flip(prob=0), Crop(scale=(0.5, 1.0)))
    assert value.name == "a=b"


def test_an_override_is_never_run(write, tmp_path):
    path = write("a.yml", "name: x\n")
    text = f"__import__('os').mkdir('{tmp_path}/made')"
    assert load(Sample, path, [f"name={text}"]).name == text
    for tag in ("!!python/object/apply:os.mkdir [made]", "!!python/name:os.system"):
        assert load(Sample, path, [f"name={tag}"]).name == tag
        assert mistakes(path, f"train.epochs={tag}")[0].startswith("-o train.epochs=!!python")
    assert not (tmp_path / "made").exists()


def test_all_mistakes_at_once_each_with_its_place(write):
    write("base.yml", "name: x\ntrain:\n  epoch: 3\n")
    path = write(
        "a.yml",
        "_base_: base.yml\ntrain:\n  warmup: soon\n  ops:\n"
        "    - {op: flip, probb: 1}\n    - {op: turn}\n    - {prob: 1}\n",
    )
    overrides = ["train.optimizer.kind=sdg", "nmae=y", "train.ops.0.prob=two", "train.x"]
    assert set(mistakes(path, *overrides)) == {
        "-o train.x: should be key.key=value",
        "base.yml:3: unknown key 'train.epoch'; did you mean 'epochs'?",
        "a.yml:3: train.warmup: a duration is a number of epochs, or like "
        '"5 epochs", "500 steps", "10%"',
        "-o train.ops.0.prob=two: train.ops.0.prob: should be a valid number (got 'two')",
        "a.yml:5: unknown key 'train.ops.0.probb'; did you mean 'prob'?",
        "a.yml:6: train.ops.1.op: unknown 'turn'; known: flip, crop",
        "a.yml:7: missing key 'op' under 'train.ops.2'",
        "-o train.optimizer.kind=sdg: train.optimizer.kind: unknown 'sdg'; did you mean 'sgd'?",
        "-o nmae=y: unknown key 'nmae'; did you mean 'name'?",
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("train: {}\n", "a.yml:1: missing key 'name' under 'the top'"),
        ("name: [5]\n", "a.yml:1: name: should be a valid string (got [5])"),
        ("name: x\ntrain: 3\n", "a.yml:2: train should be a mapping with keys "),
        ("name: x\ntrain: {epochs: many}\n", "a.yml:2: train.epochs: should be a valid integer"),
        ("name: x\n\ntrain:\n  epochs: 13\n", "a.yml:3: train: 13 epochs bring bad luck; use 12"),
        ("name: x\nname: y\n", "a.yml:2: key 'name' stands twice"),
        ("name: [x\n", "a.yml:2: not YAML: "),
        ("- x\n", "a.yml:1: a recipe is a mapping of keys"),
        ("", "a.yml: missing key 'name' under 'the top'"),
        ("name: x\n_base_: gone.yml\n", "a.yml:2: _base_ names gone.yml, which does not exist"),
        ("_base_: a.yml\n", "a.yml:1: _base_ leads back to a.yml"),
        ("name: &a {x: *a}\n", "a.yml:1: an alias (*name) that stands for something it is part of"),
        ("name: " + "[" * 60 + "]" * 60, "a.yml:1: an alias (*name) that stands for something"),
        ("name: " + "[" * 1500, "a.yml: lists or mappings stand too deep in each other"),
        (BILLION, "a.yml:4: an alias (*name) that stands for something it is part of, or far too"),
        ("name: !!timestamp x\n", "a.yml:1: 'x' cannot be read as tag:yaml.org,2002:timestamp"),
        ("name: !!bool x\n", "a.yml:1: 'x' cannot be read as tag:yaml.org,2002:bool"),
        ("_base_: {a: b}\n", "a.yml:1: _base_ should be a file name or a list of them"),
        ("name: !!python/name:os.system x\n", "a.yml:1: 'x' cannot be read as "),
    ],
)
def test_mistakes_in_the_file(write, text, line):
    assert mistakes(write("a.yml", text))[0].startswith(line)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("train", "should be key.key=value"),
        ("=3", "should be key.key=value"),
        ("train.ops.2.prob=1", "train.ops is a list of 1; its entries count from 0"),
        ("train.ops.x.prob=1", "train.ops is a list of 1; its entries count from 0"),
        ("name.x=1", "name is a value, not a mapping"),
        ("train.ops=[", "is not YAML; quote it?"),
        (
            "train.ops=&a [*a]",
            "an alias (*name) that stands for something it is part of, or far too much",
        ),
        (
            "train.epochs=!!timestamp x",
            "'x' cannot be read as tag:yaml.org,2002:timestamp; quote it?",
        ),
        ("train.epochs=null", "train.epochs: should be a valid integer (got None)"),
    ],
)
def test_mistakes_in_an_override(write, item, words):
    path = write("a.yml", "name: x\ntrain: {ops: [{op: flip}]}\n")
    line = mistakes(path, item)[0]
    assert line.startswith(f"-o {item}: ")
    assert line.endswith(words)


@node
class Twin:
    kind: Literal["momentum"] = "momentum"
    momentum: Share = 0.9  # named as the tag


@node
class Run:
    optimizer: Annotated[Twin | Adam, Field(discriminator="kind")] = Twin()


@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_only_keys_of_the_kind_that_is_meant_are_named(write, kind):
    path = write("a.yml", f"optimizer: {{kind: {kind}, x: 1}}\n")
    with pytest.raises(UserError) as caught:
        load(Run, path)
    keys = {"momentum": "kind, momentum", "adam": "beta, kind"}[kind]
    assert str(caught.value) == f"a.yml:1: unknown key 'optimizer.x'; known: {keys}"


def test_a_mistake_is_one_line_whatever_breaks_it_holds(write):
    path = write("a.yml", "name: x\n")
    for item in ("nmae=a\nb: c", "na\u2028me=1", "train.x=[\n"):
        (line,) = mistakes(path, item)
        assert line.startswith(("-o na\\u2028me=1", "-o nmae=a\\nb: c", "-o train.x=[\\n"))


def test_no_such_file_and_not_text(tmp_path):
    with pytest.raises(UserError, match=r"gone.yml: cannot be read: No such file"):
        load(Sample, tmp_path / "gone.yml")
    (tmp_path / "b.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a UTF-8 text file"):
        load(Sample, tmp_path / "b.yml")


def test_a_value_survives_yaml_and_plain_form(write):
    value = Sample(name="é", train=Train(warmup=Span(3, "steps"), ops=(Crop(scale=(1e-5, 1)),)))
    assert load(Sample, write("b.yml", to_yaml(value))) == value
    plain = to_plain(value)
    assert from_plain(Sample, plain, "x") == value
    changed = from_plain(Sample, plain, "x", ["train.epochs=2", "train.ops.0.scale.0=0.5"])
    assert differences(plain, to_plain(changed)) == {
        "train.epochs": "10 -> 2",
        "train.ops": "[{'op': 'crop', 'scale': [1e-05, 1.0]}] -> "
        "[{'op': 'crop', 'scale': [0.5, 1.0]}]",
    }
    assert plain == to_plain(value), "overrides must not change the caller's tree"
