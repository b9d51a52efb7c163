"""What lies in folders beside images: passed over and said, or a line; never waited for."""

import io
import os
import socket
import subprocess
import tarfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from photos import write_photo
from PIL import Image, features

EIGHT = np.array([[10, 200], [60, 255]], np.uint8).repeat(16, 0).repeat(16, 1)
needs_users = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")


@pytest.fixture
def train(workdir):
    """A folder of two classes with six images each, in the working directory."""
    return workdir / "photos/train"


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0" * 8)


def passed_lines(out):
    return [line for line in out.splitlines() if "passed over" in line]


def test_pictures_that_are_not_read_are_counted_once(train, run):
    touch(train, "ant/a.svg", "ant/b.SVG", "bee/c.psd", "bee/deep/d.cr2", "bee/e.jxl")
    touch(train, "ant/notes.txt", "ant/a.xml", "bee/Thumbs.db", "bee/.DS_Store", "bee/clip.mov")
    code, out, _ = run("check-data", "photos/train")
    assert code == 0
    assert passed_lines(out) == [
        "photos/train: passed over 5 files that look like pictures: 2 .svg, 1 .cr2, 1 .jxl, "
        "1 .psd (convert them to JPEG or PNG)"
    ]


def test_every_command_that_walks_says_it_in_one_line(workdir, exported, run):
    touch(workdir, "photos/eval/ant/a.svg", "photos/train/bee/b.svg")
    commands = [
        (("check-data", "photos/train", "photos/eval"), 2),
        (("predict", "photos/eval", "--model-dir", "exported/small", "--engine", "onednn"), 1),
        (("make-shards", "photos/eval", "shards", "--name", "eval"), 1),
        (("eval", "-c", "recipe.yaml"), 1),
        (("export", "-c", "recipe.yaml", "--output", "again"), 1),
    ]
    for command, lines in commands:
        code, out, err = run(*command)
        assert code == 0, err
        found = passed_lines(out)
        assert len(found) == lines, command
        assert "1 file that looks like a picture: 1 .svg" in found[0]


def test_silent_where_nothing_is_passed_over(train, run):
    touch(train, "ant/notes.txt", "README", "labels.csv")
    _, out, _ = run("check-data", "photos/train")
    assert passed_lines(out) == []


def test_jpegs_by_other_names_and_gifs_are_read(train, run):
    for seed, name in enumerate(("a.jfif", "b.JPE", "c.jif", "d.pjpeg", "e.gif")):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)
        kind = "GIF" if name == "e.gif" else "JPEG"
        Image.fromarray(pixels).save(train / "ant" / name, kind)
    code, out, _ = run("check-data", "photos/train")
    assert code == 0
    assert "17 images, 2 classes" in out
    assert "broken" not in out
    assert "suffix" not in out
    assert passed_lines(out) == []


def test_photos_under_names_with_no_ending_of_theirs_are_told(train, run):
    photo = (train / "ant/0.png").read_bytes()
    for name in ("ant/img_01", "ant/img_02", "bee/x.jpg_large", "bee/y.png~"):
        (train / name).write_bytes(photo)
    touch(train, "bee/README")
    _, out, _ = run("check-data", "photos/train")
    (line,) = passed_lines(out)
    # Of those without an ending one is no image: it is counted with the others.
    assert "4 files" in line or "5 files" in line
    assert "without an ending" in line
    assert "1 .jpg_large" in line
    assert "rename them" in line


def test_a_class_of_which_nothing_is_read(workdir, run):
    touch(workdir, "t/red/a.svg", "t/red/b.svg")
    write_photo(workdir / "t/blue/1.png", 1)
    code, _, err = run("check-data", "t")
    assert code == 2
    assert err.splitlines() == [
        "error: t: no images (JPEG, PNG, WebP, BMP, TIFF or GIF) in: red; passed over 2 files that "
        "look like pictures: 2 .svg (convert them to JPEG or PNG)"
    ]


