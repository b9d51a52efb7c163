"""The Chinese pages say what the English ones do: commands, headings, figures, tables and links."""

import re

import pages
import pytest

ENDING = ".zh-CN.md"
PAIRS = ["README.md", "docs/first_hour.md"]


def translated(page):
    return page.removesuffix(".md") + ENDING


def fences(text):
    """The fenced blocks with their languages, without comments and the blanks before them."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [(language, re.sub(r"(^|\s+)#.*", "", block)) for language, block in found]


def prose(text):
    """What is outside of the fences."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def levels(text):
    return [len(marks) for marks in re.findall(r"^(#+) ", prose(text), re.MULTILINE)]


def links(text):
    """Where links lead, sorted: sentences are in another order; languages' names are left out."""
    found = re.findall(r"\]\(([^)]+)\)", prose(text))
    return sorted(link.replace(ENDING, ".md") for link in found)


def code(text):
    """What stands in backquotes, sorted, blanks being alike."""
    return sorted(" ".join(words.split()) for words in re.findall(r"`([^`]+)`", prose(text)))


def numbers(text):
    """Figures of a piece of text, sorted; not those of names such as ResNet50."""
    return sorted(re.findall(r"(?<![\w.,/-])\d+(?:[.,]\d+)*(?!\w)", text, re.ASCII))


def rows(text):
    """The rows of all tables: of each the number of cells, its figures and what is code in it."""
    lines = re.findall(r"^\|.*\|$", prose(text), re.MULTILINE)
    return [(line.count("|"), numbers(line), code(line)) for line in lines]


def sections(text):
    return re.split(r"^#+ .*$", prose(text), flags=re.MULTILINE)


PARTS = {
    "commands": fences,
    "levels of headings": levels,
    "links": links,
    "rows of tables": rows,
    "figures": lambda text: [numbers(section) for section in sections(text)],
    "code": lambda text: [code(section) for section in sections(text)],
    "comments": lambda text: re.findall(r"<!--.*?-->", text),
}


def test_every_translation_has_its_page():
    found = {
        str(path.relative_to(pages.ROOT))
        for place in (pages.ROOT, pages.ROOT / "docs")
        for path in place.glob(f"*{ENDING}")
    }
    assert found == {translated(page) for page in PAIRS}


@pytest.mark.parametrize("page", PAIRS)
@pytest.mark.parametrize("part", PARTS)
def test_both_languages_have_the_same(page, part):
    english = PARTS[part](pages.text_of(page))
    chinese = PARTS[part](pages.text_of(translated(page)))
    assert chinese == english


@pytest.mark.parametrize("page", PAIRS)
def test_each_links_to_the_other_at_its_top(page):
    name = page.rpartition("/")[2]
    there = pages.text_of(page).splitlines()[2]
    back = pages.text_of(translated(page)).splitlines()[2]
    assert there == f"English | [简体中文]({translated(name)})"
    assert back == f"[English]({name}) | 简体中文"
