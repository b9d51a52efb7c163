"""Each mistake of a user's: one clear line, exit code 2, no traceback, nothing half-written."""

import json
import os
import shutil
import signal
from itertools import count

import numpy as np
import paddle
import pytest
from paddle.nn import functional

from ppcls.weights import files

TRAIN = ("train", "-c", "recipe.yaml")
BEST = "runs/small/best.safetensors"


def listing(folder):
    return sorted(str(path) for path in folder.rglob("*"))


@pytest.fixture
def fails(workdir, run):
    """Run a command that must fail with one line that holds all the words and leave no file."""

    def fails(*command, words):
        before = listing(workdir)
        code, _, err = run(*command)
        assert code == 2
        lines = err.splitlines()
        assert len(lines) == 1, err
        assert lines[0].startswith("error: ")
        for word in words:
            assert word in lines[0], f"{word!r} is not in {lines[0]!r}"
        assert listing(workdir) == before

    return fails


RECIPE_MISTAKES = [
    ("train.epcohs=3", ["-o train.epcohs=3: unknown key 'train.epcohs'; did you mean 'epochs'?"]),
    ("train.epochs=many", ["-o train.epochs=many: train.epochs: should be a valid integer"]),
    ("train.epochs=0", ["train.epochs: should be greater than 0"]),
    (
        "model.name=ResNet50vd",
        ["model.name: unknown model 'ResNet50vd'; did you mean 'ResNet50_vd'"],
    ),
    ("train.optimizer.kind=adamm", ["unknown 'adamm'; did you mean 'adam'?"]),
    (
        "train.batch_size=13",
        ["12 images, fewer than one batch of 13", "train.batch_size=12", "drop_last"],
    ),
    (
        "model.num_classes=3",
        ["photos/train has 2 classes but model.num_classes is 3", "-o model.num_c"],
    ),
    (
        "data.train=gone",
        ["data.train: gone does not exist (looked in", "sub-folder", "-o data.train="],
    ),
    ("data.train=null", ["data.train is not given"]),
    ("data.builtin=digits", ["-o data.builtin=digits: data: builtin stands for train and eval"]),
    ("data.builtin=digit", ["unknown data set 'digit'"]),
    ("preprocess.crop=64", ["preprocess", "resize"]),
    ("model.in_channels=1", ["preprocess.mean and std have 3 values and model.in_channels is 1"]),
    (
        "train.transforms=[{op: horizontal_flip}]",
        ["train.transforms must end in an image of 32x32"],
    ),
    ("model.weights=gone.safetensors", ["gone.safetensors: no such file"]),
    ("model.weights=recipe.yaml", ["recipe.yaml"]),
    ("model.freeze=[steem.*]", ["model.freeze: 'steem.*' matches no parameter; there are stem.*"]),
    ("device=gpu", ["device: gpu was asked for", "-o device=cpu"]),
    ("device=tpu", ["device: should be 'auto', 'cpu' or 'gpu'"]),
    ("output=recipe.yaml/x", ["output: recipe.yaml/x cannot be written", "-o output=FOLDER"]),
    ("data.holdout=0.2", ["-o data.holdout=0.2: data: holdout", "give eval or holdout"]),
    ("train.schedule.warmup=3 epochs", ["a warm-up of 3 epochs is longer than the run of 2"]),
    ("train.save_every=0", ["save_every should be more than 0"]),
    ("train.transforms.0.scale=[0.5,1]", ["the file has no list train.transforms; give it whole"]),
    ("train.sync_norms=true", ["train.sync_norms: Paddle synch", "on GPUs", "on cpu", "=false"]),
    (
        "train.sampler={kind: weighted, weights: [1, 2, 3]}",
        ["train.sampler.weights: 3 weights for 2 classes: give one for each"],
    ),
    (
        "train={ops: [{op: center_crop}], size: {kind: progressive, sizes: {0: 24, 1: 64}}}",
        ["train.transforms: center_crop cannot cut 64x64 out of an image of 40x48"],
    ),
    ("train.epochs=2024-13-01", ["should be a valid integer (got '2024-13-01')"]),
]


@pytest.mark.parametrize(("item", "words"), RECIPE_MISTAKES, ids=[m[0] for m in RECIPE_MISTAKES])
def test_mistakes_in_a_recipe(fails, item, words):
    fails(*TRAIN, "-o", item, words=words)