# ------------------------------------------------------------------------------ HEIC and AVIF


def reads_avif():
    return "avif" in features.modules and features.check("avif")


def test_avif_is_read_where_pillow_can_and_else_told(train, run):
    """Its orientation is the file's own (`irot`), not a stale EXIF block."""
    touch(train, "bee/none.txt")
    if not reads_avif():
        touch(train, "bee/a.avif")
        _, out, _ = run("check-data", "photos/train")
        assert "1 .avif (convert them to JPEG or PNG, or pip install 'pillow>=11.3'" in out
        return
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:, 32:] = (200, 30, 40)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(pixels).save(train / "bee/a.AVIF", "AVIF", quality=95, exif=exif.tobytes())
    code, out, _ = run("check-data", "photos/train")
    assert code == 0, out
    assert "13 images, 2 classes" in out
    assert "turned (1)" in out
    from ppcls.data.decode import read

    found = read(train / "bee/a.AVIF").astype(int)
    assert found.shape == (64, 48, 3)
    assert abs(found - np.rot90(pixels, -1)).mean() < 4


HEIC = b"\0\0\0\x1cftypheic\0\0\0\0mif1heic" + bytes(40)


def has_heif():
    from importlib.util import find_spec

    return find_spec("pillow_heif") is not None


@pytest.mark.skipif(has_heif(), reason="pillow-heif is installed")
def test_heic_without_its_package(train, run):
    for name in ("ant/IMG_1.HEIC", "ant/IMG_2.heif", "bee/IMG_3.HEIC"):
        (train / name).write_bytes(HEIC)
    _, out, _ = run("check-data", "photos/train")
    (line,) = passed_lines(out)
    assert "3 files that look like pictures: 2 .heic, 1 .heif" in line
    assert "pip install pillow-heif" in line
    (train / "bee/named.jpg").write_bytes(HEIC)  # as telephones send them
    code, out, _ = run("check-data", "photos/train")
    assert code == 1
    assert "named.jpg: a HEIC image: pip install pillow-heif" in out


@pytest.mark.skipif(not has_heif(), reason="needs pillow-heif")
def test_heic_with_its_package(train, run):
    import pillow_heif

    pillow_heif.register_heif_opener()
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:, 32:] = (200, 30, 40)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(pixels).save(train / "bee/a.HEIC", "HEIF", quality=95, exif=exif.tobytes())
    code, out, _ = run("check-data", "photos/train")
    assert code == 0, out
    assert "13 images, 2 classes" in out
    from ppcls.data.decode import read

    found = read(train / "bee/a.HEIC").astype(int)
    assert abs(found - np.rot90(pixels, -1)).mean() < 4


# ------------------------------------------------------------------------- what systems leave

THUMBNAILS = (
    "@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg",
    ".@__thumb/1.jpg",
    "_thumb/1.jpg",
    ".thumbnails/1.png",
    "__MACOSX/._1.jpg",
    ".AppleDouble/1.jpg",
    "$RECYCLE.BIN/1.jpg",
    "#recycle/1.jpg",
    "#snapshot/1.jpg",
    "lost+found/1.jpg",
    "System Volume Information/1.jpg",
    ".Trash-1000/1.jpg",
    ".ipynb_checkpoints/1-checkpoint.jpg",
)


@pytest.mark.parametrize("inside", ["", "ant"])
def test_folders_of_systems_are_no_classes_and_hold_no_photos(train, run, inside):
    for name in THUMBNAILS:
        write_photo(train / inside / name.replace("._1", "1"), 7)
    code, out, _ = run("check-data", "photos/train")
    assert code == 0
    assert "12 images, 2 classes" in out
    (line,) = passed_lines(out)
    assert f"{len(THUMBNAILS)} folders hidden or of a system or program" in line
    assert "#recycle" in line


