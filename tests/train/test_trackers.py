"""Trackers hold the numbers of run.jsonl, each once, as their own readers find them."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from ppcls.config.load import load
from ppcls.recipe import Recipe
from ppcls.train import setup
from ppcls.train.callbacks import Callback
from ppcls.utils.log import read_records

TRAIN = ("train", "-c", "recipe.yaml", "-o", "output=run")


def recorded(folder="run"):
    """The curves of run.jsonl: {"train/loss": {step: value}}."""
    curves = {}
    for record in read_records(Path(folder) / "run.jsonl"):
        for name, value in record.items():
            if name not in ("event", "step", "time"):
                curves.setdefault(f"{record['event']}/{name}", {})[record["step"]] = value
    assert {"train/loss", "train/lr", "eval/top1", "eval/loss"} <= set(curves)
    return curves


def narrow(curves):
    """As float32, which VisualDL and TensorBoard keep."""
    return {
        name: {step: float(np.float32(value)) for step, value in points.items()}
        for name, points in curves.items()
    }


def once(points):
    """Points (step, value) by step; none stands there twice."""
    found = dict(points)
    assert len(found) == len(points)
    return found


def seen_by_visualdl(folder="run"):
    reader = pytest.importorskip("visualdl").LogReader(file_path=str(logs(f"{folder}/vdl")[0]))
    tags = reader.get_tags()["scalar"]
    return {t: once([(p.id, p.value) for p in reader.get_data("scalar", t)]) for t in tags}


def logs(folder):
    found = list(Path(folder).iterdir())
    assert len(found) == 1
    return found


def seen_by_tensorboard(folder="run"):
    """Records of an event file: length, its check sum, bytes, theirs."""
    event = pytest.importorskip("tensorboardX.proto.event_pb2").Event
    data = logs(f"{folder}/tensorboard")[0].read_bytes()
    curves = {}
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        found = event.FromString(data[12 : 12 + length])
        data = data[16 + length :]
        for value in found.summary.value:
            curves.setdefault(value.tag, []).append((found.step, value.simple_value))
    return {tag: once(points) for tag, points in curves.items()}


FILES = {"visualdl": seen_by_visualdl, "tensorboard": seen_by_tensorboard}


@pytest.mark.parametrize("kind", FILES)
def test_files_hold_the_numbers_of_the_log(kind, workdir, run):
    """Also of a run that goes on, from a checkpoint before the log's end, and that had none."""
    see = FILES[kind]
    pytest.importorskip({"tensorboard": "tensorboardX"}.get(kind, kind))
    assert run(*TRAIN, f"log={kind}", "train.epochs=1")[0] == 0
    first = narrow(recorded())
    assert see() == first
    with Path("run/run.jsonl").open("a") as file:  # of a process that died
        file.write(json.dumps({"event": "train", "step": 4, "time": 1.0, "loss": 7.0}) + "\n")
    code, _out, err = run(*TRAIN, f"log=[{kind}]", "--resume")
    assert code == 0, err
    assert see() == narrow(recorded())
    assert sorted(see()["train/loss"]) == [1, 2, 3, 4, 5, 6]
    assert see()["train/loss"][4] != 7.0
    assert first["train/loss"].items() <= see()["train/loss"].items()


def test_nothing_is_tracked_unless_asked_for(workdir, run):
    assert run(*TRAIN, "log=[]", "train.epochs=1")[0] == 0
    pytest.importorskip("tensorboardX")
    names = {path.name for path in Path("run").iterdir()}
    assert not names & {"vdl", "tensorboard", "wandb", "trackers.json"}
    assert run(*TRAIN, "log=[tensorboard]", "--resume")[0] == 0
    assert seen_by_tensorboard() == narrow(recorded())  # of what came before, too
    assert run(*TRAIN, "log=[]", "train.epochs=1", "--overwrite")[0] == 0
    assert "tensorboard" not in {path.name for path in Path("run").iterdir()}


