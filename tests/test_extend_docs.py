"""docs/extend.md: its files are written out and its commands run, shortened; runs resume alike."""

import re
import shlex
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from cut_run import cut
from PIL import Image

from ppcls.weights import files

PAGE = (Path(__file__).parent.parent / "docs" / "extend.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL)
SHORT = ["train.epochs=2", "train.batch_size=4", "train.log_every=1", "data.workers=0"]
COUNT = ["data.train.count=20", "data.eval.count=10"]
FEW = ["data.labeled=0.02"]
LONGEST = 30  # lines of an example


@pytest.fixture
def written(tmp_path, monkeypatch):
    """The page's files in the working folder, under names that no other test imports."""
    monkeypatch.chdir(tmp_path)
    for name, text in BLOCKS:
        (tmp_path / name).write_text(text)
    Image.new("L", (8, 8), 200).save("seven.png")
    return tmp_path


def commands(title):
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    lines = "".join(re.findall(r"```bash\n(.*?)```", section, re.DOTALL)).splitlines()
    words = [shlex.split(line) for line in lines]
    assert all(first == "ppcls" for first, *_ in words)
    return [rest for _, *rest in words]


def test_examples_are_short():
    assert [name for name, text in BLOCKS if text.count("\n") > LONGEST] == []


@pytest.mark.parametrize(
    ("title", "more"),
    [
        ("A dataset", COUNT),
        pytest.param("A network", FEW, marks=pytest.mark.slow),
        pytest.param("A loss", FEW, marks=pytest.mark.slow),
        pytest.param("A transform", FEW, marks=pytest.mark.slow),
    ],
)
def test_a_part_is_trained_resumed_exported_and_predicted_with(
    title, more, written, run, monkeypatch, one_engine
):
    whole = {}
    out = ""
    for words in commands(title):
        short = ["-o", *SHORT, *more] if words[0] in ("train", "show-data") else []
        if "--resume" in words:  # a run that was cut, instead of one that is done
            folder = Path("runs") / Path(words[2]).stem
            whole = files.read(folder / "latest.safetensors").tensors
            shutil.rmtree(folder)
            again = [word for word in words if word != "--resume"]
            with monkeypatch.context() as patch:
                cut(patch, step=1 + int(re.findall(r"epochs of (\d+) steps", out)[0]))
                with pytest.raises(SystemExit):
                    run(*again, *short)
        with one_engine() if words[0] == "predict" else nullcontext():
            code, out, err = run(*words, *short)
        assert (code, err) == (0, ""), words
        if "--resume" in words:
            assert "resuming after step" in out
            resumed = files.read(folder / "latest.safetensors").tensors
            assert resumed.keys() == whole.keys()
            assert all((resumed[name] == whole[name]).all() for name in whole)
    assert whole
    assert "seven.png: " in out


@pytest.mark.slow
def test_an_own_engine_predicts(written, run):
    given = ["-o", *SHORT, *COUNT]
    assert run("train", "-c", "my_digits.yaml", "--use", "my_data", *given)[0] == 0
    for words in commands("An engine"):
        code, out, _ = run(*words)
        assert code == 0
    assert "engine: my_engines.OneThread" in out


@pytest.mark.slow
def test_the_script_runs(written):
    script = (written / "my_run.py").read_text().replace('"epochs": 3', '"epochs": 1')
    (written / "my_run.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "my_run.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (written / "exported" / "my_run" / "inference.onnx").exists()


@pytest.mark.slow
def test_a_network_s_import_path_is_a_name(written, run):
    given = ["-o", *SHORT, *FEW, "train.epochs=1", "model.name=my_nets.SmallNet"]
    assert run("train", "-c", "my_net.yaml", "--use", "my_nets", *given)[0] == 0
    weights = "runs/my_net/best.safetensors"
    assert run("eval", "--weights", weights, "--use", "my_nets")[0] == 0
    code, _, err = run("train", "-c", "my_net.yaml", "-o", "model.name=my_nets.SmalNet")
    assert code == 2
    assert "my_nets has no SmalNet; it has SmallNet" in err
