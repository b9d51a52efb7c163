"""Progress where there is no terminal, and records that survive a crash."""

from ppcls import log


def test_progress_is_a_line_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(log, "QUIET_SECONDS", -1)
    progress = log.Progress(iter("abc"), "reading", total=3)
    for letter in progress:
        progress.note = f"at {letter}"
    assert capsys.readouterr().out.splitlines() == ["reading: 1/3 at a", "reading: 2/3 at b"]


def test_short_work_says_nothing(capsys):
    assert list(log.Progress(range(3), "reading", total=3)) == [0, 1, 2]
    assert capsys.readouterr().out == ""


def test_a_resumed_log_forgets_what_came_after_the_checkpoint(tmp_path):
    """By what is added to it: not a byte that stood there changes."""
    with log.Scalars(tmp_path, step=0) as scalars:
        for step in (1, 2, 3):
            scalars.write("train", step, loss=1.0 / step)
    path = tmp_path / "run.jsonl"
    path.write_text(path.read_text() + '{"event": "train", "st')  # cut by a crash
    before = path.read_bytes()
    with log.Scalars(tmp_path, step=2) as scalars:
        scalars.write("train", 3, loss=9.0)
    assert path.read_bytes().startswith(before + b"\n")
    assert [(r["step"], r["loss"]) for r in log.read_records(path)] == [
        (1, 1.0),
        (2, 0.5),
        (3, 9.0),
    ]
    with log.Scalars(tmp_path, step=1) as scalars:
        scalars.write("train", 2, loss=8.0)
    assert [(r["step"], r["loss"]) for r in log.read_records(path)] == [(1, 1.0), (2, 8.0)]
    assert log.read_records(tmp_path / "gone.jsonl") == []
