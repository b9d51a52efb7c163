"""The side of a batch's images: by the epoch, or drawn for each batch."""

from collections import Counter

import pytest

from ppcls.data.transforms import MultiScale, Progressive, in_words, side, sides

GROWING = Progressive(sizes={20: 192, 0: 128, 10: 160})
MANY = MultiScale(sizes=(160, 192, 224))


def test_sizes_grow_with_the_epochs():
    found = {epoch: side(GROWING, 0, epoch, 3) for epoch in (0, 9, 10, 19, 20, 99)}
    assert found == {0: 128, 9: 128, 10: 160, 19: 160, 20: 192, 99: 192}


def test_each_batch_draws_a_size_evenly():
    drawn = [side(MANY, 0, epoch, first) for epoch in range(10) for first in range(90)]
    assert all(abs(count - 300) < 60 for count in Counter(drawn).values())  # 4 deviations
    assert len(set(drawn)) == 3
    assert drawn == [side(MANY, 0, epoch, first) for epoch in range(10) for first in range(90)]
    assert drawn[:90] != drawn[90:180]
    assert drawn[:90] != [side(MANY, 1, 0, first) for first in range(90)]


@pytest.mark.parametrize(
    ("size", "known", "words"),
    [
        (224, [224], "224"),
        (GROWING, [128, 160, 192], "128 to 192"),
        (MANY, [160, 192, 224], "160 to 224"),
        ((225, 96), [(225, 96)], "96x225"),
        (
            MultiScale(sizes=([225, 96], [192, 192], [160, 96])),
            [(160, 96), (225, 96), 192],
            "96x160 to 192",
        ),
        (Progressive(sizes={0: 160, 9: (225, 96)}), [(225, 96), 160], "96x225 to 160"),
    ],
)
def test_sizes_in_words(size, known, words):
    assert sides(size) == known
    assert in_words(size) == words
    assert in_words(MultiScale(sizes=(96, 96))) == "96"
