"""Maps over images: each value at its place, whatever the image went through; and the pictures."""

import numpy as np
import pytest
from photos import scene
from PIL import Image

import ppcls
from ppcls.data.preprocess import Box, Preprocess
from ppcls.report.heatmaps import SIDE, UNSEEN, colours, explained, over, spread
from ppcls.utils.errors import UserError

WAYS = {
    "crop": Preprocess(resize=64, crop=56),
    "stretched": Preprocess(resize=(80, 64), crop=(56, 48)),
    "squash": Preprocess(fit="squash", crop=(48, 64)),
    "letterbox": Preprocess(fit="letterbox", crop=64),
}


@pytest.mark.parametrize("shape", [(375, 500), (501, 333), (97, 350), (64, 64)])
@pytest.mark.parametrize("way", WAYS)
def test_what_the_network_sees_lies_where_it_is_said_to(way, shape):
    """An image whose pixels say where they are goes through the preprocessing itself."""
    preprocess = WAYS[way]
    height, width = shape
    rows = np.broadcast_to(np.linspace(0, 255, height)[:, None], shape)
    columns = np.broadcast_to(np.linspace(0, 255, width), shape)
    image = np.stack([rows, columns, np.full(shape, 255)], -1).round().astype(np.uint8)
    top, left, bottom, right = preprocess.seen(height, width)
    found = preprocess(image).astype(float)
    inside = found[..., 2] == 255  # not a letterbox's fill
    y, x = np.indices(found.shape[:2]) + 0.5
    y = top + y * (bottom - top) / preprocess.height
    x = left + x * (right - left) / preprocess.width
    # 255 steps for so many pixels: it is known to a step, and to what rounding the sides shifts.
    for channel, place, side in ((0, y, height), (1, x, width)):
        told = found[..., channel] / 255 * (side - 1) + 0.5
        assert np.abs(told - place)[inside].max() < side / 255 + 1.5
    in_image = (y > 0.5) & (y < height - 0.5) & (x > 0.5) & (x < width - 0.5)
    assert inside[in_image].all()
    assert not inside[(y < -1.5) | (y > height + 1.5) | (x < -1.5) | (x > width + 1.5)].any()


def test_values_stand_in_the_middle_of_their_places():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = spread(values, Box(10, 20, 30, 50), 40, 60)
    for row in range(2):
        for column in range(3):
            y, x = 10 + 10 * row + 5, 20 + 10 * column + 5
            np.testing.assert_allclose(
                found[y - 1 : y + 1, x - 1 : x + 1].mean(), values[row, column], atol=0.3
            )
    assert np.isnan(found[:10]).all()
    assert np.isnan(found[30:]).all()
    assert np.isnan(found[:, :20]).all()
    assert np.isnan(found[:, 50:]).all()
    assert not np.isnan(found[10:30, 20:50]).any()
    flat = spread(np.full((1, 1), 7, np.float32), Box(-5, -5, 45, 65), 40, 60)
    assert (flat == 7).all()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [(375, 500), (500, 300)])
def test_the_strongest_place_is_coloured_where_it_is(way, shape):
    preprocess = WAYS[way]
    image = np.full((*shape, 3), 90, np.uint8)
    values = np.zeros((7, 7), np.float32)
    values[2, 4] = 3
    picture = np.asarray(over(image, values, preprocess, max(shape))).astype(int)
    yellow = picture[..., 0] - picture[..., 2]
    y, x = (places.mean() for places in np.nonzero(yellow > 0.8 * yellow.max()))
    top, left, bottom, right = preprocess.seen(*shape)
    assert y == pytest.approx(top + 2.5 / 7 * (bottom - top), abs=3)
    assert x == pytest.approx(left + 4.5 / 7 * (right - left), abs=3)
    middles = np.indices(shape) + 0.5
    unseen = (middles[0] < top) | (middles[0] > bottom) | (middles[1] < left) | (middles[1] > right)
    assert (picture[unseen] == round(90 * UNSEEN)).all()
    assert unseen.any() == (way in ("crop", "stretched"))


def test_what_speaks_against_a_class_has_no_colour():
    image = scene(0, 60, 80)
    grey = np.asarray(Image.fromarray(image).convert("L"))[..., None].astype(int)
    picture = np.asarray(over(image, -np.ones((3, 3), np.float32), WAYS["squash"], 80)).astype(int)
    assert np.abs(picture - grey).max() <= 1


