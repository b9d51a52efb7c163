"""Steps, epochs and evaluations without a single image that could be read."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cut_run import cut

from ppcls.weights import files

TRAIN = ("train", "-c", "recipe.yaml", "-o", "data.on_error=skip", "train.batch_size=1")
EACH = ("train.log_every=1", "train.epochs=1")


def break_photos(pattern):
    broken = sorted(Path().glob(pattern))
    for path in broken:
        path.write_bytes(b"no image")
    return len(broken)


def records(name, event):
    """A run's records of a kind, read as JSON proper, which knows neither NaN nor infinity."""

    def refuse(constant):
        raise AssertionError(f"run.jsonl holds {constant}")

    lines = Path(f"runs/{name}/run.jsonl").read_text().splitlines()
    found = [json.loads(line, parse_constant=refuse) for line in lines]
    return [record for record in found if record["event"] == event]


CASES = {
    "at the boundary": EACH,
    "away from it": ("train.log_every=5",),
    "the epoch's last": ("train.log_every=1", "train.batch_size=3", "train.drop_last=false"),
    "several batches": (*EACH, "train.accumulate=2", "train.sampler={kind: balanced}"),
    "mixed": (*EACH, "train.batch_transforms=[{op: mixup}]", "train.drop_last=false"),
    "averaged": (*EACH, "train.ema={decay: 0.9}", "train.clip_norm=1"),
    "twice": ("train.log_every=1", "train.batch_size=2", "train.repeats=2"),
}


QUICK = ("at the boundary", "mixed")


@pytest.mark.parametrize(
    "case", [c if c in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in CASES]
)
def test_a_step_without_a_photo_is_passed_over(workdir, run, case):
    assert break_photos("photos/train/bee/[345].png") == 3
    code, out, err = run(*TRAIN, *CASES[case], "output=runs/a")
    assert (code, err) == (0, "")
    assert "3 images cannot be read and are left out" in out
    assert len(Path("runs/a/skipped.txt").read_text().splitlines()) == 3
    found = records("a", "train")
    assert all("lr" in record and "images_per_second" in record for record in found)
    if case in ("at the boundary", "mixed", "averaged"):
        void = [record for record in found if "loss" not in record]
        assert 1 <= len(void) < len(found)
        assert all(record["images_per_second"] == 0 for record in void)
        assert not any("top1" in record for record in void)
    assert all(0 <= record["top1"] <= 1 for record in found if "loss" in record)
    assert Path("runs/a/best.safetensors").exists()
    assert Path("runs/a/curves.png").exists()


def test_photos_without_labels_may_be_all_that_a_step_has(trained, workdir, run):
    Path("list.txt").write_text("".join(f"photos/eval/ant/{i}.png\n" for i in range(3)))
    break_photos("photos/train/*/[1-5].png")
    teacher = "{name: MobileNetV3_small_x0_35, weights: runs/small/best.safetensors}"
    options = (
        f"task={{kind: distill, teacher: {teacher}, losses: [{{kind: dist}}], labels_weight: 1}}",
        "data.unlabeled={images: list.txt, share: 0.5}", "train.batch_size=2", "train.log_every=1",
    )  # fmt: skip
    code, _, err = run(*TRAIN, *options, "output=runs/d")
    assert (code, err) == (0, "")
    found = records("d", "train")
    assert any("loss" in record and "top1" not in record for record in found)


def test_labels_of_many_kinds_may_be_missing_from_a_step(workdir, run):
    photos = [f"photos/train/{name}/{i}.png" for i in range(4) for name in ("ant", "bee")]
    Path("many.csv").write_text(
        "path,a,b\n" + "".join(f"{p},{i % 2},1\n" for i, p in enumerate(photos))
    )
    break_photos("photos/train/ant/[12].png")
    options = ("task={kind: multilabel}", "data.train=many.csv", "data.eval=many.csv")
    code, _, err = run(*TRAIN, *EACH, *options, "output=runs/m")
    assert (code, err) == (0, "")
    assert any("label_accuracy" not in record for record in records("m", "train"))


def test_an_epoch_without_any_photo_ends_the_run_in_one_line(workdir, run):
    count = break_photos("photos/train/*/*.png")
    code, _, err = run(*TRAIN, *EACH, "output=runs/e")
    assert code == 2
    assert f"data.train: none of {count} images could be read, such as photos/train/" in err
    assert len(err.splitlines()) == 1
    assert len(Path("runs/e/skipped.txt").read_text().splitlines()) == count


def test_photos_that_go_in_mid_run_take_nothing_with_them(finished, workdir, run, monkeypatch):
    options = ("train.batch_size=4", "train.epochs=2", "output=runs/f")
    with monkeypatch.context() as patch:
        cut(patch, step=3)  # when the second of two epochs begins
        with pytest.raises(SystemExit):
            run(*TRAIN, *options)
    shutil.move("photos/train", "photos/kept")
    shutil.copytree("photos/kept", "photos/train")
    break_photos("photos/train/*/*.png")
    code, _, err = run(*TRAIN, *options, "--resume")
    assert code == 2
    assert "none of 12 images could be read" in err
    assert "saved runs/f/latest.safetensors; to go on: the same command with --resume" in err
    shutil.rmtree("photos/train")
    shutil.move("photos/kept", "photos/train")
    assert run(*TRAIN, *options, "--resume")[0] == 0
    whole, rest = (
        files.read(folder / "latest.safetensors").tensors
        for folder in (finished[0] / "runs/small", Path("runs/f"))
    )
    for name, value in whole.items():
        np.testing.assert_array_equal(value, rest[name])


def test_an_evaluation_without_any_photo_keeps_what_was_learnt(workdir, run):
    count = break_photos("photos/eval/*/*.png")
    code, _, err = run(*TRAIN, "output=runs/g")
    assert code == 2
    assert f"data.eval: none of {count} images could be read" in err
    assert "saved runs/g/latest.safetensors" in err
    code, _, err = run("eval", "--weights", "runs/g/latest.safetensors")
    assert code == 2
    assert "data.eval: no image of photos/eval can be read: photos/eval/ant/0.png" in err


def test_a_score_without_a_value_ends_the_run_with_its_name(workdir, run):
    lines = [f"photos/train/{name}/{i}.png,0,0\n" for name in ("ant", "bee") for i in range(3)]
    Path("eval.csv").write_text("path,a,b\n" + "".join(lines) + "photos/eval/bee/0.png,1,1\n")
    Path("train.csv").write_text("path,a,b\n" + "".join(lines) + "photos/train/bee/4.png,1,1\n")
    break_photos("photos/eval/bee/0.png")
    options = ("task={kind: multilabel}", "data.train=train.csv", "data.eval=eval.csv")
    code, _, err = run(*TRAIN, *options, "output=runs/h")
    assert code == 2
    assert "data.eval: map has no value" in err
    assert not records("h", "eval")
