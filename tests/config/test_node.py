"""Durations and number types."""

import pytest
from pydantic import TypeAdapter, ValidationError

from ppcls.config.node import Count, Duration, Float, Share, Span


@pytest.mark.parametrize(
    ("text", "span", "steps"),
    [
        (5, Span(5, "epochs"), 50),
        (0.5, Span(0.5, "epochs"), 5),
        ("5 epochs", Span(5, "epochs"), 50),
        ("1 epoch", Span(1, "epochs"), 10),
        ("2ep", Span(2, "epochs"), 20),
        ("7 steps", Span(7, "steps"), 7),
        ("10%", Span(10, "percent"), 20),
        ("1000000 steps", Span(1_000_000, "steps"), 1_000_000),
    ],
)
def test_durations_in_each_unit(text, span, steps):
    adapter = TypeAdapter(Duration)
    assert adapter.validate_python(text) == span
    assert span.steps(epoch_steps=10, total_steps=200) == steps
    assert adapter.validate_python(adapter.dump_python(span)) == span


@pytest.mark.parametrize("text", ["5 parsecs", "-1", "", "ten", True, None, [1]])
def test_what_is_no_duration(text):
    with pytest.raises(ValidationError, match="a duration is a number of epochs"):
        TypeAdapter(Duration).validate_python(text)


@pytest.mark.parametrize(
    ("kind", "value"),
    [(Count, 0), (Count, True), (Count, "3"), (Count, 2.0), (Float, "1e-4"), (Float, float("nan"))],
)
def test_numbers_are_not_guessed(kind, value):
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(value)


def test_an_integer_is_a_float():
    assert TypeAdapter(Share).validate_python(1) == 1.0
