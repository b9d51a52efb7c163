"""The plots of docs/: every network under its whole name, lines along size alone, no collisions."""

import pytest
from matplotlib.text import Text

from ppcls.dev import model_plots
from ppcls.weights.store import counted, read_registry


@pytest.fixture(scope="module")
def figure():
    points = [
        (spot, counted()[name]["macs"] / 1e9)
        for name in read_registry()
        for spot in model_plots.spots(name)
    ]
    figure = model_plots.picture(
        [("all", "multiply-adds", points)], model_plots.SIZES[model_plots.MULTIPLY_ADDS]
    )
    figure.canvas.draw()  # so that labels are where they will be seen
    return figure


def test_every_network_with_weights_has_its_whole_name(figure):
    written = [text.get_text().replace("EffNet", "EfficientNet") for text in figure.axes[0].texts]
    assert len(written) == len(set(written))
    assert set(read_registry()) <= set(written)
    for name in ("EfficientNetLite0", "ResNet50_vd_ssld", "SE_ResNet50_vd", "ResNet101_vd_ssld"):
        assert name in written


def test_labels_cover_neither_each_other_nor_points(figure):
    (axes,) = figure.axes
    renderer = figure.canvas.get_renderer()
    boxes = [(text.get_text(), Text.get_window_extent(text, renderer)) for text in axes.texts]
    for number, (name, box) in enumerate(boxes):
        for other, more in boxes[number + 1 :]:
            assert not box.overlaps(more), f"{name} and {other}"


def test_lines_join_networks_that_differ_in_size_alone(figure):
    names = {
        (round(100 * spot.top1, 6), counted()[name]["macs"] / 1e9): spot.name
        for name in read_registry()
        for spot in model_plots.spots(name)
    }
    lines = [
        {names[round(y, 6), x] for x, y in zip(*line.get_data(), strict=True)}
        for line in figure.axes[0].lines
    ]
    assert {"SE_ResNet18_vd", "SE_ResNet34_vd", "SE_ResNet50_vd"} in lines
    assert {"ResNet18", "ResNet34", "ResNet50", "ResNet101", "ResNet152"} in lines
    assert {"ResNet50_vd_v2"} in lines
    assert {"ResNeXt50_32x4d", "ResNeXt101_32x4d", "ResNeXt152_32x4d"} in lines
    assert {"EfficientNetLite0", "EfficientNetLite1", "EfficientNetLite2"} in lines
    assert {"EfficientNetB0_small"} in lines