def test_mistakes_in_files(workdir, fails):
    (workdir / "typo.yaml").write_text("_base_: recipe.yaml\ntrain:\n  epcohs: 3\n")
    fails("train", "-c", "typo.yaml", words=["typo.yaml:3: unknown key 'train.epcohs'", "'epochs'"])
    (workdir / "orphan.yaml").write_text("\n_base_: nowhere.yaml\n")
    fails("train", "-c", "orphan.yaml", words=["orphan.yaml:2: _base_ names nowhere.yaml"])
    fails("train", "-c", "gone.yaml", words=["gone.yaml: cannot be read: No such file"])


LISTS = [
    ("photos/train/ant/0.png 0\n\nphotos/train/bee/0.png 1\n", ["list.txt:2", "blank line"]),
    ("photos/train/ant/0.png\n", ["list.txt:1", "path label"]),
    ("photos/train/ant/0.png x\n", ["list.txt:1", "label 'x' is not an integer"]),
    ("photos/train/ant/0.png 0\nphotos/train/ant/9.png 1\n", ["list.txt:2", "ant/9.png", "exist"]),
    (
        "photos/train/ant/0.png 0\nphotos/train/ant/1.png 2\n",
        ["list.txt:2", "label 2", "num_classes"],
    ),
    ("", ["list.txt"]),
]


@pytest.mark.parametrize(("text", "words"), LISTS)
def test_mistakes_in_a_list(workdir, fails, text, words):
    (workdir / "list.txt").write_text(text)
    fails(*TRAIN, "-o", "data.train=list.txt", "train.batch_size=1", words=words)


def test_an_empty_class_folder(workdir, fails):
    (workdir / "photos/train/cat").mkdir()
    fails(*TRAIN, words=["no images", "cat"])


def test_output_folder_not_writable(workdir, fails, monkeypatch):
    (workdir / "locked").mkdir()
    (workdir / "locked").chmod(0o500)
    real = type(workdir).mkdir

    def mkdir(self, *arguments, **options):  # root may write anywhere
        if "locked" in str(self):
            raise PermissionError(13, "Permission denied")
        return real(self, *arguments, **options)

    monkeypatch.setattr(type(workdir), "mkdir", mkdir)
    fails(*TRAIN, "-o", "output=locked/run", words=["output: locked/run cannot be written"])


