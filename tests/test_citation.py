"""CITATION.cff is what readers of it require, and cites this version."""

import pages
import yaml

import ppcls


def test_it_has_what_is_required():
    cited = yaml.safe_load(pages.text_of("CITATION.cff"))
    assert cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= cited.keys()
    assert cited["type"] == "software"
    assert cited["authors"] == [{"name": "The ppcls authors"}]
    assert cited["license"] == "Apache-2.0"
    assert cited["version"] == ppcls.__version__
    assert all(isinstance(value, str) for key, value in cited.items() if key not in LISTS)


LISTS = ("authors", "keywords")
