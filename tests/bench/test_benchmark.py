"""`deploy/benchmark.py`: plan, records, measurements, tables, and docs/benchmarks.md."""

import csv
import io
import json
import re
from dataclasses import asdict

import cv2
import numpy as np
import pytest
from described_machine import describe

import ppcls  # noqa: F401  before paddle
from ppcls.bench import benchmark, measure, plan, tables
from ppcls.bench.plan import Cell, Conditions, Model, Plan, by_name, make_plan, of_folder
from ppcls.data.preprocess import Preprocess
from ppcls.dev.facts import ROOT, published
from ppcls.inference.engines.base import Settings
from ppcls.inference.engines.table import open_engine
from ppcls.inference.exported_model import open_exported
from ppcls.models import complexity
from ppcls.utils.errors import UserError
from ppcls.utils.log import read_records

QUICK = Conditions(rounds=2, seconds=0.02)
HEADER = {
    "machine": {"processor": "P", "cores": 2, "memory_gib": 8},
    "versions": {"paddlepaddle": "3.3.1"},
    "conditions": asdict(QUICK),
}


def record(cell: Cell, **figures) -> dict:
    """A cell's record, complete with made-up figures."""
    known = dict.fromkeys(tables.COLUMNS, 1)
    known |= {"network": cell.model, "crop": 224, "resize": 256, "relative_error": 1e-6}
    known |= {"agrees": True, "median_ms": 12.5, **asdict(cell), **figures}
    return {"kind": "cell", **{k: v for k, v in known.items() if k != "failed" or k in figures}}


PHOTOS = {"kind": "photos", "resize": 256, "crop": 224, "interpolation": "bilinear"}
PHOTOS |= {"read_ms": 1.5, "normalize_ms": 0.2, "postprocess_ms": 0.04, "photos": "made up"}