def broken(path, kind):
    data = path.read_bytes()
    damaged = {"truncated": data[: len(data) // 2], "empty": b"", "text": b"not an image\n" * 9}
    path.write_bytes(damaged[kind])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["truncated", "empty", "text"])
def test_a_broken_photo_stops_training_and_what_was_trained_is_saved(workdir, run, kind, workers):
    if workers and kind != "empty":
        pytest.skip("one kind is enough to cross processes")
    broken(workdir / "photos/train/bee/3.png", kind)
    code, _, err = run(*TRAIN, "-o", "train.batch_size=1", f"data.workers={workers}")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "photos/train/bee/3.png: " in err
    assert err.count("3.png") == 1
    if "saved" in err:
        assert (workdir / "runs/small/latest.safetensors").exists()
        broken_copy = workdir / "photos/train/bee/3.png"
        shutil.copy(workdir / "photos/train/bee/4.png", broken_copy)
        code, *_ = run(*TRAIN, "-o", "train.batch_size=1", f"data.workers={workers}", "--resume")
        assert code == 0


def test_a_broken_photo_in_a_list_is_named_with_its_line(workdir, run):
    broken(workdir / "photos/eval/bee/1.png", "truncated")
    lines = [f"photos/eval/bee/{i}.png 1" for i in range(3)]
    (workdir / "list.txt").write_text("\n".join(lines) + "\n")
    code, _, err = run(*TRAIN, "-o", "data.eval=list.txt", "train.epochs=1")
    assert code == 2
    assert "list.txt:2 (photos/eval/bee/1.png): " in err


def test_mistakes_about_checkpoints(trained, workdir, fails):
    weights = f"model.weights={BEST}"
    other = ["-o", weights, "model.name=RegNetX_200MF", "output=runs/other"]
    fails(*TRAIN, *other, words=["best.safetensors: not weights of this network"])
    shutil.copytree(workdir / "photos/train/ant", workdir / "photos/train/cow")
    head = ["-o", weights, "model.num_classes=3", "data.eval=null", "output=runs/other"]
    fails(*TRAIN, *head, words=["its classifier has 2 classes, this network's has 3", "new_head"])
    (workdir / "noise.safetensors").write_bytes(np.random.default_rng(0).bytes(1000))
    fails("eval", "--weights", "noise.safetensors", words=["noise.safetensors"])
    fails(
        "export", "-c", "recipe.yaml", "-o", "output=runs/none", words=["no weights", "--weights"]
    )
    fails("export", words=["-c CONFIG", "--weights CHECKPOINT"])
    plain = workdir / "plain.safetensors"
    files.write_safetensors(plain, files.read(BEST).tensors, {})
    fails("eval", "--weights", plain, words=["plain.safetensors: holds no recipe", "-c CONFIG"])


def test_resuming_with_another_recipe_lists_what_differs(trained, fails):
    changed = ["-o", "train.schedule.lr=0.1", "seed=3", "--resume"]
    fails(*TRAIN, *changed, words=["train.schedule.lr: 0.005 -> 0.1", "seed: 0 -> 3", "latest"])
    fails(*TRAIN, "-o", "output=runs/none", "--resume", words=["there is no run to resume"])


def test_resuming_with_other_data(trained, workdir, fails):
    (workdir / "photos/train/bee/5.png").unlink()
    fails(*TRAIN, "--resume", words=["data.train: 12 images", "11 images"])


def test_a_truncated_checkpoint(trained, workdir, fails):
    latest = workdir / "runs/small/latest.safetensors"
    latest.write_bytes(latest.read_bytes()[:-1000])
    fails(*TRAIN, "--resume", words=["latest.safetensors: ", "damaged"])


def test_weights_that_are_no_numbers_are_never_saved(workdir, run):
    options = [
        "-o",
        "train.schedule.lr=1e30",
        "train.schedule.warmup=0",
        "train.save_every=1 steps",
    ]
    code, _, err = run(*TRAIN, *options)
    assert code == 2
    assert "lower train.schedule.lr" in err
    for path in (workdir / "runs/small").glob("*.safetensors"):
        assert all(np.isfinite(value).all() for value in files.read(path).tensors.values())


def test_a_loss_that_is_no_number_stops_before_the_optimizer_moves(workdir, run, monkeypatch):
    real, computed = functional.cross_entropy, count()

    def cross_entropy(*given, **options):
        loss = real(*given, **options)
        return loss * float("nan") if next(computed) == 2 else loss

    monkeypatch.setattr(functional, "cross_entropy", cross_entropy)
    code, _, err = run(*TRAIN, "-o", "train.save_every=1 steps")
    assert code == 2
    assert "the loss became nan after step 2, at learning rate" in err
    saved = files.read(workdir / "runs/small/latest.safetensors")
    assert json.loads(saved.metadata["ppcls"])["step"] == 2


def test_a_signal_during_evaluation_is_made_good_on_resume(finished, workdir, run, monkeypatch):
    real, evaluations = paddle.nn.Layer.eval, count(1)

    def set_evaluation(self):
        if next(evaluations) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self)

    with monkeypatch.context() as patch:
        patch.setattr(paddle.nn.Layer, "eval", set_evaluation)
        code, out, _ = run(*TRAIN)
    assert code == 130
    assert "stopping after this step" in out
    assert "interrupted at step 6 of 6; saved" in out
    code, out, _ = run(*TRAIN, "--resume")
    assert code == 0
    assert "epoch 2: top-1" in out
    whole, resumed = (files.read(folder / BEST) for folder in (finished[0], workdir))
    assert whole.metadata["ppcls"] == resumed.metadata["ppcls"]


def test_resuming_with_the_classes_swapped(trained, workdir, fails):
    for part in ("train", "eval"):
        (workdir / "photos" / part / "ant").rename(workdir / "photos" / part / "zant")
    fails(*TRAIN, "--resume", words=["class names: ['ant', 'bee'] -> ["])


def test_without_a_run_starting_weights_are_not_taken_for_trained_ones(workdir, fails):
    options = ["-c", "recipe.yaml", "-o", "model.weights=imagenet", "model.new_head=true"]
    fails("eval", *options, words=["no weights: there is no runs/small/best.safetensors yet"])
    fails("export", *options, words=["no weights: there is no runs/small/best.safetensors yet"])


def test_class_names_that_are_too_few(trained, workdir, fails):
    (workdir / "names.txt").write_text("ant\nbee\ncow\n")
    options = ["--weights", BEST, "-o", "data.class_names=names.txt"]
    fails("export", *options, words=["there are 3 class names and the network has 2 classes"])


def test_a_holdout_of_nothing(workdir, fails):
    for name in ("ant", "bee"):
        for i in range(1, 6):
            (workdir / f"photos/train/{name}/{i}.png").unlink()
    options = ["data.eval=null", "data.holdout=0.3", "train.batch_size=2"]
    fails(*TRAIN, "-o", *options, words=["data.holdout: photos/train has too few images"])
