"""deploy/slurm/train.sbatch and deploy/k8s/train.yaml, and who they say a process is."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from ppcls.train import rendezvous
from ppcls.train.launch import INTERRUPTED, LOST
from ppcls.utils.errors import TRY_AGAIN, UserError

ROOT = Path(__file__).parents[2]
SBATCH = ROOT / "deploy/slurm/train.sbatch"
SERVICE, JOB = yaml.safe_load_all((ROOT / "deploy/k8s/train.yaml").read_text())
POD = JOB["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
ENV = {one["name"]: one["value"] for one in CONTAINER["env"]}

SRUN = """#!/bin/bash
printf '%s\\n' "$@" > srun.args
echo "$MASTER_ADDR $MASTER_PORT $PPCLS_STALL_SECONDS $SRUN_CPUS_PER_TASK" > srun.env
exit {code}
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then printf 'node7\\nnode8\\n'; else echo "$*" >> requeued; fi
"""


@pytest.fixture
def slurm(tmp_path):
    """Run the script on a Slurm whose job steps end with an exit code."""

    def slurm(code=0, args=(), srun=SRUN, **more):
        programs = tmp_path / "bin"
        programs.mkdir(exist_ok=True)
        for name, text in {
            "srun": srun.replace("{code}", str(code)),
            "scontrol": SCONTROL,
            "scancel": '#!/bin/bash\necho "$*" >> cancelled\n',
        }.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        (tmp_path / "requeued").unlink(missing_ok=True)
        env = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "SLURM_JOB_ID": "41234"}
        env |= {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_CPUS_PER_TASK": "8"}
        env |= {"OUTPUT": "runs/away"} | more
        done = subprocess.run(
            ["bash", SBATCH, *args],
            check=False,
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
        )
        requeued = tmp_path / "requeued"
        return done, requeued.read_text().split() if requeued.exists() else []

    return slurm


def test_script_starts_a_run_and_goes_on_with_it(slurm, tmp_path):
    done, requeued = slurm(args=["-o", "train.epochs=3"])
    assert (done.returncode, requeued) == (0, [])
    args = (tmp_path / "srun.args").read_text().split()
    command = "ppcls train -c recipe.yaml --overwrite -o train.epochs=3 -o output=runs/away"
    assert args == ["--kill-on-bad-exit=0", *command.split()]
    assert (tmp_path / "srun.env").read_text() == "node7 25234 1800 8\n"
    (tmp_path / "runs/away").mkdir(parents=True)
    (tmp_path / "runs/away/latest.safetensors").touch()
    slurm()
    assert "--resume" in (tmp_path / "srun.args").read_text().split()
    subprocess.run(["bash", "-n", SBATCH], check=True)


@pytest.mark.parametrize(
    ("code", "again"),
    [(0, 0), (2, 0), (1, 1), (LOST, 1), (TRY_AGAIN, 1), (INTERRUPTED, 1), (137, 1)],
)
def test_script_tries_again_what_may_go_well(slurm, code, again):
    done, requeued = slurm(code)
    assert requeued == ["requeue", "41234"] * again
    assert done.returncode == (0 if again else code)


def test_script_does_not_try_for_ever(slurm, tmp_path):
    """Losses are counted, and what Slurm itself ends is not."""
    for _ in range(3):
        assert slurm(INTERRUPTED, MOST_RESTARTS="2")[1]
    for _ in range(2):
        assert slurm(LOST, MOST_RESTARTS="2")[1]
    assert slurm(INTERRUPTED, MOST_RESTARTS="2")[1]
    done, requeued = slurm(LOST, MOST_RESTARTS="2")
    assert (done.returncode, requeued) == (LOST, [])
    assert "after 2 restarts" in done.stderr
    assert list((tmp_path / "runs").iterdir()) == []


def test_script_saves_and_ends_when_it_is_asked(slurm, tmp_path):
    cancelled = "#!/bin/bash\nkill -TERM $PPID\nsleep 0.3\nexit 130\n"
    done, requeued = slurm(srun=cancelled)
    assert (done.returncode, requeued) == (130, [])
    assert (tmp_path / "cancelled").read_text() == "--signal=TERM 41234\n"


def test_job_is_as_the_schemas_of_kubernetes_say():
    schemas = pytest.importorskip("kubernetes_validate", reason="pip install 'ppcls[test]'")
    for version in ("1.31", schemas.latest_version()):
        for one in (SERVICE, JOB):
            schemas.validate(one, version, strict=True)
        wrong = json.loads(json.dumps(JOB))
        wrong["spec"]["completionmode"] = "Indexed"
        with pytest.raises(schemas.ValidationError):
            schemas.validate(wrong, version, strict=True)


def test_job_agrees_with_itself_and_with_ppcls():
    spec = JOB["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == int(ENV["WORLD_SIZE"])
    first = f"{JOB['metadata']['name']}-0.{POD['subdomain']}"
    assert ENV["MASTER_ADDR"] == first
    assert SERVICE["metadata"]["name"] == POD["subdomain"]
    assert SERVICE["spec"]["clusterIP"] == "None"
    assert SERVICE["spec"]["selector"] == spec["template"]["metadata"]["labels"]
    assert SERVICE["spec"]["ports"][0]["port"] == int(ENV["MASTER_PORT"])
    mistake = spec["podFailurePolicy"]["rules"][0]
    assert mistake["action"] == "FailJob"
    assert mistake["onExitCodes"]["values"] == [2]
    asked = spec["podFailurePolicy"]["rules"][1]
    assert (asked["action"], asked["onExitCodes"]["values"]) == ("Ignore", [INTERRUPTED])
    assert POD["restartPolicy"] == "Never"  # which the policy needs
    mounts = {mount["name"] for mount in CONTAINER["volumeMounts"]}
    assert mounts == {volume["name"] for volume in POD["volumes"]}


def test_job_starts_a_run_and_goes_on_with_it(tmp_path):
    (tmp_path / "ppcls").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "ppcls").chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [*CONTAINER["command"], *CONTAINER["args"]]
    for flag in ("--overwrite", "--resume"):
        done = subprocess.run(
            command, check=True, cwd=tmp_path, env=env, capture_output=True, text=True
        )
        assert done.stdout == f"train -c recipe.yaml {flag} -o output=train data.workers=2\n"
        (tmp_path / "train").mkdir(exist_ok=True)
        (tmp_path / "train/latest.safetensors").touch()


@pytest.mark.slow
def test_pods_of_the_job_train_together(workdir, tmp_path):
    """Two of them, as processes, which go on where they were after both are asked to end."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "ppcls").write_text(f'#!/bin/sh\nexec {sys.executable} -m ppcls "$@"\n')
    (programs / "ppcls").chmod(0o755)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    env = os.environ | ENV | {"PATH": f"{programs}:{os.environ['PATH']}", "WORLD_SIZE": "2"}
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PPCLS_HOME": str(tmp_path)}
    command = [*CONTAINER["command"], "data.workers=0", "train.batch_size=2"]

    def pods(epochs):
        return [
            subprocess.Popen(
                [*command, f"train.epochs={epochs}"],
                env=env | {"JOB_COMPLETION_INDEX": str(index)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for index in (0, 1)
        ]

    both = pods(200)
    record = workdir / "train/run.jsonl"
    while not record.exists() or '"step": 2' not in record.read_text():
        time.sleep(0.05)
        assert both[0].poll() is None, both[0].communicate()
    both[1].terminate()
    said = [pod.communicate()[0] for pod in both]
    assert [pod.returncode for pod in both] == [INTERRUPTED] * 2, said
    both = pods(40)
    said = [pod.communicate()[0] for pod in both]
    assert [pod.returncode for pod in both] == [0, 0], said
    assert "resuming after step" in said[0]


@pytest.fixture
def environment(monkeypatch):
    """Only these variables of launchers."""

    def environment(**given):
        names = {name for pair in rendezvous.LAUNCHERS for name in pair}
        names |= {"MASTER_ADDR", "MASTER_PORT", "PADDLE_MASTER", rendezvous.ENDPOINTS}
        names |= {*rendezvous.ON_NODE, rendezvous.GPU, "CUDA_VISIBLE_DEVICES"}
        for name in names:
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)

    return environment


MEETING = {"MASTER_ADDR": "node7", "MASTER_PORT": "23456"}


@pytest.mark.parametrize(
    "names",
    [
        ("PADDLE_TRAINER_ID", "PADDLE_TRAINERS_NUM"),
        ("RANK", "WORLD_SIZE"),
        ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
        ("JOB_COMPLETION_INDEX", "WORLD_SIZE"),
    ],
)
def test_launchers_say_which_process_this_is(environment, names):
    environment(**{names[0]: "2", names[1]: "4"}, **MEETING)
    assert rendezvous.process_count() == 4
    found = rendezvous.meeting()
    assert (found.own.rank, found.own.count, found.address) == (2, 4, "node7:23456")
    environment(**{names[0]: "4", names[1]: "4"}, **MEETING)
    with pytest.raises(UserError, match=f"{names[0]}=4: {names[1]}=4 processes are numbered from"):
        rendezvous.meeting()
    page = (ROOT / "docs/scale.md").read_text()
    assert re.search(rf"\| `{names[0]}`, `{names[1]}` ", page)


def test_the_page_has_each_variable_that_training_reads():
    table = (ROOT / "docs/scale.md").read_text().partition("Who a process is")[2]
    names = set()
    for path in set((ROOT / "ppcls/train").glob("*.py")) - {ROOT / "ppcls/train/trackers.py"}:
        names |= set(re.findall(r'"((?:[A-Z]+_)+[A-Z]+|RANK|FLAGS_\w+)"', path.read_text()))
    names -= {"PADDLE_RANK_IN_NODE", "PADDLE_DISTRI_BACKEND", "PPCLS_LAUNCHED"}  # set, for Paddle
    assert {"PPCLS_STALL_SECONDS", "MASTER_PORT", "FLAGS_selected_gpus"} <= names
    assert [name for name in sorted(names) if f"`{name}`" not in table] == []


def test_a_shell_of_slurm_or_a_pod_alone_is_no_launcher(environment):
    environment(SLURM_PROCID="0", SLURM_STEP_NUM_TASKS="4", RANK="0", WORLD_SIZE="4")
    assert rendezvous.process_count() == 1


@pytest.mark.parametrize(
    ("given", "gpu"),
    [
        ({"LOCAL_RANK": "3"}, "3"),
        ({"SLURM_LOCALID": "1", "CUDA_VISIBLE_DEVICES": "4,5"}, "1"),
        ({"SLURM_LOCALID": "1", "CUDA_VISIBLE_DEVICES": "5"}, "0"),
        ({}, None),
    ],
)
def test_paddle_is_told_who_it_is_and_which_gpu_is_its_own(environment, given, gpu):
    environment(**given)
    rendezvous.tell_paddle(rendezvous.Member(3, 4))
    assert (os.environ["PADDLE_TRAINER_ID"], os.environ["PADDLE_TRAINERS_NUM"]) == ("3", "4")
    assert os.environ.get(rendezvous.GPU) == gpu
    for name in ("PADDLE_TRAINER_ID", "PADDLE_TRAINERS_NUM", rendezvous.GPU):
        os.environ.pop(name, None)


@pytest.mark.slow
def test_script_trains_in_two_processes_and_goes_on_after_its_limit(slurm, workdir, tmp_path):
    """Slurm's part is played by a script that starts both, and asks them to end once."""
    srun = f"""#!/bin/bash
shift 2
export SLURM_STEP_NUM_TASKS=2
for SLURM_PROCID in 0 1; do
    export SLURM_PROCID
    MASTER_ADDR=127.0.0.1 {sys.executable} -m ppcls "$@" > "log.$SLURM_PROCID" 2>&1 &
done
if [ ! -e asked ]; then
    touch asked
    until grep -q '"step": 2' runs/away/run.jsonl 2>/dev/null || [ -z "$(jobs -rp)" ]; do
        sleep 0.1
    done
    kill -TERM $(jobs -p)
fi
code=0
for job in $(jobs -p); do wait "$job" || code=$?; done
exit $code
"""
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True) if workdir != tmp_path else None
    own = ["-o", "train.epochs=40", "train.batch_size=2"]
    done, requeued = slurm(srun=srun, args=own)
    assert requeued, done.stderr + (tmp_path / "log.0").read_text()
    assert "exit code 130: the run goes on" in done.stderr
    own = ["-o", "train.epochs=40", "train.batch_size=2"]
    done, requeued = slurm(srun=srun, args=own)
    assert (done.returncode, requeued) == (0, []), (tmp_path / "log.0").read_text()
    assert "resuming after step" in (tmp_path / "log.0").read_text()
