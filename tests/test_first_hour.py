"""Every command of docs/first_hour.md runs as it stands there, on a few images of noise."""

import re
import shlex
from pathlib import Path

import pytest
from photos import write_photo

PAGE = (Path(__file__).parent.parent / "docs/first_hour.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]
# Training is short.
EASIER = ("-o", "train.epochs=1", "data.workers=0", "preprocess.resize=32", "preprocess.crop=32")


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in range(12):
        write_photo(tmp_path / "photos" / ("ants" if i % 2 else "bees") / f"{i}.jpg", i)


def test_there_is_a_whole_way():
    assert [shlex.split(line)[1] for line in COMMANDS] == [
        *("train", "predict", "train"),
        *("init", "check-data", "show-data", "train", "train"),
        *("eval", "export", "predict"),
    ]


@pytest.mark.slow
def test_every_command_runs_in_order(photos, run):
    for line in COMMANDS:
        program, *words = shlex.split(line)
        assert program == "ppcls"
        easier = EASIER if words[0] in ("train", "init") else ()
        code, _, err = run(*words, *easier)
        # Noise has findings, which are what 1 says of check-data.
        assert code in ((0, 1) if words[0] == "check-data" else (0,)), f"{line}: {err}"
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "first_hour.md", "exec"), {})
    assert len(Path("results.csv").read_text().splitlines()) == 1 + 2 * 6
