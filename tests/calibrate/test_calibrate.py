"""`ppcls calibrate`, and what prediction makes of a folder that was calibrated."""

import csv
import io
import json
import shutil

import numpy as np
import pages
import pytest
import yaml
from PIL import Image

import ppcls
from ppcls.export import Form, export
from ppcls.inference import calibration, manifest
from ppcls.inference.quantize import quantize
from ppcls.utils.errors import UserError

ENGINE = ("--engine", "onednn")
FILES = ("calibration.png", "calibration.safetensors")


@pytest.fixture
def command(run, folder, photos):
    def command(*words, folder=folder, data=photos):
        return run("calibrate", "--model-dir", folder, "--data", data, *ENGINE, *words)

    return command


def document(folder):
    return yaml.safe_load((folder / "inference.yml").read_text())


def images(photos):
    return sorted(str(path) for path in photos.rglob("*.png"))


# --------------------------------------------------------------------------- the command


def test_it_writes_into_the_folder_what_it_says(command, folder, photos):
    before = document(folder)
    kept = {path.name for path in folder.iterdir()}
    code, out, err = command("--coverage", "0.8", "--false-alarms", "0.1")
    assert (code, err) == (0, "")
    assert {path.name for path in folder.iterdir()} - {"engine_cache"} == kept | set(FILES)
    after = document(folder)
    found = after["ppcls"].pop("calibration")
    assert after == before
    assert found["made_from"]["images"] == 80
    assert found["made_from"]["data"] == str(photos)
    assert "exchangeability" in found["made_from"]["assumption"].replace(
        "exchangeable", "exchangeability"
    )
    assert set(found["made_from"]["network"]) == {"inference.json", "inference.pdiparams"}
    assert (found["sets"]["method"], found["sets"]["coverage"]) == ("lac", 0.8)
    assert found["unknown"]["measure"] == "distance"
    expected = found["expected"]
    assert expected["top1"] == 0.9
    assert f"calibrated on 80 images of {photos}" in out
    assert f"sure {100 * expected['sure']:.1f} %" in out
    picture = Image.open(folder / "calibration.png")
    assert picture.size == (1100, 500)


def test_labels_are_matched_by_name(command, folder, photos, tmp_path):
    """A list that numbers the classes the other way round says the same."""
    lines = [f"{path},{path.parent.name}\n" for path in sorted(photos.rglob("*.png"))]
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(sorted(lines, reverse=True)))
    assert command(data=tmp_path / "list.csv")[0] == 0
    assert document(folder)["ppcls"]["calibration"]["expected"]["top1"] == 0.9


def test_other_classes_are_one_line(command, photos, tmp_path):
    for name, other in (("ant", "ant"), ("bee", "dog")):
        shutil.copytree(photos / name, tmp_path / "pets" / other)
    code, _, err = command(data=tmp_path / "pets")
    assert code == 2
    (line,) = err.splitlines()
    assert "pets" in line
    assert "dog" in line


def test_too_few_images_change_nothing(command, folder, photos, tmp_path):
    for name in ("ant", "bee"):
        few = sorted((photos / name).iterdir())[:5]
        (tmp_path / "few" / name).mkdir(parents=True)
        for path in few:
            shutil.copy(path, tmp_path / "few" / name)
    before = (folder / "inference.yml").read_bytes()
    code, _, err = command(data=tmp_path / "few")
    assert code == 2
    assert "10 images, and a coverage of 0.95" in err
    assert (folder / "inference.yml").read_bytes() == before
    assert not (folder / FILES[0]).exists()


def test_a_broken_image(command, photos, tmp_path):
    data = shutil.copytree(photos, tmp_path / "data")
    broken = sorted((data / "ant").iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:60])
    code, _, err = command(data=data)
    assert code == 2
    assert str(broken) in err
    assert "--on-error skip" in err
    code, out, _ = command("--on-error", "skip", data=data)
    assert code == 0
    assert "1 image cannot be read" in out
    assert "calibrated on 79 images" in out


