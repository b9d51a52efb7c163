"""Random edits of the project's recipes: each loads, or every mistake is said with its place."""

import copy
import re
import shutil
import unicodedata
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ppcls.cli import main
from ppcls.config.load import load, to_yaml
from ppcls.recipe import Recipe
from ppcls.utils.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml"))
PLACE = re.compile(r"(-o .*?|[\w/.]+\.yaml(:[1-9]\d*)?): .")
QUICK = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

# Values that a recipe's author does not expect of himself.
EXTREMES = [0, -1, 1, 2**31, 2**63, 10**30, 10**400, 1e308, 1e-320, -0.0, 0.5, 1.5, True, None]
EXTREMES += [float("inf"), float("nan"), "", " ", "null", "1e5", "5 epochs", "500%", "9" * 400]
EXTREMES += ["*", "-", "é", "模型", "\u202e", "\x85", "a" * 5000, "../..", "0x10", "1_000", "~"]
EXTREMES += [[], {}, [[]], [{}], [None], {"": 1}, {"kind": []}, {"op": None}, {"kind": "cosine"}]
EXTREMES += ["²", "\u0661\u0662", "\x1b[31m", "\x00", "two\nlines", "\udcff", "9" * 5000, ".inf"]
EXTREMES += ["2024-01-01", ["a", 1], {"x": {"x": {"x": 1}}}, b"\0\1"]
WORDS = ["train", "data", "model", "optimizer", "kind", "op", "ops", "lr", "schedule", "loss", "0"]
WORDS += ["epohcs", "_base_", "preprocess", "batch_ops", "", "é", "a.b", "-1", "99", "task", "seed"]
WORDS += ["²", "\u0661", "\x1b[31m", "x" * 3000]
VALUES = st.one_of(
    st.sampled_from(EXTREMES), st.integers(), st.floats(), st.text(max_size=9), st.booleans()
)
# Lines put into the file as they are.
LINES = ["x: &a [1]\ny: *a", "model: *nowhere", "train: &t {ops: *t}", "\ttrain: 1", "? [a]\n: 1"]
LINES += ["<<: {seed: 1}", "<<: 3", "seed: 1\nseed: 2", "- a", "}", "'", "--- ", "...", "%YAML 9"]
LINES += [
    "!!python/name:os.system x",
    "seed: !!int x",
    "seed: !!binary x",
    "a: !b c",
    "\x07",
    "1: 2",
]
LINES += ["seed: !!float 0x", "seed: !!timestamp x", "seed: 2024-13-45", "seed: 1:99:99", "? a"]
LINES += ["null: 1", "seed: 0o9", "seed: 0b", "seed: !!set {a}", "x: !!omap [1]", "train: |\n  x"]
LINES += ["_base_: [a, 1]", "_base_: .", "_base_: /", '_base_: "\\0"', "_base_: [[]]", "_base_: é"]
LINES += ["seed: !!bool x", "seed: !!int ''", "seed: !!null x", "x: " + "[" * 300 + "]" * 300]
LINES += ["seed: -0b", "seed: ._", "seed: 1__0:_", "seed: +.inf", "seed: " + "9" * 5000]


@st.composite
def edits(draw):
    """A recipe's name, edits of its tree, lines to insert, and overrides."""
    changes = st.tuples(
        st.sampled_from(["delete", "replace", "insert", "wrap", "copy", "rename"]),
        st.integers(0, 60),
        st.integers(0, 60),
        st.sampled_from(WORDS),
        VALUES,
    )
    keys = st.lists(st.sampled_from(WORDS), min_size=0, max_size=4).map(".".join)
    override = st.one_of(
        st.tuples(keys, st.sampled_from(["=", "==", "", ": "]), VALUES.map(str)).map("".join),
        st.tuples(keys, st.just("="), st.sampled_from(LINES)).map("".join),
        st.tuples(st.integers(0, 60), VALUES),  # of a key that is there
        st.text(max_size=12),
    )
    lines = st.tuples(st.integers(0, 30), st.sampled_from(LINES) | st.text(max_size=12))
    return (
        draw(st.sampled_from(NAMES)),
        draw(st.lists(changes, max_size=2)),
        draw(st.lists(lines, max_size=1)),
        draw(st.lists(override, max_size=1)),
    )


