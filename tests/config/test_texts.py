"""Text is text: what a key whose type is text gets is what stands in the file or the command."""

import pytest

from ppcls.config.load import from_plain, load, to_plain, to_yaml
from ppcls.config.node import Count, Flag, Float, PathText, node
from ppcls.utils.errors import UserError

# What YAML 1.1 makes a date, a number, a truth, nothing, a list, a mapping or a mistake of.
AS_IT_STANDS = [
    "2024-11-28",
    "20241128",
    "2024-11-28T10:00:00",
    "007",
    "1.10",
    "1e3",
    "0x1F",
    "0b1",
    "1_000",
    "12:30",
    ".5",
    ".inf",
    "1.",
    "on",
    "off",
    "yes",
    "no",
    "true",
    "False",
    "y",
    "n",
    "<<",
    "=",
]
IN_A_COMMAND = [
    "t/train #2",
    "#2",
    "a: b",
    "a:",
    "[x]",
    "[x",
    "{a}",
    "{a",
    "- a",
    "*.tar",
    "&a",
    "!x",
    "%x",
    "@x",
    "`x`",
    "> x",
    "x ",
    "ends in '",
    "it's",
    "a\tb",
    "!!python/name:os.system",
    "a=b",
    "\udcb5.jpg",
    "\x01",
    "\u2028",
    "?a",
]


@node
class Sample:
    name: str = ""
    place: PathText | None = None
    names: tuple[str, ...] = ()
    several: str | tuple[str, ...] | None = None
    count: Count = 1
    scale: Float = 1.0
    flag: Flag = False
    shares: dict[str, Float] | None = None


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "a.yml"

    def recipe(text=""):
        path.write_text(text, encoding="utf-8")
        return path

    return recipe


def mistake(path, *overrides):
    with pytest.raises(UserError) as caught:
        load(Sample, path, overrides)
    return str(caught.value).removeprefix(str(path))


@pytest.mark.parametrize("text", AS_IT_STANDS)
def test_a_text_stands_as_it_is_written(recipe, text):
    read = load(Sample, recipe(f"name: {text}\nnames: [{text}, a]\nseveral: [{text}]\n"))
    assert (read.name, read.names, read.several) == (text, (text, "a"), (text,))
    given = load(Sample, recipe(), [f"name={text}", f"names=[{text}]"])
    assert given == Sample(name=text, names=(text,))
    value = Sample(name=text, place=text, names=(text,))
    assert load(Sample, recipe(to_yaml(value))) == value
    assert from_plain(Sample, to_plain(value), "a checkpoint") == value


@pytest.mark.parametrize("text", IN_A_COMMAND)
def test_an_override_of_a_text_is_what_stands_behind_the_equals_sign(recipe, text):
    path = recipe("name: 2024\nplace: other\n")
    value = load(Sample, path, [f"name={text}", f"place={text}"])
    assert (value.name, value.place) == (text, text)
    assert load(Sample, recipe(to_yaml(value))) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'null'", "null"),
        ('"a #b"', "a #b"),
        ("'it''s'", "it's"),
        ("", None),
        ("~", None),
        ("null", None),
    ],
)
def test_quotes_around_a_whole_text_are_yamls_and_null_is_none(recipe, text, value):
    assert load(Sample, recipe("place: x\n"), [f"place={text}"]).place == value


def test_a_required_text_is_not_null(recipe):
    words = "-o name=null: name: should be a valid string (got None)"
    assert mistake(recipe(), "name=null") == words


def test_lists_and_mappings_are_yaml_where_they_are_wanted(recipe):
    overrides = ["several=[a, 010]", "shares={on: .5, 007: 1}", "names=[on, '#1'] # two"]
    value = load(Sample, recipe(), overrides)
    assert value.several == ("a", "010")
    assert value.shares == {"on": 0.5, "007": 1.0}
    assert value.names == ("on", "#1")
    assert load(Sample, recipe(), ["several=[a"]).several == "[a"


@pytest.mark.parametrize(
    ("text", "number"), [("10", 10), ("+3", 3), ("1_000", 1000), ("0x10", 16), ("5 # five", 5)]
)
def test_numbers(recipe, text, number):
    assert load(Sample, recipe(), [f"count={text}"]).count == number
    assert load(Sample, recipe(f"count: {text}\n")).count == number


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("010", "'010'; write 10"),
        ("-007", "'-007'; write -7"),
        ("12:30", "'12:30'"),
        ("0b1", "'0b1'"),
        ("0o10", "'0o10'"),
        ("2024-11-28", "'2024-11-28'"),
        ("on", "on"),
        ("1.0", "1.0"),
    ],
)
def test_what_is_no_plain_number_is_refused_as_it_stands(recipe, text, got):
    words = f"count: should be a valid integer (got {got})"
    assert mistake(recipe(), f"count={text}") == f"-o count={text}: {words}"
    assert mistake(recipe(f"name: x\ncount: {text}\n")) == f":2: {words}"


@pytest.mark.parametrize(("text", "truth"), [("on", True), ("No", False), ("yes", True)])
def test_truths_are_those_of_yaml(recipe, text, truth):
    assert load(Sample, recipe(f"flag: {text}\n")).flag is truth
    assert load(Sample, recipe(), [f"flag={text}"]).flag is truth


@pytest.mark.parametrize(("text", "number"), [("1e-4", 1e-4), (".5", 0.5), ("1_0.5", 10.5)])
def test_floats(recipe, text, number):
    assert load(Sample, recipe(f"scale: {text}\n")).scale == number


def test_a_base_and_what_is_laid_over_it_are_told_apart(recipe, tmp_path):
    (tmp_path / "2024").write_text("name: 007\nnames: [on, off, 010]\n")
    value = load(Sample, recipe("_base_: 2024\nplace: 1.10\n"), ["names=[no]"])
    assert value == Sample(name="007", names=("no",), place="1.10")
    over = load(Sample, recipe("_base_: 2024\nname: x\nnames: [a, b]\n"))
    assert (over.name, over.names) == ("x", ("a", "b"))


def test_what_an_override_replaces_is_said_of_the_override(recipe):
    line = mistake(recipe("names: [a, [b]]\n"), "names=[a, b, [c]]")
    assert line == "-o names=[a, b, [c]]: names.2: should be a valid string (got ['c'])"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("'~'", "HOME"),
        ("~/x", "HOME/x"),
        ("./~", "./~"),
        ("~nobody_x/y", "~nobody_x/y"),
        ("a/~/b", "a/~/b"),
        ("~/{000..127}.tar", "HOME/{000..127}.tar"),
    ],
)
def test_a_tilde_is_home_where_a_path_is_meant(recipe, monkeypatch, tmp_path, written, meant):
    monkeypatch.setenv("HOME", str(tmp_path))
    meant = meant.replace("HOME", str(tmp_path))
    assert load(Sample, recipe(), [f"place={written}"]).place == meant
    quoted = written if written[0] == "'" else f"'{written}'"
    assert load(Sample, recipe(f"place: {quoted}\n")).place == meant
    assert load(Sample, recipe(f"name: {quoted}\n")).name == quoted.strip("'")
