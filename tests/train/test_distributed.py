"""Two processes that train together: the same scores and losses as one, one end for all."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from paddle import nn
from small_run import said

from ppcls.api import create_model
from ppcls.models.layers import DownscalingDropout, DropPath
from ppcls.train.distributed import Processes, buckets, share_draws
from ppcls.utils.errors import TRY_AGAIN, UserError
from ppcls.utils.log import read_records
from ppcls.weights import files

ALONE = ["-o", "train.batch_size=4", "output=runs/alone"]
TOGETHER = ["-o", "train.batch_size=2", "output=runs/together"]
# Without dropout, which each process draws for itself, and without statistics of parts of a batch.
FROZEN = [
    "model.name=ResNet18_vd",
    "model.freeze=['*.norm.*']",
    "train.transforms=[{op: resize}]",
    "train.drop_last=false",
]


def start(*arguments, cwd=None, **environment):
    command = [sys.executable, "-m", "ppcls", "train", "-c", "recipe.yaml", *arguments]
    own = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} | environment
    return subprocess.Popen(
        command,
        env=own,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(*arguments):
    process = start(*arguments)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def records(name, event):
    return [r for r in read_records(Path(f"runs/{name}/run.jsonl")) if r["event"] == event]


def long_run(*options, **environment):
    """A run of two processes that would take long, once its first step is in the log."""
    options = (*TOGETHER, "train.epochs=1000", "train.save_every=3 steps", *options)
    process = start("--processes", "2", *options, **environment)
    while not records_of("together"):
        time.sleep(0.05)
        assert process.poll() is None
    return process


def records_of(name):
    path = Path(f"runs/{name}/run.jsonl")
    return path.read_text() if path.exists() else ""


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def children(pid):
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()]


def test_two_processes_compute_what_one_does(workdir):
    # 10 images in steps of 4: the last step has one image for each process.
    for part, name in (("ant", 5), ("bee", 5)):
        (workdir / f"photos/train/{part}/{name}.png").unlink()
    said(workdir, "train", "-c", "recipe.yaml", *ALONE, *FROZEN)  # in this process
    code, out, err = run("--processes", "2", *TOGETHER, *FROZEN)
    assert code == 0, err
    assert "on cpu (1 thread), 2 processes" in out
    assert "2 epochs of 3 steps of 4 images (2 batches)" in out
    alone, together = records("alone", "train"), records("together", "train")
    assert [r["step"] for r in together] == [1, 2, 3, 4, 5, 6]
    for one, two in zip(alone, together, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-5)
        assert two["top1"] == one["top1"]
    weights = {n: files.read(f"runs/{n}/latest.safetensors").tensors for n in ("alone", "together")}
    for name, value in weights["alone"].items():
        if not name.startswith("optimizer/"):
            np.testing.assert_allclose(weights["together"][name], value, atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_gradients_added_up_during_the_backward_pass_are_the_same(workdir):
    """As on GPUs, here by force; in two batches a step, of which the last has but one image."""
    for path in ("ant/5", "bee/5", "bee/4"):
        (workdir / f"photos/train/{path}.png").unlink()
    (workdir / "by_force.py").write_text(
        "from ppcls.train import setup\nsetup.reduces = lambda *_: bool(open('asked', 'w'))\n"
    )
    options = ["-o", "train.batch_size=1", "train.accumulate=2", *FROZEN]
    assert run("--processes", "2", *options, "output=runs/after")[0] == 0
    code, _, err = run("--use", "by_force", "--processes", "2", *options, "output=runs/during")
    assert code == 0, err
    assert Path("asked").exists()
    after, during = (
        files.read(f"runs/{n}/latest.safetensors").tensors for n in ("after", "during")
    )
    for name, value in after.items():
        assert np.array_equal(during[name], value), name


@pytest.mark.slow
def test_the_same_weights_give_the_same_score_however_images_are_dealt_out(workdir):
    """To the last digit."""
    assert run(*ALONE, *FROZEN)[0] == 0
    same = ["model.weights=runs/alone/latest.safetensors", "train.schedule.lr=1e-30"]
    same += ["train.epochs=1", "eval.batch_size=2", *FROZEN, "train.schedule.warmup=0"]
    assert run(*ALONE[:2], *same, "output=runs/one")[0] == 0
    assert run("--processes", "2", *TOGETHER[:2], *same, "output=runs/two")[0] == 0
    one, two = records("one", "eval")[-1], records("two", "eval")[-1]
    assert {k: v for k, v in one.items() if k != "time"} == {
        k: v for k, v in two.items() if k != "time"
    }


@pytest.mark.slow
def test_two_processes_learn_from_a_teacher_what_one_does(workdir):
    paddle.seed(0)
    state = create_model("ResNet18_vd", 2).state_dict()
    tensors = {name: value.numpy() for name, value in state.items()}
    files.write_safetensors(workdir / "teacher.safetensors", tensors, {})
    teacher = "{name: ResNet18_vd, weights: teacher.safetensors}"
    task = f"task={{kind: distill, teacher: {teacher}, losses: [{{kind: js}}], labels_weight: 1}}"
    given = [*FROZEN, task, "data.unlabeled={images: photos/train, share: 0.5}"]
    assert run(*ALONE, *given)[0] == 0
    code, out, err = run("--processes", "2", *TOGETHER, *given)
    assert code == 0, err
    assert "12 images without labels; a step shows 2 with and 2 without" in out
    alone, together = records("alone", "train"), records("together", "train")
    assert len(alone) == 12
    for one, two in zip(alone, together, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)  # of sums in another order
        assert two["top1"] == one["top1"]


@pytest.mark.slow
def test_statistics_are_averaged_and_a_stopped_run_goes_on_exactly(workdir):
    options = [*TOGETHER[:2], "train.ema={decay: 0.5}", "train.epochs=3"]
    assert run("--processes", "2", *options, "output=runs/whole")[0] == 0
    process = start("--processes", "2", *options, "output=runs/cut")
    path = Path("runs/cut/run.jsonl")
    while not (path.exists() and len(path.read_text().splitlines()) >= 2):
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert "interrupted at step" in out
    code, out, err = run("--processes", "2", *options, "output=runs/cut", "--resume")
    assert code == 0, err
    assert "resuming after step" in out
    whole, cut = (files.read(f"runs/{n}/latest.safetensors").tensors for n in ("whole", "cut"))
    assert all(np.array_equal(cut[name], value) for name, value in whole.items())


@pytest.mark.slow
def test_a_run_goes_on_with_any_number_of_processes(workdir):
    """Two, then three that share steps of four images, then one: the same to float32 rounding."""
    options = [*FROZEN, "train.epochs=3", "train.save_every=1 steps"]
    assert run("--processes", "2", *TOGETHER[:2], *options, "output=runs/whole")[0] == 0
    given = [*TOGETHER[:2], *options, "output=runs/cut"]
    cut_after("cut", 2, "--processes", "2", *given)
    code, out, err = cut_after("cut", 6, "--processes", "3", *given, "--resume")
    assert code == 130, err
    assert "processes: 2 -> 3: a step shows the same 4 images, dealt out anew" in out
    code, out, err = run("--processes", "1", *given, "--resume")
    assert code == 0, err
    assert "of 4 images (2 batches)" in out
    whole, cut = records("whole", "train"), records("cut", "train")
    assert [r["step"] for r in cut] == [r["step"] for r in whole]
    for one, two in zip(whole, cut, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    whole, cut = (files.read(f"runs/{n}/latest.safetensors").tensors for n in ("whole", "cut"))
    for name, value in whole.items():
        np.testing.assert_allclose(cut[name], value, rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_a_batch_may_change_where_a_step_stays_as_large(workdir):
    options = [*ALONE[:2], *FROZEN, "train.epochs=3", "output=runs/cut"]
    cut_after("cut", 2, *options)
    code, out, err = run(*options, "train.batch_size=3", "--resume")
    assert code == 2
    assert "train.batch_size: 4 -> 3" in only_error(err)
    code, out, err = run(*options, "train.batch_size=2", "train.accumulate=2", "--resume")
    assert code == 0, err
    assert "of 4 images (2 batches)" in out


def cut_after(name, steps, *arguments):
    """A run that is asked to end once so many steps are in its log; code, output, errors."""
    process = start(*arguments)
    while records_of(name).count('"event": "train"') < steps:
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


@pytest.mark.slow
def test_processes_that_share_a_step_compute_what_one_does_and_go_on_exactly(workdir):
    """With dropout, drop path and a last step of one image for two processes."""
    (workdir / "photos/train/ant/0.png").unlink()
    (workdir / "photos/train/bee/0.png").unlink()
    (workdir / "photos/train/bee/1.png").unlink()
    weights = "model.freeze=['*.norm.*']", "model.drop_path=0.5"
    options = ["-o", *weights, "train.drop_last=false", "train.epochs=3"]
    assert run(*options, "output=runs/alone")[0] == 0
    code, out, err = run("--processes", "2", "--divided", *options, "output=runs/together")
    assert code == 0, err
    assert "2 processes that share each step" in out
    alone, together = records("alone", "train"), records("together", "train")
    assert len(alone) == 9
    for one, two in zip(alone, together, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert two["top1"] == one["top1"]

    cut = start("--processes", "2", "--divided", *options, "output=runs/cut")
    while not records_of("cut"):
        time.sleep(0.02)
        assert cut.poll() is None
    cut.send_signal(signal.SIGTERM)
    cut.communicate(timeout=100)
    code, out, err = run(*options, "output=runs/cut", "--resume")  # knows how many there were
    assert code == 0, err
    assert "resuming after step" in out
    whole, cut = (files.read(f"runs/{n}/latest.safetensors").tensors for n in ("together", "cut"))
    assert all(np.array_equal(cut[name], value) for name, value in whole.items())


@pytest.mark.slow
def test_norms_that_train_are_not_divided(workdir):
    freeze = "model.freeze=['stem.norm.*']"
    code, _, err = run("--processes", "2", "--divided", "-o", freeze)
    assert code == 2
    line = only_error(err)
    assert "to train, which looks at all images of a batch; without --divided" in line


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), DownscalingDropout(0.5), DropPath(0.5)])
def test_a_share_of_a_draw_is_what_one_process_draws(layer):
    x = paddle.rand([5, 3, 2, 2])
    paddle.seed(7)
    whole = layer(x).numpy()
    parts = []
    for rank, own in ((0, x[:3]), (1, x[3:])):
        processes = Processes(rank, 2)
        processes.step_images = 5
        net = nn.Sequential(layer)
        share_draws(net, processes)
        paddle.seed(7)
        parts.append(net(own).numpy())
        net.eval()
        np.testing.assert_array_equal(net(own).numpy(), layer(own).numpy())
        layer.train()
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-6)
    assert 0 < np.count_nonzero(whole) < whole.size


@pytest.mark.slow
def test_a_broken_photo_ends_all_with_its_name(workdir):
    (workdir / "photos/train/bee/3.png").write_bytes(b"no image")
    code, out, err = run("--processes", "2", *TOGETHER)
    assert code == 2
    assert err.count("photos/train/bee/3.png: not a JPEG") == 1
    assert "Traceback" not in out + err


def alive(pids):
    """Those that have not ended."""
    found = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        found += [pid] if state != "Z" else []
    return found


def wait_until_ended(pids):
    while alive(pids):
        time.sleep(0.1)


def only_error(err):
    """The one line that says why a run ended; Paddle lists its flags beside it."""
    lines = [line for line in err.splitlines() if not line.startswith(("===", "FLAGS("))]
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "what"),
    [
        (signal.SIGKILL, "was ended from outside by signal 9, maybe for lack of memory"),
        (signal.SIGSEGV, "crashed with signal 11 (segmentation fault)"),
    ],
)
@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_dies_ends_all_with_the_reason(workdir, rank, number, what):
    process = long_run()
    workers = children(process.pid)
    assert len(workers) == 2
    os.kill(workers[rank], number)
    _, err = process.communicate()
    assert process.returncode == 1
    assert f"process {rank} of 2 {what}" in only_error(err)
    wait_until_ended(workers)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_is_stopped_ends_all_and_the_last_checkpoint_stays(workdir, rank):
    process = long_run(PPCLS_SILENCE_SECONDS="4")
    while not Path("runs/together/latest.safetensors").exists():
        time.sleep(0.05)
    workers = children(process.pid)
    os.kill(workers[rank], signal.SIGSTOP)
    _, err = process.communicate()
    assert process.returncode == 1
    line = only_error(err)
    assert f"process {rank} of 2 (pid {workers[rank]}) has not answered for" in line
    assert "runs/together/latest.safetensors stays: the same command with --resume" in line
    wait_until_ended(workers)
    options = ("--resume", *TOGETHER, "train.epochs=1000", "train.save_every=3 steps")
    again = start("--processes", "2", *options)
    assert any("resuming after step" in text for text in again.stdout)
    again.terminate()
    again.communicate()
    assert again.returncode == 130


@pytest.mark.slow
def test_one_that_was_stopped_ends_by_itself_when_it_goes_on(workdir):
    """Without our launcher, which would have ended it."""
    endpoints = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))
    own = {"PADDLE_TRAINERS_NUM": "2", "PADDLE_TRAINER_ENDPOINTS": endpoints}
    own["PPCLS_SILENCE_SECONDS"] = "4"
    options = [*TOGETHER, "train.epochs=1000"]
    ranks = [start(*options, **own, PADDLE_TRAINER_ID=str(rank)) for rank in range(2)]
    while not records_of("together"):
        time.sleep(0.05)
    ranks[1].send_signal(signal.SIGSTOP)
    _, err = ranks[0].communicate()
    line = only_error(err)
    assert f"process 1 of 2 (pid {ranks[1].pid}) has not answered" in line
    assert ranks[0].returncode == 3
    ranks[1].send_signal(signal.SIGCONT)
    _, err = ranks[1].communicate()
    assert "process 1 of 2" in only_error(err)
    assert ranks[1].returncode == 3


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("group", [False, True])
def test_a_signal_to_the_launcher_or_to_all_saves_once(workdir, number, group):
    process = long_run()
    workers = children(process.pid)
    (os.killpg if group else os.kill)(process.pid, number)
    out, err = process.communicate()
    assert process.returncode == 130, err
    assert out.count("; saved runs/together/latest.safetensors") == 1
    assert "error" not in err
    assert not alive(workers)


def stop(pid):
    """Stop a process; a signal that is sent afterwards stays pending."""
    os.kill(pid, signal.SIGSTOP)
    while "\nState:\tT" not in Path(f"/proc/{pid}/status").read_text():
        time.sleep(0.05)


def wait_until_pending(pid, number):
    """Until a signal has come to a process that is stopped."""
    while True:
        status = Path(f"/proc/{pid}/status").read_text()
        masks = (line.split()[1] for line in status.splitlines() if "Pnd:" in line)
        if any(int(mask, 16) & 1 << (number - 1) for mask in masks):
            return
        time.sleep(0.05)


@pytest.mark.slow
def test_a_second_ctrl_c_ends_all(workdir):
    process = long_run()
    workers = children(process.pid)
    stop(workers[1])  # so that none can save
    process.send_signal(signal.SIGINT)
    wait_until_pending(workers[1], signal.SIGINT)  # the launcher has passed it on
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    assert not alive(workers)


@pytest.mark.slow
def test_processes_without_their_launcher_end(workdir):
    process = long_run("data.workers=1")
    workers = children(process.pid)
    workers += [child for worker in workers for child in children(worker)]
    assert len(workers) >= 4
    process.kill()
    process.wait()
    wait_until_ended(workers)


@pytest.mark.slow
def test_a_mistake_that_one_process_alone_finds_is_told_once(workdir):
    """Its images are not where the others have theirs."""
    text = Path("recipe.yaml").read_text()
    away = workdir / "away"
    away.mkdir()
    (away / "recipe.yaml").write_text(text)
    endpoints = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))
    own = {"PADDLE_TRAINERS_NUM": "2", "PADDLE_TRAINER_ENDPOINTS": endpoints}
    first = start(*TOGETHER, **own, PADDLE_TRAINER_ID="0")
    second = start(*TOGETHER, **own, PADDLE_TRAINER_ID="1", cwd=away)
    _, err = second.communicate()
    line = only_error(err)
    assert "photos/train" in line
    assert second.returncode == 2
    _, err = first.communicate()
    reason = line.removeprefix("error: ")
    assert only_error(err) == f"error: process 1 of 2 (pid {second.pid}) has ended: {reason}"
    assert first.returncode == 2


@pytest.mark.slow
def test_processes_that_do_not_begin_alike_end_before_the_first_step(workdir):
    endpoints = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))
    own = {"PADDLE_TRAINERS_NUM": "2", "PADDLE_TRAINER_ENDPOINTS": endpoints}
    first = start(*TOGETHER, **own, PADDLE_TRAINER_ID="0")
    second = start(*TOGETHER, "seed=1", **own, PADDLE_TRAINER_ID="1")
    for process in (first, second):
        _, err = process.communicate()
        assert "1 of 2 does not begin as process 0 does (seed: 0 -> 1)" in only_error(err)
        assert process.returncode == 2
    assert not Path("runs/together/run.jsonl").exists()


def test_another_checkpoint_is_worth_another_try(workdir):
    """A folder that machines share may show a file to some of them a little later."""
    from ppcls.config.load import load, to_plain
    from ppcls.recipe import Recipe
    from ppcls.train.setup import check_together

    recipe = load(Recipe, "recipe.yaml")
    about = {"recipe": to_plain(recipe), "labels": ["a"], "data": {}, "step_images": 4}

    class Two(Processes):
        def gather(self, value):
            return [value | {"step": 30}, value]

    with pytest.raises(UserError, match=r"1 of 2 .*step: 30 -> 0.*see the same") as found:
        check_together(recipe, SimpleNamespace(step=0, about=about), Two(1, 2))
    assert found.value.code == TRY_AGAIN


@pytest.mark.slow
def test_a_signal_to_one_ends_the_evaluation_of_all(workdir):
    lines = [f"{path} 0\n" for path in sorted(Path("photos/eval").rglob("*.png"))]
    Path("eval.txt").write_text("".join(lines * 20_000))
    endpoints = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))
    own = {"PADDLE_TRAINERS_NUM": "2", "PADDLE_TRAINER_ENDPOINTS": endpoints}
    given = (*TOGETHER, "data.eval=eval.txt", "eval.batch_size=1")
    processes = [start(*given, **own, PADDLE_TRAINER_ID=str(rank)) for rank in (0, 1)]
    heart = Path("runs/together/heartbeat")
    while not heart.exists() or "evaluating" not in heart.read_text():
        time.sleep(0.05)
        assert processes[0].poll() is None
    processes[1].send_signal(signal.SIGTERM)
    for process in processes:
        process.communicate()
        assert process.returncode == 130
    assert not records("together", "eval")
    assert Path("runs/together/latest.safetensors").exists()


def test_parts_of_a_step_are_even_and_complete():
    photos = np.arange(10)
    parts = [Processes(rank, 4).part(photos).tolist() for rank in range(4)]
    assert parts == [[0, 1, 2], [3, 4, 5], [6, 7], [8, 9]]
    assert [Processes(rank, 4).part(photos[:2]).tolist() for rank in range(4)] == [[0], [1], [], []]
    assert [list(Processes(rank, 3).own(range(7))) for rank in range(3)] == [
        [0, 3, 6], [1, 4], [2, 5],
    ]  # fmt: skip


class OneOfThree(Processes):
    """The second, which hears of what the others gather."""

    def gather(self, value):
        return [[0, 3, 6], value, [2, 5]]


def test_what_was_dealt_out_comes_back_in_order():
    assert OneOfThree(1, 3).dealt([1, 4]) == [0, 1, 2, 3, 4, 5, 6]


def test_buckets_hold_every_parameter_once():
    sizes = [4, 4, 4, 25, 1]
    groups = buckets([paddle.zeros([size]) for size in sizes], 10)
    assert [[p.size for p in group] for group in groups] == [[4, 4], [4], [25], [1]]