def test_a_folder_of_a_system_is_looked_into_when_named(workdir, exported, run):
    write_photo(workdir / "__MACOSX/1.png", 7)
    write_photo(workdir / "__MACOSX/._2.png", 7)
    code, out, _ = run("predict", "__MACOSX", "--model-dir", "exported/small", "--engine", "onednn")
    assert code == 0
    assert "__MACOSX/1.png: " in out
    assert passed_lines(out) == ["__MACOSX: passed over 1 hidden image (such as __MACOSX/._2.png)"]


# ------------------------------------------------------------- pipes, sockets, closed folders


@needs_users
def test_pipes_and_sockets_in_folders_are_passed_over(train, run):
    os.mkfifo(train / "ant/x.jpg")
    os.symlink("x.jpg", train / "ant/link.jpg")
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(train / "bee")
        one.bind("y.jpg")
        os.chdir(here)
        code, out, _ = run("check-data", "photos/train")
    assert code == 0
    assert "12 images, 2 classes" in out
    (line,) = passed_lines(out)
    assert "2 pipes, 1 socket (such as photos/train/ant/" in line


@needs_users
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pipes_and_devices_that_are_named_are_one_line(workdir, exported, run, kind):
    """Nothing waits for somebody who writes to a pipe, and nothing reads a device without end."""
    for name in ("x.jpg", "x.txt", "x.yaml", "x.csv", "x.safetensors", "x.tar", "x.npz"):
        if kind == "pipe":
            os.mkfifo(name)
        else:
            os.symlink("/dev/zero", name)
    Path("list.txt").write_text("x.jpg\nphotos/eval/ant/0.png\n")
    Path("labelled.txt").write_text("x.jpg 0\nphotos/eval/ant/0.png 1\n")
    predict = ("--model-dir", "exported/small", "--engine", "onednn")
    commands = [
        ("predict", "x.jpg", *predict),
        ("predict", "x.txt", *predict),
        ("predict", "photos/eval", *predict, "--labels", "x.txt"),
        ("check-data", "x.txt"),
        ("check-data", "x.csv"),
        ("check-data", "x.tar"),
        ("train", "-c", "x.yaml"),
        ("train", "-c", "recipe.yaml", "-o", "output=new", "data.train=x.txt"),
        ("train", "-c", "recipe.yaml", "-o", "output=new", "data.class_names=x.txt"),
        ("train", "-c", "recipe.yaml", "-o", "output=new", "data.train=labelled.txt"),
        ("eval", "-c", "recipe.yaml", "--weights", "x.safetensors"),
        ("eval", "-c", "recipe.yaml", "--weights", "x.npz"),
        ("export", "-c", "recipe.yaml", "--output", "again", "--check", "x.jpg"),
        ("import-paddleclas", "x.yaml"),
    ]
    for command in commands if kind == "pipe" else commands[:1] + commands[3:7]:
        code, _, err = run(*command)
        assert code == 2, command
        assert len(err.splitlines()) == 1, err
        assert f" is a {kind}" in err or "shards that do not exist" in err, (command, err)
    code, _, err = run("predict", "list.txt", *predict)
    assert code == 2
    assert len(err.splitlines()) == 1


@needs_users
def test_lists_from_a_shell_s_pipe_are_read(workdir, run):
    read_end, write_end = os.pipe()
    os.write(write_end, b"photos/eval/ant/0.png 0\nphotos/eval/bee/0.png 1\n")
    os.close(write_end)
    listed = f"data.train=/dev/fd/{read_end}"
    code, out, err = run(
        "check-data", "-c", "recipe.yaml", "-o", listed, "data.root=.", "data.eval=null"
    )
    os.close(read_end)
    assert code == 0, err
    assert "2 images, 2 classes" in out


@contextmanager
def deep_folder(folder, count, name):
    """Folders in each other, for a while: pytest could not remove them."""
    here = os.getcwd()
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    for _ in range(count):
        os.mkdir(name)
        os.chdir(name)
    os.chdir(here)
    try:
        yield
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)


