"""Training on tar shards: exact after an interruption, split between processes, as on a folder."""

import numpy as np
import pytest
from test_resume import TRAIN, cut, records, state

from ppcls.data.make_shards import make_shards
from ppcls.train.distributed import Processes


@pytest.fixture
def sharded(workdir, monkeypatch):
    """Options that train on shards of the working directory's images."""
    monkeypatch.setenv("PPCLS_HOME", str(workdir / "home"))
    options = []
    for part in ("train", "eval"):
        make_shards(f"photos/{part}", workdir / "shards", 20_000, part)
        last = len(list((workdir / "shards").glob(f"{part}-*.tar"))) - 1
        assert last > 0
        options.append(f"data.{part}=shards/{part}-{{000000..{last:06}}}.tar")
    return options


def test_a_cut_run_over_shards_goes_on_bit_for_bit(sharded, run, monkeypatch, workdir):
    options = [*sharded, "train.epochs=3", "train.save_every=1 steps"]
    assert run(*TRAIN, *options, "output=runs/whole")[0] == 0
    with monkeypatch.context() as patch:
        cut(patch, step=4)  # in the second epoch of three steps
        with pytest.raises(SystemExit, match="cut"):
            run(*TRAIN, *options, "output=runs/cut")
    code, out, _ = run(*TRAIN, *options, "output=runs/cut", "--resume")
    assert code == 0
    assert "resuming after step 4 of 9" in out
    assert state(workdir / "runs/cut") == state(workdir / "runs/whole")
    assert records(workdir / "runs/cut") == records(workdir / "runs/whole")


@pytest.mark.slow
def test_reports_and_exports_show_photos_of_shards(sharded, run, workdir):
    assert run(*TRAIN, *sharded, "train.epochs=1")[0] == 0
    assert run("eval", "-c", "recipe.yaml", "--report", "report", "-o", *sharded)[0] == 0
    text = (workdir / "report/scores.csv").read_text()
    assert "shards/eval-000000.tar:000000.png" in text
    assert run("show-data", "-c", "recipe.yaml", "-o", *sharded)[0] == 0
    assert run("export", "-c", "recipe.yaml", "-o", *sharded)[0] == 0


def test_every_process_gets_its_share_of_each_step():
    """A step's images are split by index, whatever shard they are in."""
    step = np.random.default_rng(0).permutation(13)
    parts = [Processes(rank, 3).part(step) for rank in range(3)]
    assert np.concatenate(parts).tolist() == step.tolist()
    assert [len(part) for part in parts] == [5, 4, 4]