def cells(*models: str) -> list[Cell]:
    plan = make_plan(models, [], QUICK, [8, 1], ["onnxruntime", "paddle"], threads=[2])
    return [cell for model in plan.models for cell in plan.cells(model)]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A small network, measured with two engines; the folder, and whether all agreed."""
    output = tmp_path_factory.mktemp("bench")
    plan = make_plan(["EfficientNetLite0"], [], QUICK, [1, 2], ["onednn", "paddle"], threads=[1])
    return output, plan, benchmark.benchmark(plan, output, keep=True, image_seconds=0)


# --------------------------------------------------------------------------- plan


def test_a_plan_is_the_product():
    found = cells("ResNet18", "ResNet18", "ResNet34")
    assert len(found) == 2 * 2 * 2
    assert [cell.batch for cell in found[:3]] == [1, 8, 1]
    assert {cell.threads for cell in found} == {2}


def test_a_network_in_int8_has_no_other_precision():
    plan = make_plan(["ResNet18"], [], QUICK, [1], ["onednn"], ["fp32", "bf16"])
    quantized = Model("own", "ResNet18", Preprocess(), int8=True)
    assert [cell.precision for cell in plan.cells(plan.models[0])] == ["fp32", "bf16"]
    (cell,) = plan.cells(quantized)
    assert (cell.precision, cell.settings("cpu", 1).precision) == ("int8", "fp32")


def test_all_means_what_has_published_figures_or_weights():
    names = [model.name for model in make_plan(["all"], [], QUICK, [1]).models]
    assert len(names) == 76 == len(set(names))
    assert {"ResNet50_vd", "PPLCNet_x1_0", "EfficientNetLite0"} <= set(names)


def test_photos_are_prepared_as_the_recipes_say():
    from ppcls.config.load import load
    from ppcls.recipe import Recipe

    for name in published():
        assert by_name(name).preprocess == load(Recipe, ROOT / f"configs/{name}.yaml").preprocess


@pytest.mark.parametrize(
    ("names", "more", "said"),
    [
        ([], {}, "nothing to measure"),
        (["ResNet18x"], {}, "did you mean 'ResNet18'"),
        (["ResNet18"], {"engines": ["onnx"]}, "--engines onnx: unknown"),
        (["ResNet18"], {"precisions": ["int4"]}, "--precisions int4: unknown"),
    ],
)
def test_mistakes(names, more, said):
    with pytest.raises(UserError, match=said):
        make_plan(names, [], QUICK, [1], **more)


# --------------------------------------------------------------------------- records


def test_a_half_line_is_dropped_and_finished_cells_are_not_measured_again(tmp_path):
    first, second = cells("ResNet18")[:2]
    path = tmp_path / "records.jsonl"
    plan.Store(path, HEADER).write(record(first))
    with path.open("a") as file:
        file.write(plan.line(record(second))[:40])
    again = plan.Store(path, HEADER)
    assert again.has(asdict(first), "median_ms")
    assert not again.has(asdict(second), "median_ms")
    again.write(record(second))
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()] == [
        "header",
        "cell",
        "cell",
    ]


def test_a_failed_cell_is_tried_again_and_its_last_record_counts(tmp_path):
    cell = cells("ResNet18")[0]
    records = plan.Store(tmp_path / "records.jsonl", HEADER)
    records.write({"kind": "cell", **asdict(cell), "failed": "no"})
    assert not records.has(asdict(cell), "median_ms")
    records.write(record(cell, median_ms=3.0))
    assert [found["median_ms"] for found in plan.cells_of(records.records)] == [3.0]


def test_records_of_another_machine_are_left_alone(tmp_path):
    plan.Store(tmp_path / "r", HEADER)
    other = HEADER | {"versions": {"paddlepaddle": "3.4"}}
    with pytest.raises(UserError, match=r"versions: was measured with paddlepaddle 3.3.1, now it"):
        plan.Store(tmp_path / "r", other)


def test_the_share_is_of_the_highest_peak_for_as_many_threads():
    made_up = [("a", 1, 20, 40), ("b", 1, 30, 50), ("c", 2, 30, 90)]  # threads, GFLOP/s, peak
    records = [
        record(Cell(name, "", "onednn", "fp32", threads, 1), gflops=gflops, peak_gflops=peak)
        for name, threads, gflops, peak in made_up
    ]
    shares = [cell["share_of_fp32_peak"] for cell in plan.cells_of(records)]
    assert shares == [0.4, 0.6, 0.333]


# --------------------------------------------------------------------------- measuring


def test_measurements(measured):
    output, _, agreed = measured
    macs = complexity.count_by_name("EfficientNetLite0").macs
    assert agreed
    lines = [json.loads(line) for line in (output / benchmark.RECORDS).read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["header", "photos", *["cell"] * 4]
    assert min(lines[1][key] for key in ("read_ms", "normalize_ms", "postprocess_ms")) > 0
    for cell in lines[2:]:
        assert 0 < cell["median_ms"] <= cell["p90_ms"] <= cell["p99_ms"]
        assert cell["images_per_second"] == pytest.approx(
            1e3 * cell["batch"] / cell["median_ms"], 1e-2
        )
        gflops = 2 * macs * cell["images_per_second"] / 1e9
        assert cell["gflops"] == pytest.approx(gflops, rel=1e-2)
        assert cell["peak_gflops"] > 1
        assert cell["relative_error"] < 1e-4
        assert cell["runs"] >= 2
        assert cell["interleaved"]
    for name in (tables.LATENCY, "photo.jpg"):
        assert min(cv2.imread(str(output / name)).shape[:2]) > 200


def test_nothing_is_measured_twice(measured, capsys):
    output, plan, _ = measured
    before = (output / benchmark.RECORDS).read_text()
    assert benchmark.benchmark(plan, output, keep=True)
    assert (output / benchmark.RECORDS).read_text() == before
    assert re.search(r"EfficientNetLite0 +224 +(onednn|paddle)", capsys.readouterr().out)


@pytest.mark.slow
def test_a_folder_with_an_engine_that_is_missing(measured, tmp_path, capsys):
    output, _, _ = measured
    folder = output / "exported/EfficientNetLite0"
    plan = make_plan([], [folder], QUICK, [1], ["onednn", "tensorrt"], threads=[1])
    assert benchmark.benchmark(plan, tmp_path, image_seconds=0)
    said = " ".join(capsys.readouterr().out.split())  # the folder's name is long: lines are broken
    assert "tensorrt fp32, batch 1: engine tensorrt: runs on a GPU" in said
    found = list(csv.DictReader(io.StringIO((tmp_path / benchmark.CSV).read_text())))
    assert [row["failed"] != "" for row in found] == [False, True]
    assert found[0]["relative_error"] == ""  # of a folder, nothing is known to compare with
    assert folder.is_dir()


def test_logits_that_depend_on_the_image(measured):
    output, _, _ = measured
    import paddle

    net = measure.make("EfficientNetLite0", 224)
    image = measure.image(224)
    with paddle.no_grad():
        logits = net(paddle.to_tensor(image)).numpy()
        changed = net(paddle.to_tensor(image * np.float32(1.01))).numpy()
    expected = np.load(output / "exported/EfficientNetLite0" / measure.LOGITS)
    assert measure.relative_error(logits, expected[:1]) < 1e-6
    assert measure.relative_error(expected[1:], logits) > 1e-2  # of the mirror image
    assert measure.relative_error(changed, logits) > 1e-2  # so that 1e-4 means something


def test_the_reference_is_computed_on_the_cpu(tmp_path, monkeypatch):
    """Also by a Paddle that has taken a GPU, and keeps it."""
    told = []

    def make(name, side):
        told.append(name)
        raise MemoryError

    monkeypatch.setattr(measure.paddle, "get_device", lambda: "gpu:0")
    monkeypatch.setattr(measure.paddle, "set_device", told.append)
    monkeypatch.setattr(measure, "make", make)
    with pytest.raises(MemoryError):
        measure.export(by_name("ResNet18"), tmp_path / "exported")
    assert told == ["cpu", "ResNet18", "gpu:0"]


@pytest.mark.parametrize(
    ("wrong", "agree"),
    [(None, [True, True, True]), (2, [True, False, True]), (3, [True, True, False])],
)
def test_every_batch_size_is_compared_row_by_row(measured, wrong, agree):
    """With an engine that gives the first image's logits for all of a batch of one size."""
    place = measured[0] / "exported/EfficientNetLite0"
    sizes = (1, 2, 3)
    own = tuple(Cell("EfficientNetLite0", "", "onednn", "fp32", 1, batch) for batch in sizes)
    job = measure.Job(by_name("EfficientNetLite0"), own, QUICK, place, {}, 0.0)
    subject = measure.prepare(job)
    (contender,) = measure.group(job.cells, "cpu")
    measure.open_contender(subject, contender)
    run = contender.engine.run

    def broken(images):
        logits = run(images)
        return np.repeat(logits[:1], len(images), 0) if len(images) == wrong else logits

    contender.engine.run = broken
    found = {}
    for batch in sizes:
        messages = [*measure.measure(subject, [contender], batch)]
        found |= dict(one for one in messages if not isinstance(one, measure.Now))
    assert [found[cell]["agrees"] for cell in own] == agree


