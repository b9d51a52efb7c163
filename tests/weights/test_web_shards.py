"""Shards of a web server: fetched once, resumed, and read as those of a folder are."""

import io
import tarfile

import pytest

from ppcls.recipe import Data
from ppcls.train.open_data import open_part
from ppcls.utils.errors import UserError


@pytest.fixture
def body():
    """A tar with two images of class 1 and 0."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for name, content in (
            ("0.jpg", b"first" * 20_000),
            ("0.cls", b"1"),
            ("1.jpg", b"second"),
            ("1.cls", b"0"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return whole.getvalue()


def test_shards_of_an_address_are_fetched_once(web, body, tmp_path):
    web.body, web.cuts = body, [70_000]  # the first answer ends in its second chunk
    url = web.url("train-{7..8}.tar")
    samples = open_part("data.train", url, Data(), multilabel=False)
    assert web.asked == [None, "bytes=65536-", None]
    assert samples.labels.tolist() == [1, 0, 1, 0]
    assert samples.paths[1].read() == b"second"
    assert samples.where(3).endswith("train-8.tar:1.jpg")
    assert samples.paths[0].startswith(str(tmp_path / "home/shards/"))
    web.shutdown()
    again = open_part("data.train", url, Data(), multilabel=False)
    assert again.digest() == samples.digest()


def test_an_address_without_shards(web):
    web.statuses = [404]
    with pytest.raises(UserError, match=r"train-0\.tar: HTTP 404 .*; check the address"):
        open_part("data.train", web.url("train-0.tar"), Data(), multilabel=False)