def test_networks_of_several_labels_and_decisions_are_refused(command, folder):
    path = folder / "inference.yml"
    text = path.read_text()
    path.write_text(text.replace("task: classify", "task: multilabel"))
    code, _, err = command()
    assert (code, "gives an image several labels" in err) == (2, True)
    path.write_text(text.replace("Topk:\n    topk: 5", "ThreshOutput:\n    threshold: 0.5"))
    code, _, err = command()
    assert (code, "decides by a threshold" in err) == (2, True)


def test_what_is_no_exported_folder_is_refused(command, photos):
    code, _, err = command(folder=photos)
    assert code == 2
    assert "inference.yml" in err


def test_without_features_the_unknown_is_told_by_scores(command, exports, tmp_path):
    plain = shutil.copytree(exports / "plain", tmp_path / "plain")
    assert command(folder=plain)[0] == 0
    found = document(plain)["ppcls"]["calibration"]
    assert found["unknown"]["measure"] in ("confidence", "entropy")
    assert found["sketch"] == "scores"
    names = calibration.read_arrays(plain / "calibration.safetensors", found["arrays"])
    assert all(name.startswith("sketch_") for name in names)


def test_another_projects_manifest_keeps_its_words(command, folder):
    """Of a folder of PaddleClas, of which it is not known whether it gives probabilities."""
    path = folder / "inference.yml"
    found = document(folder)
    del found["ppcls"]
    found["Hpi"] = {"backend_configs": {"paddle_infer": {"trt": [1, 2]}}}
    path.write_text(yaml.safe_dump(found, sort_keys=False))
    assert command()[0] == 0
    after = document(folder)
    assert after.pop("ppcls")["network"] == {"output": None}
    assert after == found
    assert manifest.read(folder).output is None


@pytest.mark.parametrize("method", ["aps", "raps"])
def test_methods_and_classes(command, folder, method):
    code, out, _ = command("--method", method, "--per-class", "--coverage", "0.7")
    assert code == 0
    sets = manifest.read(folder).calibration.sets
    assert (sets.method, sets.per_class, len(sets.thresholds)) == (method, True, 2)
    assert f"{method.upper()}, for each class" in out


# --------------------------------------------------------------------------- prediction


def test_predictions_have_sets_and_states(calibrated, exports, photos):
    paths = images(photos)
    with ppcls.Predictor(exports / "features", engine="onednn") as predictor:
        plain = predictor.predict(paths, features=True)
    with ppcls.Predictor(calibrated, engine="onednn") as predictor:
        found = predictor.predict(paths)
        own = predictor.calibration
    assert {answer.state for answer in plain} == {None}
    assert {answer.state for answer in found} == {"sure", "unsure", "unknown"}
    held = 0
    for path, one, other in zip(paths, plain, found, strict=True):
        assert one.labels == other.labels
        assert other.features is None
        held += path.split("/")[-2] in other.set
        assert (other.state == "sure") <= (other.set == other.labels[:1])
        row = np.empty(2, np.float32)
        row[one.classes] = one.scores
        assert other.scores == pytest.approx(np.sort(own.scores(row[None])[0])[::-1].tolist())
        assert ([other.labels.index(name) for name in other.set], other.state) == (
            [one.classes.index(number) for number in own.judge(row, one.features)[0]],
            own.judge(row, one.features)[1],
        )
    assert held / len(paths) == pytest.approx(0.8, abs=0.03)
    unknown = np.mean([answer.state == "unknown" for answer in found])
    assert 0 < unknown < 0.16  # of the images that the distances were fitted to


def test_what_is_said_of_an_answer():
    def said(state, held, labels=("daisy", "rose", "tulip"), scores=(0.5, 0.4, 0.1)):
        one = ppcls.inference.predictor.Prediction(
            "a.jpg", [0, 1, 2], list(labels), list(scores), 1.0, set=list(held), state=state
        )
        return str(one)

    assert said("sure", ["daisy"]) == "a.jpg: daisy 0.5000, rose 0.4000, tulip 0.1000"
    assert said("unsure", ["daisy", "rose"]) == "a.jpg: unsure: daisy or rose"
    assert said("unsure", []) == "a.jpg: unsure (most like daisy 0.50)"
    assert said("unsure", ["rose"]) == "a.jpg: unsure: rose or daisy"
    assert said("unknown", ["daisy"]) == "a.jpg: unknown (most like daisy 0.50)"
    many = [f"c{number}" for number in range(9)]
    assert said("unsure", many, many, [0.1] * 9).endswith("c4 or … and 4 more")