def test_colours_grow_lighter_all_the_way():
    ramp = colours(np.linspace(0, 1, 100, dtype=np.float32))
    assert (np.diff(ramp @ [0.2126, 0.7152, 0.0722]) > 0).all()


@pytest.mark.parametrize("shape", [(900, 1200), (30, 40), (300, 9)])
def test_a_picture_has_the_image_and_each_class(shape):
    image = np.full((*shape, 3), 255, np.uint8)
    maps = [np.eye(4, dtype=np.float32), -np.eye(4, dtype=np.float32)]
    classes = [("a name " * 30, 0.75, maps[0]), ("故宫", 0.2, maps[1])]
    picture = explained(image, classes, WAYS["crop"], "folder/1.jpg", "none")
    pixels = np.asarray(picture)
    width = (pixels.shape[1] - 16) // 3
    assert 300 <= width <= SIDE
    for panel in range(3):  # words beneath each
        assert (pixels[-70:, panel * (width + 8) :][:, :width].min(axis=2) < 120).sum() > 100
    alone = explained(image, [], WAYS["crop"], "1.jpg", "no class above its threshold")
    assert alone.width == width


@pytest.fixture
def turned(workdir):
    """A photo stored lying on its side, EXIF says how, and the same upright."""
    upright = scene(3, 90, 60)
    Image.fromarray(upright).save(workdir / "upright.png")
    exif = Image.Exif()
    exif[274] = 6  # to be turned clockwise
    lying = Image.fromarray(np.rot90(upright))
    lying.save(workdir / "turned.png", exif=exif)
    return workdir


@pytest.mark.slow
def test_the_command_on_a_checkpoint_and_an_export_and_a_turned_photo(exported, turned, run):
    given = ("--engine", "onednn", "turned.png", "upright.png", "photos/eval/ant/0.png")
    command = ("predict", "--model-dir")
    code, _, err = run(*command, "runs/small", *given, "--explain", "drawn", "--topk", 2)
    assert (code, err) == (0, "")
    pictures = {path.name: np.asarray(Image.open(path)) for path in (turned / "drawn").rglob("*")
                if path.is_file()}  # fmt: skip
    assert set(pictures) == {"turned.png.jpg", "upright.png.jpg", "0.png.jpg"}
    one, other = pictures["turned.png.jpg"], pictures["upright.png.jpg"]
    assert one.shape == other.shape
    height = one.shape[0] - 2 * 26 - 12 - 8  # their names differ
    np.testing.assert_array_equal(one[:height], other[:height])
    recipe = ("export", "--weights", "runs/small/best.safetensors")
    assert run(*recipe, "--output", "mapped", "--explain")[0] == 0
    code, _, _ = run(*command, "mapped", *given, "--explain", "again", "--topk", 2)
    assert code == 0
    for name, picture in pictures.items():  # Grad-CAM of the checkpoint is the export's map
        (path,) = (turned / "again").rglob(name)
        other = np.asarray(Image.open(path)).astype(int)
        assert np.abs(other - picture).mean() < 0.5
    for words, message in (
        (("turned.png", "--explain", "drawn"), "--explain drawn: drawn/turned.png.jpg exists"),
        (("turned.png", "--explain", "new", "--visualize", "new"), "is --visualize's; name anot"),
        (("photos/eval", "--explain", "photos/eval/new"), "lies in photos/eval, whose images"),
    ):
        code, _, err = run(*command, "mapped", "--engine", "onednn", *words)
        assert code == 2
        assert message in err
    assert run(*command, "mapped", *given, "--explain", "drawn", "--overwrite")[0] == 0


@pytest.mark.slow
def test_from_python(exported, turned):
    with ppcls.Predictor("runs/small", engine="onednn") as predictor:
        (found,) = predictor.predict("turned.png", explain=True)
        assert found.maps.shape == (len(found.classes), 1, 1)  # 32 pixels a side
        picture = ppcls.draw_maps("turned.png", found, predictor, most=2)
        assert picture.width > 2 * 300
        (plain,) = predictor.predict("turned.png")
        with pytest.raises(UserError, match="has no maps: predict with explain=True"):
            ppcls.draw_maps("turned.png", plain, predictor)