def test_folders_deeper_than_any_path(workdir, exported, run):
    with deep_folder(workdir / "photos/eval/ant/deep", 30, "d" * 200):
        code, out, err = run(
            "predict", "photos/eval", "--model-dir", "exported/small", "--engine", "onednn"
        )
        assert code == 0, err
        (line,) = passed_lines(out)
        assert "1 folder that cannot be listed: " in line
        assert "File name too long" in line
        code, _, err = run("check-data", "photos/eval")  # what is learnt from should be whole
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "cannot be listed" in err


def test_a_thousand_folders_in_each_other(workdir, run):
    with deep_folder(workdir / "photos/eval/ant/deep", 1200, "d"):
        code, out, _ = run("check-data", "photos/eval")
    assert code == 0
    assert "6 images, 2 classes" in out


@needs_users
def test_a_folder_without_permissions(workdir, run):
    closed = workdir / "photos/eval/ant/closed"
    closed.mkdir()
    if os.geteuid() == 0:
        for path in (*workdir.parents, workdir):
            if path.stat().st_uid == 0 and not path.stat().st_mode & 1:
                pytest.skip("the folder of this test is for root alone")
    closed.chmod(0)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        code, _, err = run("check-data", "photos/eval")
    finally:
        if user == 0:
            os.seteuid(0)
        closed.chmod(0o700)
    assert code == 2
    assert err.splitlines() == [
        "error: photos/eval: folders in it that cannot be listed: photos/eval/ant/closed "
        "(Permission denied); change their permissions, or move them away"
    ]


def test_links_that_lead_nowhere_or_to_themselves(train, run):
    os.symlink("round.jpg", train / "ant/round.jpg")
    os.symlink("round", train / "ant/round")
    os.symlink("none.jpg", train / "bee/gone.jpg")
    code, out, _ = run("check-data", "photos/train")
    assert code == 1
    assert "round.jpg: cannot be read (Too many levels of symbolic links)" in out
    assert "gone.jpg: no such file" in out


# ------------------------------------------------------------------------------ parts of a set


def test_a_folder_with_parts_is_used_part_by_part(workdir, run):
    (workdir / "photos/eval").rename(workdir / "photos/val")
    write_photo(workdir / "photos/test/ant/0.png", 900)
    code, out, err = run("check-data", "photos")
    assert code == 0, err
    assert "photos/train: 12 images, 2 classes" in out
    assert "photos/val: 6 images, 2 classes" in out
    words = "photos/train is learnt from, photos/val is scored on"
    assert f"photos: holds the parts of a data set: {words}" in out
    same = ("-o", "data.train=photos", "data.eval=null", "train.epochs=1")
    code, out, err = run("train", "-c", "recipe.yaml", *same)
    assert code == 0, err
    assert "photos/train: 12 images" in out
    code, out, err = run("eval", "-c", "recipe.yaml", *same)
    assert code == 0, err
    assert "on 6 images" in out
    assert "photos/val is scored on" in out


def test_shards_of_a_part_are_named_as_it_is(workdir, run):
    for name, count in (("train", 12), ("eval", 6)):
        code, out, err = run("make-shards", "photos", "shards", "--name", name)
        assert code == 0, err
        assert f"shards are made of photos/{name}" in out
        with tarfile.open(f"shards/{name}-000000.tar") as tar:
            assert len(tar.getnames()) == 2 * count


def test_photos_held_out_of_the_training_part(workdir, run):
    wish = ("data.train=photos", "data.eval=null", "data.holdout=0.5")
    code, out, _ = run("check-data", "-c", "recipe.yaml", "-o", *wish)
    assert code == 0
    assert "photos/train: 6 images" in out
    assert "photos/eval" not in out


@pytest.mark.parametrize("names", [("train", "bus", "car"), ("test", "control")])
def test_classes_that_are_called_like_parts(workdir, run, names):
    for seed, name in enumerate(names):
        write_photo(workdir / "vehicles" / name / "1.png", seed)
    code, out, _ = run("check-data", "vehicles")
    assert code == 0
    assert f"vehicles: {len(names)} images, {len(names)} classes" in out


