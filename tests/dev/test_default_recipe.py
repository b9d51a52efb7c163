"""configs/default.yaml: up to date, whole, and a recipe."""

import dataclasses
import re
from pathlib import Path

from ppcls.config.load import keys, load, to_plain
from ppcls.dev.default_recipe import NEEDED, document
from ppcls.recipe import Recipe

FILE = Path(__file__).parents[2] / "configs/default.yaml"


def test_it_is_up_to_date():
    assert FILE.read_text() == document(), "run python -m ppcls.dev.default_recipe"


def test_it_has_the_defaults():
    loaded = load(Recipe, FILE)
    made = Recipe(
        model={"name": NEEDED["model.name"]},
        train={
            "epochs": NEEDED["train.epochs"],
            "batch_size": NEEDED["train.batch_size"],
            "schedule": {"lr": NEEDED["train.schedule.lr"]},
        },
    )
    assert to_plain(loaded) == to_plain(made)


def test_every_key_stands_there_with_a_comment():
    text = FILE.read_text()
    own = {key.rpartition(".")[2] for key in keys(Recipe)}
    for key in own - {"amount", "unit"}:  # of lengths of training, which are written as texts
        assert re.search(rf"^[# ]*{key}:", text, re.MULTILINE), key
    for name in (field.name for field in dataclasses.fields(Recipe)):
        assert re.search(rf"(# .*\n{name}:|^{name}: .*# )", text, re.MULTILINE), name
