"""Values that no run has: said with the bound, in one short line, wherever they stand."""

import pytest

from ppcls.cli import main

MANY = "9" * 5000


def line_of(capsys, *command) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(main(list(command)))
    assert ended.value.code == 2
    found = capsys.readouterr().err.splitlines()
    assert len(found) == 1, found
    assert len(found[0]) < 600
    return found[0]


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("train.save_every=" + "1" * 320, "at most 1000000000 epochs or steps"),
        ("train.save_every=1" + "0" * 12 + " steps", "at most 1000000000 epochs or steps"),
        ("train.save_every=" + MANY, "a number of 5,000 characters"),
        ("train.save_every=[[1]]", "a duration is a number of epochs"),
        ("train.schedule.warmup=" + "1" * 100 + "%", "at most 1000000000 epochs or steps"),
        ("seed=18446744073709551616", "less than or equal to 9223372036854775807"),
        ("seed=" + "1" * 300, "less than or equal to 9223372036854775807"),
        ("seed=" + MANY, "a number of 5,000 characters"),
        ("preprocess.crop=1000000", "preprocess.crop: should be less than or equal to 8192"),
        ("preprocess.resize=" + "1" * 30, "preprocess.resize: should be less than or equal to"),
        ("train.size=1000000", "train.size: should be less than or equal to 8192"),
        ("train.size={kind: multi_scale, sizes: [1000000]}", "less than or equal to 8192"),
        ("train.size={kind: progressive, sizes: {0: 1000000}}", "less than or equal to 8192"),
        ("train.epochs=1" + "0" * 30, "train.epochs: should be less than or equal to 1000000000"),
        ("train.epochs=0x" + "f" * 5000, "a number of 5,002 characters"),
        ("train.batch_size=1000000000000", "should be less than or equal to 1000000000"),
        ("eval.batch_size=" + "9" * 399, "should be less than or equal to 1000000000"),
        ("model.num_classes=10000000000", "should be less than or equal to 1000000"),
        ("data.workers=10000000000", "should be less than or equal to 1000000000"),
        ("train.repeats=1000000", "should be less than or equal to 1000"),
        ("train.transforms=[{op: pad, pixels: 100000000}]", "should be less than or equal to 8192"),
        ("train.transforms=[{op: random_crop, pad: 100000000}]", "should be less than or equal to 8192"),  # noqa: E501
        ("train.transforms=[{op: cutout, holes: 100000000}]", "should be less than or equal to 1000"),  # noqa: E501
        ("train.transforms=[{op: augmix, width: 100000000}]", "should be less than or equal to 1000"),  # noqa: E501
        ("train.transforms=[{op: rand_augment, num_ops: 1000000}]", "less than or equal to 1000"),
        ("train.transforms=[{op: resize_short, pixels: 1000000}]", "less than or equal to 8192"),
        ("train.schedule.lr=" + "9" * 350, "should be a valid number"),
        ("train.schedule.lr=0." + "9" * 5000, "a number of 5,002 characters"),
        ("train.epochs=" + "[" * 3000, "too deep in each other"),
        ("train.x=" + "y" * 100_000, "unknown key 'train.x'"),
        ("train." + "x" * 100_000 + "=1", "unknown key 'train.xxxx"),
        ("model.name={" + "x" * 100_000, "is not YAML; quote it?"),
    ],
)  # fmt: skip
def test_a_value_beyond_all_bounds(capsys, item, words):
    assert words in line_of(capsys, "train", "-c", "configs/ResNet18.yaml", "-o", item)


BOMB = "x0: &b0 [a]\n" + "".join(
    f"x{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 10)}]\n" for i in range(1, 11)
)


@pytest.mark.parametrize("command", [("train", "-c"), ("import-paddleclas",)])
@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("far too much", BOMB + "model: {name: *b10}\n"),
        ("far too much", BOMB + "Global: *b10\n"),
        ("too deep", "model: " + "[" * 3000),
        ("a number of 200,001 characters", "seed: !!int " + "1:" * 100_000 + "1"),
    ],
)
def test_files_that_stand_for_much(tmp_path, capsys, command, words, text):
    (tmp_path / "a.yaml").write_text(text)
    assert words in line_of(capsys, *command, str(tmp_path / "a.yaml"))