def places(tree, at=()):
    """Every path of keys in the tree."""
    found = [at] if at else []
    if isinstance(tree, dict | list):
        keys = tree if isinstance(tree, dict) else range(len(tree))
        for key in keys:
            found += places(tree[key], (*at, key))
    return found


def parent(tree, at):
    for key in at[:-1]:
        tree = tree[key]
    return tree


def change(tree, how, first, second, word, value):
    """One edit of the tree, at the places that two numbers choose."""
    found = places(tree)
    if not found:
        return
    at, other = found[first % len(found)], found[second % len(found)]
    holder, key = parent(tree, at), at[-1]
    if how == "delete":
        del holder[key]
    elif how == "replace":
        holder[key] = copy.deepcopy(value)
    elif how == "wrap":
        holder[key] = [holder[key]] if first % 2 else {word: holder[key]}
    elif how == "copy":
        holder[key] = copy.deepcopy(parent(tree, other)[other[-1]])
    elif how == "insert" and isinstance(holder[key], dict | list):
        inside = holder[key]
        inside.append(value) if isinstance(inside, list) else inside.update({word: value})
    elif isinstance(holder, dict):
        holder[word] = holder.pop(key)


def written(name, changes, lines, overrides):
    """The edited recipe's text, and the overrides as a command line has them."""
    tree = yaml.safe_load((CONFIGS / name).read_text())
    chosen = [o for o in overrides if isinstance(o, str)]
    for number, value in (o for o in overrides if not isinstance(o, str)):
        found = places(tree)
        chosen.append(".".join(map(str, found[number % len(found)])) + f"={value}")
    for how in changes:
        change(tree, *how)
    rows = yaml.safe_dump(tree, allow_unicode=True).split("\n")
    for number, line in lines:
        rows.insert(number % len(rows), line)
    return "\n".join(rows), chosen


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    shutil.copytree(CONFIGS, folder / "configs")
    return folder


def say_in_words(path, overrides, capsys):
    """The command line says the mistakes in lines that a terminal can take."""
    given = [word for item in overrides for word in ("-o", item) if not item.startswith("-")]
    try:
        code = main(["show-data", "-c", str(path), *given])
    except SystemExit as ended:  # no value behind -o
        code = ended.code
    said = "".join(capsys.readouterr())
    assert code == 2, said
    assert "details" not in said
    for line in said.split("\n"):
        assert len(line) <= 2000, line
        assert all(unicodedata.category(c) not in ("Cc", "Cs") for c in line), repr(line)


def loads_or_says_where(folder, name, changes, lines, overrides, capsys):
    """True where the edited recipe loads; any other exception than UserError is a failure."""
    text, chosen = written(name, changes, lines, overrides)
    path = (folder / "configs" / name).with_name("edited.yaml")
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        recipe = load(Recipe, path.relative_to(folder), chosen)
    except UserError as error:
        mistakes = str(error).splitlines()
        for line in mistakes:
            assert PLACE.match(line), f"no place: {line!r}\n{text}\n{chosen}"
        say_in_words(path.relative_to(folder), chosen, capsys)
        return False
    path.write_text(to_yaml(recipe), encoding="utf-8")
    assert load(Recipe, path) == recipe
    return True


def test_a_hundred_edits(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    outcomes = []

    @QUICK
    @given(edits())
    def check(edit):
        outcomes.append(loads_or_says_where(folder, *edit, capsys))

    check()
    assert 0 < sum(outcomes) < len(outcomes)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_three_thousand_edits(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)

    @settings(QUICK, max_examples=3000, derandomize=False)
    @given(edits())
    def check(edit):
        loads_or_says_where(folder, *edit, capsys)

    check()