@pytest.mark.parametrize(("off", "agrees"), [(0.5e-4, True), (2e-4, False), (np.nan, False)])
def test_percentiles_and_agreement(measured, off, agrees):
    place = measured[0] / "exported/EfficientNetLite0"
    cell = Cell("EfficientNetLite0", "", "onednn", "fp32", 1, 4)
    job = measure.Job(by_name("EfficientNetLite0"), (cell,), QUICK, place, {1: 100.0}, 0.0)
    images, engine = measure.compared(224), open_engine(open_exported(place), Settings("onednn"))
    expected = engine.run(images) / np.float32(1 + off)
    about = measure.Subject(job, open_exported(place), images, expected, 10**9)
    (contender,) = measure.group(about.job.cells, "cpu")
    measure.open_contender(about, contender)
    times = np.random.default_rng(0).uniform(0.1, 0.3, 57)
    turns = measure.Turns(about.job.cells[0], engine, None, 3 << 20, False, list(times))
    found = measure.summary(turns, contender, about)
    ordered = np.sort(times)
    assert found["median_ms"] == pytest.approx(1e3 * ordered[28], abs=1e-3)
    assert 1e3 * ordered[50] <= found["p90_ms"] <= 1e3 * ordered[51]
    assert found["gflops"] == pytest.approx(8 / ordered[28], abs=1e-2)
    assert found["resident_mib"] == 3
    assert found["agrees"] is agrees