def test_parts_without_one_to_learn_from(workdir, run):
    for name in ("val", "test"):
        write_photo(workdir / "parts" / name / "ant/1.png", 1)
    code, _, err = run("check-data", "parts")
    assert code == 2
    assert "parts of a data set, not classes; open one part" in err


# ---------------------------------------------------------------------------- images in a tar


def test_members_that_are_not_read_here(workdir, run):
    with tarfile.open("x.tar", "w") as tar:
        for name, data in (("1.cls", b"0"), ("1.heic", HEIC), ("2.cls", b"1"), ("2.jfif", b"x")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    code, _, err = run("check-data", "x.tar")
    if not has_heif():
        assert code == 2
        assert "x.tar:1.heic: is not read here; pip install pillow-heif" in err
    assert "2.jfif" not in err


@pytest.mark.slow
def test_long_names_are_one_line(workdir, exported, run):
    """Wherever a path enters: no command ends in a traceback."""
    long = "n" * 300
    commands = [
        ("train", "-c", f"{long}.yaml"),
        ("train", "-c", "recipe.yaml", "-o", "output=new", f"data.train={long}"),
        ("train", "-c", "recipe.yaml", "-o", "output=new", f"data.eval={long}.txt"),
        ("train", "-c", "recipe.yaml", "-o", "output=new", f"data.class_names={long}"),
        ("train", "-c", "recipe.yaml", "-o", f"output=runs/{long}"),
        ("train", "-c", "recipe.yaml", "-o", "output=new", f"model.weights={long}.pdparams"),
        ("check-data", long),
        ("check-data", "photos/eval", "--output", f"{long}.csv"),
        ("eval", "-c", "recipe.yaml", "--weights", long),
        ("eval", "-c", "recipe.yaml", "--weights", f"{long}.safetensors"),
        ("export", "--weights", f"{long}.safetensors"),
        ("export", "-c", "recipe.yaml", "--output", long),
        ("export", "-c", "recipe.yaml", "--output", "again", "--check", f"{long}.jpg"),
        ("predict", "photos/eval", "--model-dir", long),
        ("predict", f"{long}.jpg", "--model-dir", "exported/small", "--engine", "onednn"),
        ("predict", "photos/eval", "--model-dir", "exported/small", "--labels", long),
        ("quantize", "--model-dir", long, "--calibrate", "photos/eval"),
        ("make-shards", long, "shards"),
        ("make-shards", "photos/eval", long),
        ("import-paddleclas", f"{long}.yaml"),
        ("import-paddleclas", "recipe.yaml", "--output", f"{long}.yaml"),
        ("show-data", "-c", "recipe.yaml", "--output", f"{long}.png"),
        ("weights", "convert", long, "x.npz", "--to", "native"),
        ("select-unlabeled", "-c", "recipe.yaml", "--images", long, "--per-class", "1",
         "--output", "x.txt"),
        ("teach", "-c", "recipe.yaml", "--output", long),
        ("data", "digits", "--to", long),
        ("data", "digits", "--to", "a/" * 2000),
        ("make-shards", "photos/eval", "a/" * 2000),
        ("train", "-c", "recipe.yaml", "-o", f"output={'a/' * 2000}"),
        ("train", "-c", "a/" * 2000),
    ]  # fmt: skip
    for command in commands:
        code, _, err = run(*command)
        assert code == 2, command
        assert len(err.splitlines()) == 1, (command, err)
        assert err.startswith("error: ")
        assert len(err) < 1000
    assert not Path("a").exists()


def test_nul_in_a_path_is_one_line(workdir, run):
    for key in ("data.train", "data.eval", "data.class_names", "output", "model.weights"):
        code, _, err = run("train", "-c", "recipe.yaml", "-o", f'{key}="a\\0b"')
        assert code == 2, key
        assert len(err.splitlines()) == 1, err