WRONG = {
    "[tensorbord]": "log.0.kind: unknown 'tensorbord'; did you mean 'tensorboard'?",
    "[comet]": "log.0.kind: unknown 'comet'; known: visualdl, tensorboard, mlflow, wandb",
    "[wandb, wandb]": "log: wandb stands there twice",
    "{kind: wandb, mode: offf}": "log.mode: should be 'online' or 'offline' (got 'offf')",
    "[{kind: wandb, projekt: x}]": "unknown key 'log.0.projekt'; did you mean 'project'?",
    "[{kind: mlflow, uri: 'htp://x'}]": "log.0.uri: 'htp' is no kind of address; did you mean",
    "[{kind: mlflow, uri: 'http://me:secret@x'}]": "give the address by the variable MLFLOW_",
}


@pytest.mark.parametrize("given", WRONG)
def test_mistakes_are_located(given, workdir, run):
    Path("wrong.yaml").write_text(f"_base_: recipe.yaml\nlog: {given}\n")
    code, _, err = run("train", "-c", "wrong.yaml")
    assert code == 2
    assert "wrong.yaml:2: " in err
    assert WRONG[given] in err
    assert not Path("runs").exists()


def test_what_is_not_installed_is_said_first(workdir, run, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    code, _, err = run(*TRAIN, "log=[wandb]", "data.train=away")
    assert code == 2
    assert "log: wandb cannot be imported" in err
    assert "pip install 'ppcls[wandb]', or without trackers: -o log=[]" in err
    assert not Path("run").exists()


# --------------------------------------------------------------------------- kept elsewhere

slow = pytest.mark.slow


@pytest.fixture
def mlflow(monkeypatch):
    """MLflow's own client, for a database in a file."""
    found = pytest.importorskip("mlflow", reason="pip install 'ppcls[mlflow]'")
    pytest.importorskip("alembic", reason="pip install 'ppcls[mlflow]'")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.delenv(name, raising=False)
    return found


DATABASE = "{kind: mlflow, uri: 'sqlite:///ml.db', experiment: ants and bees, name: first}"
FOLDER = "{kind: mlflow, uri: tracked}"


def runs_of(mlflow, uri, experiment):
    client = mlflow.MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    return client, client.search_runs(found.experiment_id)


def curves_of(client, run):
    return {
        name: once([(p.step, p.value) for p in client.get_metric_history(run.info.run_id, name)])
        for name in run.data.metrics
    }


@slow
@pytest.mark.parametrize("given", [DATABASE, FOLDER])
def test_mlflow(given, mlflow, workdir, run):
    where = ("sqlite:///ml.db", "ants and bees") if given == DATABASE else ("tracked", "ppcls")
    code, out, err = run(*TRAIN, f"log=[{given}]", "train.epochs=1")
    assert code == 0, err
    client, (found,) = runs_of(mlflow, *where)
    assert f"mlflow: run {found.info.run_id} of experiment {where[1]} at {where[0]}" in out
    assert found.info.status == "FINISHED"
    assert found.info.run_name == ("first" if given == DATABASE else "run")
    assert curves_of(client, found) == recorded()
    assert found.data.params["train.schedule.lr"] == "0.005"
    assert found.data.params["train.schedule.warmup"] == "1 steps"
    assert json.loads(found.data.params["train.transforms"])[1]["op"] == "horizontal_flip"
    assert [file.path for file in client.list_artifacts(found.info.run_id)] == ["curves.png"]
    # Without a tracker for a while; then it has all, in the same run.
    assert run(*TRAIN, "log=[]", "train.epochs=2", "--resume")[0] == 0
    assert run(*TRAIN, f"log=[{given}]", "train.epochs=3", "--resume")[0] == 0
    client, (found,) = runs_of(mlflow, *where)
    assert curves_of(client, found) == recorded()
    assert sorted(curves_of(client, found)["train/loss"]) == list(range(1, 10))
    # One that was deleted there is begun anew.
    client.delete_run(found.info.run_id)
    assert run(*TRAIN, f"log=[{given}]", "train.epochs=4", "--resume")[0] == 0
    client, (another,) = runs_of(mlflow, *where)
    assert another.info.run_id != found.info.run_id
    assert curves_of(client, another) == recorded()


@slow
def test_a_tracker_that_fails_in_the_middle_is_left_out_and_caught_up(mlflow, workdir, capsys):
    place = workdir / "elsewhere"

    class Cut(Callback):
        """Between two records a file stands where the folder was, as on a broken disk."""

        def record(self, event, step, values):
            if step == 2:
                place.rename("kept")
                place.write_text("no folder")

    def trained(callbacks, **options):
        given = ("output=run", f"log=[{{kind: mlflow, uri: {place}}}]")
        recipe = load(Recipe, "recipe.yaml", given)
        assert setup.train(recipe, callbacks=callbacks, **options)
        return capsys.readouterr().out

    out = trained([Cut()])
    assert out.count("it is left out from here on") == 1
    assert "note: log: mlflow.record: " in out
    assert "finished: run/" in out
    place.unlink()
    Path("kept").rename(place)
    trained([], resume=True)
    client, (found,) = runs_of(mlflow, str(place), "ppcls")
    assert curves_of(client, found) == recorded()
    assert found.info.status == "FINISHED"


@slow
def test_mlflow_that_is_not_there_is_said_before_training(mlflow, workdir, run, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    code, _, err = run(*TRAIN, "log=[{kind: mlflow, uri: 'http://127.0.0.1:9'}]")
    assert code == 2
    assert "log: mlflow cannot begin at http://127.0.0.1:9 (" in err
    assert len(err.splitlines()) == 1
    assert not Path("run/latest.safetensors").exists()


@pytest.fixture
def wandb(monkeypatch, tmp_path):
    found = pytest.importorskip("wandb", reason="pip install 'ppcls[wandb]'")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    return found


def parts_of(path):
    """The records of a file of wandb: LevelDB's log, in blocks of 32 KiB, after 7 bytes."""
    data = path.read_bytes()
    assert data.startswith(b":W&B")
    at, record = 7, b""
    while at + 7 <= len(data):
        room = 32768 - at % 32768
        if room < 7:
            at += room
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def seen_by_wandb(path):
    """The rows of an offline run."""
    from wandb.proto.wandb_internal_pb2 import Record

    curves = {}
    for part in parts_of(path):
        row = {}
        for item in Record.FromString(part).history.item:
            row["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
        for name, value in row.items():
            if name.startswith(("train/", "eval/")):
                curves.setdefault(name, []).append((row["step"], value))
    return {name: once(points) for name, points in curves.items()}


@slow
def test_wandb_offline(wandb, workdir, run):
    given = "log=[{kind: wandb, mode: offline, project: ants}]"
    code, out, err = run(*TRAIN, given, "train.epochs=1")
    assert code == 0, err
    (first,) = Path("run/wandb").glob("offline-run-*")
    assert f"later: wandb sync {first}" in out
    (file,) = first.glob("run-*.wandb")
    assert seen_by_wandb(file) == recorded()
    assert list(first.glob("files/media/images/curves_*.png"))
    # A run that goes on goes on under the same name, with the steps that are new.
    assert run(*TRAIN, given, "train.epochs=2", "--resume")[0] == 0
    parts = {
        path
        for folder in Path("run/wandb").glob("offline-run-*")
        for path in folder.glob("run-*.wandb")
    }
    assert {path.name for path in parts} == {file.name}
    curves = {}
    for path in parts:
        for name, points in seen_by_wandb(path).items():
            assert not set(points) & set(curves.setdefault(name, {}))
            curves[name] |= points
    assert curves == recorded()


@slow
def test_wandb_without_a_login_is_said_before_training(wandb, workdir, run):
    code, _, err = run(*TRAIN, "log=[wandb]")
    assert code == 2
    assert "log: wandb is not logged in: wandb login, or the variable WANDB_API_KEY" in err
    assert not Path("run/latest.safetensors").exists()