def test_saved_answers_have_them(calibrated, exports, photos, run, tmp_path):
    def predict(name, folder, *options):
        command = ("predict", "--model-dir", folder, *ENGINE, *images(photos)[:20])
        code, out, err = run(*command, "--save", tmp_path / name, *options)
        assert (code, err) == (0, "")
        return out, (tmp_path / name).read_text()

    said, text = predict("x.csv", calibrated)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0])[-3:] == ["error", "state", "set"]
    _, text = predict("x.json", calibrated)
    records = json.loads(text)
    for record in records:
        mine = [row for row in rows if row["path"] == record["path"]]
        assert {row["state"] for row in mine} == {record["state"]}
        assert {row["set"] for row in mine} == {"|".join(record["set"])}
        (line,) = [line for line in said.splitlines() if record["path"] in line]
        assert (record["state"] == "sure") == (record["state"] not in line and "unsure" not in line)
    assert {record["state"] for record in records} > {"unsure"}
    _, text = predict("y.csv", exports / "features")
    assert text.splitlines()[0].endswith(",milliseconds,error")
    _, text = predict("y.json", exports / "features")
    assert not {"set", "state"} & set(json.loads(text)[0])


def test_a_file_is_not_gone_on_with_by_another_calibration(calibrated, photos, run, tmp_path):
    paths = images(photos)[:20]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    command = ("predict", "--model-dir", calibrated, *ENGINE, *paths, broken)
    command += ("--save", tmp_path / "x.csv")
    assert run(*command)[0] == 2
    shutil.copy(paths[0], broken)
    text = (calibrated / "inference.yml").read_text()
    (calibrated / "inference.yml").write_text(text.replace("coverage: 0.8", "coverage: 0.9"))
    code, _, err = run(*command, "--resume")
    assert code == 2
    assert "was made with another calibration" in err
    (calibrated / "inference.yml").write_text(text)
    code, out, _ = run(*command, "--resume")
    assert code == 0
    assert "going on behind" in out


def test_images_prepared_otherwise_are_not_calibrated(calibrated, photos, capsys):
    with ppcls.Predictor(calibrated, engine="onednn", resize=40) as predictor:
        assert predictor.calibration is None
        assert predictor.predict(images(photos)[0])[0].state is None
    assert "images otherwise than for its calibration: left out" in capsys.readouterr().out
    with ppcls.Predictor(calibrated, engine="onednn", class_names=["a", "b"]) as predictor:
        assert set(predictor.predict(images(photos)[0])[0].set) <= {"a", "b"}
    with ppcls.Predictor(calibrated, engine="onednn", calibrated=False) as predictor:
        assert predictor.predict(images(photos)[0])[0].state is None


# --------------------------------------------------------------------------- damaged, or another's


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("method: lac", "method: lak", "ppcls.calibration.sets.method: should be 'lac', 'aps' or"),
        ("coverage: 0.8", "coverage: 80", "ppcls.calibration.sets.coverage: should be less than"),
        ("measure: distance", "measure: far", "ppcls.calibration.unknown.measure: should be "),
        ("temperature: ", "temperature: -", "ppcls.calibration.temperature: should be gr"),
        ("made_from:", "made_of:", "ppcls.calibration.made_from: field required"),
        ("images: 80", "images: many", "ppcls.calibration.made_from.images: should "),
        ("  calibration:", "  calibration: 7\n  x:", "ppcls.calibration: should be"),
    ],
)
def test_a_damaged_manifest_is_one_line(calibrated, old, new, words):
    path = calibrated / "inference.yml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        ppcls.Predictor(calibrated, engine="onednn")
    (line,) = caught.value.lines
    assert line.startswith(f"{path}: {words}")
    assert line.endswith("ppcls calibrate")


