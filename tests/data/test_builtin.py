"""Built-in data sets as folders: whole, always the same, never half written."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ppcls.data import builtin, datasets
from ppcls.utils.errors import UserError


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Both data sets, each written once."""
    pytest.importorskip("sklearn")
    pytest.importorskip("elpv_dataset")
    root = tmp_path_factory.mktemp("builtin")
    return {name: builtin.write(name, root / "data" / name) for name in builtin.NAMES}


def parts(folder):
    return [datasets.open_samples(folder / part) for part in ("train", "eval")]


def test_digits_hold_the_package_s_numbers(folders):
    from sklearn.datasets import load_digits

    data = load_digits()
    seen = 0
    for part in parts(folders["digits"]):
        for path, label in zip(part.paths, part.labels, strict=True):
            index = int(Path(path).stem.removeprefix("digit"))
            with Image.open(path) as photo:
                assert (photo.mode, photo.size) == ("L", (8, 8))
                values = np.asarray(photo) * (16 / 255)
            assert np.abs(values - data.images[index]).max() < 0.5 * 16 / 255 + 1e-9
            assert data.target[index] == label
            seen += 1
    assert seen == 1797


def test_digits_split(folders):
    train, evaluation = parts(folders["digits"])
    assert train.names == evaluation.names == tuple("0123456789")
    sizes = np.array([178, 182, 177, 183, 181, 182, 181, 179, 174, 180])  # scikit-learn's own
    assert evaluation.counts(10).tolist() == np.round(sizes * 0.2).tolist()
    assert (train.counts(10) + evaluation.counts(10)).tolist() == sizes.tolist()


def test_solar_cells_split(folders):
    train, evaluation = parts(folders["solar_cells"])
    assert train.names == evaluation.names == ("defective", "functional")
    # Deitsch et al. (arXiv:1807.02894) train on 1,968 cells; 821 of all are at 2/3 or 1.
    assert (len(train), len(evaluation)) == (1968, 656)
    assert (train.counts(2) + evaluation.counts(2)).tolist() == [821, 1803]
    assert evaluation.counts(2).tolist() == [205, 451]


def test_solar_cells_are_the_package_s_files_with_its_labels(folders):
    import elpv_dataset

    source = Path(elpv_dataset.__path__[0]) / "data"
    table = np.genfromtxt(source / "labels.csv", dtype=None, encoding="utf-8")
    defective = {Path(str(row[0])).name: row[1] > 0.5 for row in table}
    cell_type = {Path(str(row[0])).name: row[2] for row in table}
    samples = parts(folders["solar_cells"])
    for part in samples:
        for path, label in zip(part.paths, part.labels, strict=True):
            wanted = "defective" if defective[Path(path).name] else "functional"
            assert part.names[label] == wanted
    mono = [np.mean([cell_type[Path(path).name] == "mono" for path in p.paths]) for p in samples]
    assert abs(mono[0] - mono[1]) < 0.002
    path = Path(samples[1].paths[0])
    assert path.read_bytes() == (source / "images" / path.name).read_bytes()


def test_the_split_never_changes(folders):
    def digest(name):
        files = sorted(f.relative_to(folders[name]) for f in folders[name].glob("eval/*/*.png"))
        return hashlib.sha256("\n".join(map(str, files)).encode()).hexdigest()[:12]

    assert digest("digits") == "a2dc41ab3277"
    assert digest("solar_cells") == "cb2df2ab6ff6"


def test_readme_and_description(folders):
    for name, folder in folders.items():
        text = (folder / "README.txt").read_text(encoding="utf-8")
        assert builtin.describe(name) in text
        sizes = [len(part) for part in parts(folder)]
        assert f"train/ has {sizes[0]} images, eval/ has {sizes[1]}." in text
        assert builtin.TABLE[name].size == sum(sizes)
    assert "CC BY-NC-SA 4.0" in builtin.describe("solar_cells")
    assert "arXiv:1807.02894" in builtin.describe("solar_cells")
    assert "pip install elpv-dataset" in builtin.describe("solar_cells")


