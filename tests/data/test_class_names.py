"""Files of class names: every form that is read, and every mistake with its line."""

import json

import pytest

from ppcls.data.class_names import read_class_names
from ppcls.utils.errors import UserError

NAMES = ("blue", "green", "light red")


@pytest.fixture
def names(tmp_path):
    def names(text, file="names.txt"):
        (tmp_path / file).write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_class_names(tmp_path / file)

    return names


@pytest.fixture
def refused(names):
    def refused(text, file="names.txt"):
        with pytest.raises(UserError) as caught:
            names(text, file)
        return [line.partition(file)[2] for line in str(caught.value).splitlines()]

    return refused


@pytest.mark.parametrize(
    "text",
    [
        "blue\ngreen\nlight red\n",
        "2 light red\n0 blue\n1 green\n",
        "\ufeff0\tblue\r\n1\tgreen\r\n2\tlight red",
        "000 blue\n001 green\n002 light red\n\n",
        "0: blue\n1: green\n2: light red\n",
        "1:green\n0:blue\n2:light red\n",
        "0,blue\n1, green\n2 ,light red\n",
        "0;blue\n1;green\n2;light red\n",
        "0. blue\n1. green\n2. light red\n",
        "0) blue\n1) green\n2) light red\n",
        "0 - blue\n1 - green\n2 - light red\n",
        '0,"blue"\n1,"green"\n2,"light red"\n',
        "0\uff1ablue\n1\uff1agreen\n2\uff1alight red\n",
        "0\u3001blue\n1\u3001green\n2\u3001light red\n",
        "light red 2\nblue 0\ngreen 1\n",
        "light red\t2\nblue\t0\ngreen\t1\n",
        "light red: 2\nblue: 0\ngreen: 1\n",
        "id,name\n2,light red\n0,blue\n1,green\n",
        "name\tid\nlight red\t2\nblue\t0\ngreen\t1\n",
        "'blue'\n'green'\n'light red'\n",
        '{"model_type": "resnet", "id2label": {"0": "blue", "1": "green", "2": "light red"}}',
        '["blue", "green", "light red"]',
        '{"2": "light red", "0": "blue", "1": "green"}',
        '{"green": 1, "blue": 0, "light red": 2}',
        '{"0": ["n1", "blue"], "1": ["n2", "green"], "2": ["n3", "light red"]}',
        '{"names": ["blue", "green", "light red"]}',
        "{0: 'blue',\n 1: 'green',\n 2: 'light red'}\n",
    ],
)
def test_forms(names, text):
    assert names(text) == NAMES


def test_more_forms(names):
    assert names("class_id,name\n1,green\n0,blue\n2,light red\n", "names.csv") == NAMES
    assert names("name,id\ngreen,1\nblue,0\nlight red,2\n", "names.csv") == NAMES
    assert names('id,name,about\n1,green,"a, b"\n0,blue,\n2,light red,x\n', "x.csv") == NAMES
    assert names("name\nblue\ngreen\nlight red\n", "names.csv") == NAMES
    assert names("names:\n  0: blue\n  1: green\n  2: light red\nnc: 3\n", "x.yaml") == NAMES
    assert names("- blue\n- green\n- light red\n", "x.yml") == NAMES
    as_text = sorted(range(12), key=str)
    text = "".join(f"{number} class {number}\n" for number in as_text)
    assert names(text) == tuple(f"class {number}" for number in range(12))
    assert names("0 tench\n1 crane\n2 crane\n") == ("tench", "crane", "crane")
    assert names(json.dumps({"0": "雀", "1": "鷹🦅"})) == ("雀", "鷹🦅")
    assert len(read_class_names("imagenet")) == 1000


@pytest.mark.parametrize(
    "lines",
    [
        ["7 eleven", "aldi", "lidl"],
        ["0", "1", "10", "2"],
        ["1 euro", "2 euro", "5 euro"],
        ["1 cent", "2 cent", "5 cent", "1 euro"],
        ["4x4", "2021", "3D print"],
        ["no", "yes", "null", "~", "1.10", "[unknown]"],
        ["[a]", "[b]"],
        ["level 0", "level 1", "level 2"],
        ["iPhone 4", "iPhone 5", "Galaxy 6"],
        ["class 0", "class 1", "other"],
    ],
)
def test_digits_that_belong_to_names_stay(names, lines):
    assert names("\n".join(lines)) == tuple(lines)


def test_mistakes_in_numbers(refused):
    (gap,) = refused("0 blue\n1 green\n3 red\n")
    assert gap.startswith(":3: class 3, and there is no class 2: 3 names are numbered 0 to 2")
    (gap,) = refused("3 idiots\n12 angry men\n300 spartans\n")
    assert gap.startswith(":1: class 3, and there is no class 0")
    assert gap.endswith("where the numbers belong to the names, number these: 0 3 idiots")
    (ones,) = refused("2 green\n1 blue\n3 red\n")
    assert ones.startswith(":2: classes are numbered from 1 to 3 here")
    assert "number them 0 to 2, or leave the numbers out" in ones
    assert refused("0 blue\n1 green\n1 red\n2 grey\n") == [
        ":3: number 1 stands twice, first in line 2"
    ]
    assert refused("0 blue\n1 green\n\n3 red\n4 x\n") == [
        ":3: a blank line has no number and name, as other lines have"
    ]
    assert refused("0 blue\n1\n2 red\n") == [
        ":2: '1' has no name behind its number, as other lines have"
    ]
    assert refused("id name\n0 blue\n1 green\n2 red\n")[0].startswith(":1: 'id name' has no number")
    assert refused('{"0": "blue", "0": "green"}', "names.json") == [": number 0 stands twice"]


def test_mistakes_in_documents(refused):
    assert "a list of class names is expected" in refused("[1, 2]", "names.json")[0]
    assert "expected names by number" in refused('{"a": "b"}', "names.json")[0]
    assert "class 5, and there is no class 1" in refused('{"0": "a", "5": "b"}', "names.json")[0]