def test_what_does_not_fit_is_skipped(tmp_path, monkeypatch):
    describe(monkeypatch, "/proc/meminfo", "MemAvailable: 9766 kB\n")
    cell = Cell("ResNet18", "", "onednn", "fp32", 1, 1)
    job = measure.Job(by_name("ResNet18"), (cell,), QUICK, tmp_path, {}, 0.0)
    assert [m for m in measure.work(job) if not isinstance(m, measure.Now)] == [
        (cell, {"failed": "skipped: making it takes 0.1 GB, 0.0 GB are free"})
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("times", "interleaved"), [(2, True), (1, False)])
def test_engines_that_do_not_fit_together_run_one_after_the_other(
    measured, monkeypatch, times, interleaved
):
    model = of_folder(measured[0] / "exported/EfficientNetLite0")
    plan = Plan([model], ["onednn", "openvino"], ["fp32"], [1], [1], QUICK)
    size = open_exported(model.folder).size()
    free = -(-times * measure.HELD * size // 1024)
    describe(monkeypatch, "/proc/meminfo", f"MemAvailable: {free} kB\n")
    job = measure.Job(model, tuple(plan.cells(model)), QUICK, model.folder, {}, 0.0)
    found = [message for message in measure.work(job) if not isinstance(message, measure.Now)]
    assert [figures["interleaved"] for _, figures in found] == [interleaved] * 2


@pytest.mark.slow
def test_an_engine_that_kills_its_process_stops_no_other(measured, monkeypatch, tmp_path):
    """Here an openvino that does so when it is imported."""
    package = tmp_path / "openvino"
    package.mkdir()
    text = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
    (package / "__init__.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    model = of_folder(measured[0] / "exported/EfficientNetLite0")
    plan = Plan([model], ["onednn", "openvino", "paddle"], ["fp32"], [1], [1], QUICK)
    job = measure.Job(model, tuple(plan.cells(model)), QUICK, model.folder, {}, 0.0)
    found = {cell.engine: figures for cell, figures in benchmark.measured(job)}
    assert min(found[name]["median_ms"] for name in ("onednn", "paddle")) > 0
    assert found["openvino"]["failed"].startswith("its process ended with code -9")


def test_the_time_of_photos(tmp_path):
    photo = measure.make_image(tmp_path)
    assert cv2.imread(str(photo)).shape == (375, 500, 3)
    small, large = (
        measure.time_images(Preprocess(resize=n, crop=n), [photo], seconds=0) for n in (64, 640)
    )
    assert small["normalize_ms"] < large["normalize_ms"]


# --------------------------------------------------------------------------- tables


def test_the_tables_layout():
    one, eight, other, _ = cells("ResNet18")
    own = Cell("own", "", "onnxruntime", "fp32", 2, 1)
    times = {one: 12.5, eight: 80.0, other: 9.0, own: 3.0}
    every = [record(cell, median_ms=ms) for cell, ms in times.items()]
    lines = tables.to_markdown([HEADER | {"kind": "header"}, PHOTOS, *every])
    assert (
        """
## Latency of 1 image, 2 threads, ms

| network | crop | resize | paddle fp32 | onnxruntime fp32 | *GPU not stated fp32* |
|---|---:|---:|---:|---:|---:|
| ResNet18 | 224 | 256 | 9.00 | 12.50 | 1.13 |
| own | 224 | 256 |  | 3.00 |  |

## Latency of 8 images, 2 threads, ms

| network | crop | resize | onnxruntime fp32 | *GPU not stated fp32* |
|---|---:|---:|---:|---:|
| ResNet18 | 224 | 256 | 80.00 | 2.35 |
"""
        in lines
    )


def test_the_screen_is_not_wider_than_a_terminal(capsys):
    plan = make_plan(
        ["Fix_ResNeXt101_32x48d_wsl", "ResNet18"],
        [],
        QUICK,
        [1, 2, 4, 8, 16, 32, 64, 128],
        ["onnxruntime", "paddle", "onednn", "openvino"],
        ["fp32", "bf16"],
        [1, 2],
    )
    every = [cell for model in plan.models for cell in plan.cells(model)]
    records = [
        record(cell, median_ms=1000.0 * cell.batch + len(cell.engine), relative_error=2e-6)
        for cell in every
    ]
    failed = record(every[0], failed="an engine's long words " * 9)
    failed.pop("median_ms")
    assert benchmark.report([HEADER | {"kind": "header"}, PHOTOS, failed, *records[1:]])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    for batch in (1, 2, 4, 8, 16, 32, 64, 128):
        assert out.count(f" batch {batch}  ") == 2  # for each number of threads
    rows = [line.split() for line in out.splitlines() if line.startswith("ResNet18 ")]
    assert ["ResNet18", "224", "onednn", "fp32", "1006.00", "2006.00", "4006.00", "2.0e-06"] in rows
    assert "an engine's long words" in out


def test_plots_are_of_all_batch_sizes(tmp_path):
    found = [record(cell, median_ms=3.0 * cell.batch) for cell in cells("ResNet18", "ResNet34")]
    for figure in (tables.latency(found), tables.accuracy(found)):
        titles = [axes.get_title() for axes in figure.axes]
        assert [title.rpartition(" ")[2] for title in titles] == ["1", "8"]
    assert len(tables.write_plots(found, tmp_path)) == 2


def test_plots_of_four_batch_sizes_leave_no_panel_empty():
    plan = make_plan(["ResNet18"], [], QUICK, [1, 4, 8, 32], ["onnxruntime"], threads=[2])
    found = [record(cell) for model in plan.models for cell in plan.cells(model)]
    shown = [axes.get_title() for axes in tables.latency(found).axes if axes.get_visible()]
    assert shown == [f"batch of {n}" for n in (1, 4, 8, 32)]
    plan = make_plan(["ResNet18"], [], QUICK, [1, 4, 8, 16, 32], ["onnxruntime"], threads=[2])
    found = [record(cell) for model in plan.models for cell in plan.cells(model)]
    shown = [axes for axes in tables.latency(found).axes if axes.get_visible()]
    assert len(shown) == 5
    assert [axes.get_title()[-3:] for axes in tables.accuracy(found).axes] == ["f 1", " 32"]


def test_csv():
    rows = list(csv.reader(io.StringIO(tables.to_csv([record(cells("ResNet18")[0])]))))
    assert tuple(rows[0]) == tables.COLUMNS
    assert dict(zip(*rows, strict=True))["median_ms"] == "12.5"


def test_disagreement_fails(capsys):
    good, bad = cells("ResNet18")[0], cells("ResNet18")[2]
    records = [HEADER | {"kind": "header"}, PHOTOS, record(good)]
    assert benchmark.report(records)
    records.append(record(bad, relative_error=0.002, agrees=False))
    assert not benchmark.report(records)
    out = capsys.readouterr().out
    assert re.search(r"ResNet18 .* paddle .* 2.0e-03 FAILED\n", out)
    assert re.search(r"ResNet18 .* onnxruntime .* 1.0e-06\n", out)
    assert "FAILED: ResNet18 with paddle" in out


def test_the_page(tmp_path):
    text = f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n"
    path, kept = tmp_path / "page.md", tmp_path / "page.jsonl"
    path.write_text(text)
    records = [HEADER | {"kind": "header"}, PHOTOS, *map(record, cells("ResNet18"))]
    tables.write_page(records, path, kept)
    written = path.read_text()
    assert written.startswith(f"before\n{tables.BEGIN}\nMeasured on: P, 2 cores, 8 GiB")
    assert written.endswith(f"\n{tables.END}\nafter\n")
    assert "| ResNet18 | 224 | 256 | 12.50 |" in written
    assert written == tables.filled(path, read_records(kept))
    path.write_text("no markers")
    with pytest.raises(UserError, match="should have one line <!-- bench:begin -->"):
        tables.write_page(records, path, kept)


def test_the_page_in_docs_is_up_to_date():
    made = tables.filled(tables.PAGE, read_records(tables.RECORDS))
    assert tables.PAGE.read_text(encoding="utf-8") == made, "run deploy/benchmark.py with --docs"