def test_a_complete_folder_is_left_alone_even_without_the_package(folders, monkeypatch):
    for module in ("sklearn", "elpv_dataset"):
        monkeypatch.setitem(sys.modules, module, None)
    before = (folders["digits"] / "README.txt").stat().st_mtime_ns
    assert builtin.write("digits", str(folders["digits"])) == folders["digits"]
    assert (folders["digits"] / "README.txt").stat().st_mtime_ns == before


def test_nothing_is_left_beside_the_folders(folders):
    assert sorted(p.name for p in folders["digits"].parent.iterdir()) == sorted(builtin.NAMES)


@pytest.mark.parametrize(
    ("name", "package"), [("digits", "scikit-learn"), ("solar_cells", "elpv-dataset")]
)
def test_a_missing_package(tmp_path, monkeypatch, name, package):
    for module in ("sklearn", "elpv_dataset"):
        monkeypatch.setitem(sys.modules, module, None)
    text = f"^{package} is not installed; run: pip install {package}$"
    with pytest.raises(UserError, match=text):
        builtin.write(name, tmp_path / "data")
    assert not list(tmp_path.iterdir())


def test_unknown_name(tmp_path):
    text = "no built-in data set 'digit', only digits and solar_cells; did you mean 'digits'\\?"
    for call in (lambda: builtin.write("digit", tmp_path), lambda: builtin.describe("digit")):
        with pytest.raises(UserError, match=text):
            call()


def few(count=8, broken=None):
    """A small stand-in for a data set: `count` images of two classes."""

    def save(path):
        if path.name == broken:
            raise OSError("disk full")
        path.write_bytes(b"png")

    return [builtin.MadeImage(f"{i}.png", "ab"[i % 2], "ab"[i % 2], save) for i in range(count)]


@pytest.fixture
def small(monkeypatch):
    """One more data set in the table, `small`, of eight images."""
    known = builtin.BuiltIn("", 8, "", 0.25, "", "", "", few)
    monkeypatch.setitem(builtin.TABLE, "small", known)
    return known


def test_a_failure_leaves_nothing(tmp_path, small, monkeypatch):
    object.__setattr__(small, "images", lambda: few(broken="5.png"))
    with pytest.raises(UserError, match=r"cannot be written .disk full"):
        builtin.write("small", tmp_path / "deep" / "data")
    assert not list((tmp_path / "deep").iterdir())


def test_an_empty_folder_is_filled_and_a_half_empty_one_refused(tmp_path, small):
    to = tmp_path / "data"
    to.mkdir()
    builtin.write("small", to)
    assert len(list(to.glob("train/*/*.png"))) == 6
    next(to.glob("train/a/*.png")).unlink()
    with pytest.raises(UserError, match="has 7 of the 8 images of 'small'; delete the folder"):
        builtin.write("small", to)


def test_other_things_are_not_overwritten(tmp_path, small):
    (tmp_path / "README.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "README.txt"):
        with pytest.raises(UserError, match="holds something else than 'small'; name another"):
            builtin.write("small", place)
    assert (tmp_path / "README.txt").read_text() == "mine"


def test_two_processes_at_once(tmp_path, small):
    to = tmp_path / "data"

    def photos_while_another_process_finishes():
        object.__setattr__(small, "images", few)
        builtin.write("small", to)
        return few()

    object.__setattr__(small, "images", photos_while_another_process_finishes)
    assert builtin.write("small", to) == to
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_copy_sample_photos(tmp_path):
    datasets_module = pytest.importorskip("sklearn.datasets")
    for _ in range(2):
        photos = builtin.copy_sample_images(tmp_path / "photos")
    assert [p.name for p in photos] == ["china.jpg", "flower.jpg"]
    for photo, pixels in zip(photos, datasets_module.load_sample_images().images, strict=True):
        with Image.open(photo) as image:
            assert np.array_equal(np.asarray(image), pixels)
    photos[0].write_bytes(b"mine")
    with pytest.raises(UserError, match=r"china\.jpg is another image"):
        builtin.copy_sample_images(tmp_path / "photos")
    assert photos[0].read_bytes() == b"mine"
