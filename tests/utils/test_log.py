"""Progress where there is no terminal, and records that survive a crash."""

from ppcls.utils import log


class Clock:
    """Seconds that pass only where a test says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def ticks(self, count, seconds):
        for i in range(count):
            yield i
            self.now += seconds


def lines_of(count, seconds, capsys, **more):
    clock = Clock()
    progress = log.Progress(clock.ticks(count, seconds), "reading", count, clock=clock, **more)
    list(progress)
    return capsys.readouterr().out.splitlines()


def test_progress_says_how_far_how_fast_and_how_long(capsys):
    clock = Clock()
    progress = log.Progress(clock.ticks(5, 4), "reading", total=8, start=3, clock=clock)
    for item in progress:
        progress.note = f"at {item}"
        if item == 3:
            progress.left = 7200
    assert capsys.readouterr().out.splitlines() == [
        "reading: 7/8, 0.333 a second, at 3, 2.0 hours left in all",
    ]
    assert lines_of(3, 10, capsys) == [
        "reading: 2/3, 0.2 a second, 5 seconds left",
    ]


def test_lines_become_rarer_and_stay_few(capsys):
    day = 24 * 3600
    said = lines_of(day, 1, capsys)
    found = [int(line.split()[1].split("/")[0]) - 1 for line in said]
    assert found[:6] == [10, 20, 40, 80, 160, 320]
    assert found[7] - found[6] == 600
    assert len(found) == 149


def test_parts_of_something_longer_share_its_pace(capsys):
    clock = Clock()
    pace = log.Pace(clock)
    for _ in range(1000):
        list(log.Progress(clock.ticks(25, 1), "epoch", 25, pace=pace, clock=clock))
    assert len(capsys.readouterr().out.splitlines()) < 50


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