def test_a_missing_or_foreign_file_of_arrays_is_one_line(calibrated, command):
    path = calibrated / "calibration.safetensors"
    data = path.read_bytes()
    path.unlink()
    with pytest.raises(UserError, match=r"calibration\.safetensors: is missing; copy the folder"):
        ppcls.Predictor(calibrated, engine="onednn")
    for other in (data[:-4], data[:-1] + bytes([data[-1] ^ 1]), b"", b"\x80\x04."):
        path.write_bytes(other)
        with pytest.raises(UserError, match="is not the file that inference"):
            ppcls.Predictor(calibrated, engine="onednn")
    assert command(folder=calibrated)[0] == 0  # which makes it anew
    ppcls.Predictor(calibrated, engine="onednn").close()


def test_arrays_that_do_not_fit_are_one_line(calibrated):
    values = {"means": np.zeros((2, 16), np.float32), "varies": np.zeros((4, 3), np.float32)}
    data, digest = calibration.to_file(values)
    (calibrated / "calibration.safetensors").write_bytes(data)
    path = calibrated / "inference.yml"
    own = manifest.read(calibrated).calibration
    path.write_text(path.read_text().replace(own.arrays, digest))
    with pytest.raises(UserError, match="has no varies for 16 features"):
        ppcls.Predictor(calibrated, engine="onednn")


def test_a_calibration_of_another_network_is_one_line(calibrated, tmp_path):
    import small_network

    other = small_network.trained(small_network.Small())
    small_network.settle(other.net, seed=5)
    made = export(other, tmp_path / "other", [], Form(features=True))
    shutil.copy(made / "inference.pdiparams", calibrated / "inference.pdiparams")
    with pytest.raises(UserError, match=r"is of another network than inference\.pdiparams; make"):
        ppcls.Predictor(calibrated, engine="onednn")


def test_an_export_in_its_place_has_no_calibration(calibrated, exports, tmp_path, capsys):
    import small_network

    shutil.copytree(exports / "features", tmp_path / "again")
    target = shutil.move(calibrated, tmp_path / "target")
    small = small_network.trained()
    export(small, tmp_path / "target", [], Form(features=True), overwrite=True)
    assert "has no calibration any more; make it anew with ppcls calibrate" in (
        capsys.readouterr().out
    )
    assert not [name for name in FILES if (tmp_path / "target" / name).exists()]
    with ppcls.Predictor(target, engine="onednn") as predictor:
        assert predictor.calibration is None


def test_nothing_is_said_of_a_calibration_that_is_made_anew_next(calibrated, capsys):
    import small_network

    form = Form(features=True)
    export(small_network.trained(), calibrated, [], form, overwrite=True, calibrates=True)
    assert "calibration" not in capsys.readouterr().out


@pytest.mark.slow
def test_int8_has_no_calibration(calibrated, photos, tmp_path, capsys):
    made = quantize(calibrated, photos, "onnxruntime", tmp_path / "int8", budget=1.0)
    assert f"{calibrated} is calibrated and {made} is not" in capsys.readouterr().out
    assert not [name for name in FILES if (made / name).exists()]
    for place in (made, made / "inference.onnx"):
        with ppcls.Predictor(place, engine="onnxruntime") as predictor:
            assert predictor.calibration is None


def test_a_copy_of_the_folder_is_calibrated_and_an_onnx_file_alone_is_not(calibrated, tmp_path):
    moved = shutil.move(calibrated, tmp_path / "elsewhere")
    with ppcls.Predictor(moved, engine="onednn") as predictor:
        assert predictor.calibration is not None


@pytest.mark.slow
def test_the_commands_of_the_page_run_in_order(exports, photos, run, tmp_path, monkeypatch):
    page = pages.text_of("docs/reliable.md")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(exports / "features", tmp_path / "exported/own_photos")
    shutil.copytree(photos, tmp_path / "photos/val")
    commands = pages.commands(page)
    assert [pages.arguments(line)[0] for line in commands] == [
        *("calibrate", "predict", "calibrate", "drift", "drift")
    ]
    (tmp_path / "costs.csv").write_text("true,ant,bee\nant,0,2\nbee,3,0\n")
    for line in commands:
        code, _, err = run(*pages.arguments(line))
        assert (code, err) == (0, ""), line
    assert (tmp_path / "drift/drift.png").is_file()
    assert "state,set" in (tmp_path / "results.csv").read_text()
    (code,) = pages.blocks(page, "python")
    exec(compile(code, "reliable.md", "exec"), {})
