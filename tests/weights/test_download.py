"""Downloads from a server that does everything servers do."""

import hashlib
import os
import subprocess
import sys
import threading
import time
from itertools import count

import pytest

from ppcls.utils import log
from ppcls.utils.errors import UserError
from ppcls.weights import download
from ppcls.weights.download import CHUNK, Patience, shown

CUT = 150_000  # where a connection breaks: in the third chunk


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def leftovers(path):
    return sorted(file.name for file in path.parent.iterdir() if ".lock" not in file.name)


def fetch(*given, **waits):
    """As users do, but without a pause after what failed."""
    return download.fetch(*given, patience=Patience(**{"pauses": (0, 0, 0), **waits}))


def refused(url, words, *given, **waits):
    """The line of the error, which names the URL and where the file would lie."""
    with pytest.raises(UserError, match=words) as caught:
        fetch(url, *given, **waits)
    line = str(caught.value)
    assert url in line
    assert f"put the file at {download.place(url)} by hand" in line
    assert "\n" not in line
    return line


# --------------------------------------------------------------------------- what goes well


def test_a_file_is_downloaded_once_and_its_sha256_recorded(web, capsys, tmp_path):
    url = web.url("net.pdparams")
    path = fetch(url)
    assert path.read_bytes() == web.body
    assert path.name == "net.pdparams"
    assert path.is_relative_to(tmp_path / "home/weights")
    out = capsys.readouterr().out
    assert f"downloading {url}: 0.3 MiB" in out
    assert f"no sha256 is published for net.pdparams: {sha256(web.body)} is recorded in" in out
    assert leftovers(path) == ["net.pdparams", "net.pdparams.json"]
    web.shutdown()
    assert fetch(url) == path
    assert capsys.readouterr().out == ""
    assert len(web.asked) == 1


def test_progress_is_told_where_there_is_no_terminal(capsys):
    pace = log.Pace(clock=count(step=3600).__next__)
    chunks = [b"x" * CHUNK] * 4 + [b"x" * (300_000 - 4 * CHUNK)]
    assert list(shown(chunks, "net.npz", 0, 300_000, pace)) == chunks
    lines = [f"net.npz: {n} of 0.3 MiB" for n in ("0.1", "0.1", "0.2", "0.2", "0.3")]
    assert capsys.readouterr().out.splitlines() == lines


def test_equal_names_at_other_addresses_are_other_files(web):
    first = fetch(web.url("a/best.safetensors"))
    web.body = b"another"
    second = fetch(web.url("b/best.safetensors?x=1"))
    assert first.name == second.name == "best.safetensors"
    assert first.read_bytes() != second.read_bytes()


def test_a_published_sha256_is_compared(web, capsys):
    path = fetch(web.url("a"), sha256(web.body))
    assert "no sha256" not in capsys.readouterr().out
    with pytest.raises(UserError, match=f"{sha256(web.body)}, the published one is 00: delete"):
        fetch(web.url("a"), "00")
    refused(web.url("b"), "the published one is 00: try again, or put", "00")
    assert path.exists()
    assert not any(download.place(web.url("b")).parent.glob("b*"))


# --------------------------------------------------------------------------- interruptions


def test_a_cut_connection_is_resumed_where_it_broke(web):
    web.cuts = [CUT, 50_000]
    path = fetch(web.url("a"))
    assert path.read_bytes() == web.body
    first, second, third = web.asked
    starts = [int(text[6:-1]) for text in (second, third)]
    assert first is None
    assert CUT - CHUNK < starts[0] <= CUT
    assert starts[0] + 50_000 - CHUNK < starts[1] <= starts[0] + 50_000
    assert web.served == CUT + 50_000 + len(web.body) - starts[1]


def test_a_later_run_resumes(web, capsys):
    web.cuts = [CUT]
    url = web.url("a")
    refused(url, "the connection was cut; try again later", pauses=())
    part = download.place(url).with_name("a.part")
    have = part.stat().st_size
    assert CUT - CHUNK < have <= CUT
    assert part.read_bytes() == web.body[:have]
    web.served = 0
    path = fetch(url)
    assert path.read_bytes() == web.body
    assert web.asked[1:] == [f"bytes={have}-"]
    assert web.served == len(web.body) - have
    assert f"resuming {url}: 0.1 of 0.3 MiB" in capsys.readouterr().out
    assert leftovers(path) == ["a", "a.json"]


def test_what_was_complete_but_not_yet_renamed_is_taken(web):
    record = download.place(web.url("a")).with_name("a.json")
    record.mkdir(parents=True)  # so that what came cannot be recorded
    with pytest.raises(UserError, match=r"a\.json: cannot be written \(Is a directory\)"):
        fetch(web.url("a"))
    assert record.with_name("a.part").read_bytes() == web.body
    record.rmdir()
    assert fetch(web.url("a")).read_bytes() == web.body
    assert len(web.asked) == 1


@pytest.mark.parametrize("how", ["no ranges", "no validators"])
def test_what_cannot_be_resumed_begins_anew(web, how):
    web.ranges = how != "no ranges"
    web.validators = {} if how == "no validators" else web.validators
    web.cuts = [CUT]
    assert fetch(web.url("a")).read_bytes() == web.body
    assert web.served == CUT + len(web.body)


@pytest.mark.parametrize("validator", ["ETag", "Last-Modified"])
@pytest.mark.parametrize("size", [300_000, 290_000, 100])
def test_a_file_that_changed_meanwhile_begins_anew(web, validator, size):
    web.validators = {validator: "Mon, 01 Jan 2024 00:00:00 GMT"}
    web.cuts = [CUT]
    refused(web.url("a"), "cut", pauses=())
    web.validators = {validator: "Tue, 02 Jan 2024 00:00:00 GMT"}
    web.body = bytes(reversed(web.body))[:size]
    assert fetch(web.url("a")).read_bytes() == web.body


def test_attempts_end_when_nothing_more_comes(web):
    web.missing = 10
    refused(web.url("a"), "the connection was cut; try again later")
    assert len(web.asked) == 1 + 3
    assert not download.place(web.url("a")).exists()


def test_a_passing_error_is_tried_again(web):
    web.statuses = [503, 429]
    assert fetch(web.url("a")).read_bytes() == web.body
    web.statuses = [500] * 4
    refused(web.url("b"), "HTTP 500 Internal Server Error; try again later")


def test_a_silent_server_is_not_waited_for(web):
    web.silence = 60
    words = r"nothing came for 0\.1 s; try again later"
    refused(web.url("a"), words, read=0.1, pauses=())


# --------------------------------------------------------------------------- without end


def test_a_body_without_end_is_cut_at_the_stated_size(web, monkeypatch):
    monkeypatch.setenv("PPCLS_LARGEST_DOWNLOAD", "0.001")
    web.endless = True
    line = refused(web.url("a"), "no end is known, more than the 0.001 GB that PPCLS_LARGEST_DOWN")
    assert "set it higher" in line
    assert web.served < 20_000_000  # what fits into the buffers of a connection
    assert not list(download.place(web.url("a")).parent.glob("a*.part"))


def test_a_file_that_is_said_to_be_too_large_is_not_begun(web, monkeypatch):
    monkeypatch.setenv("PPCLS_LARGEST_DOWNLOAD", "0.0001")
    refused(web.url("a"), r"0\.0 GB, more than the 0\.0001 GB")
    monkeypatch.delenv("PPCLS_LARGEST_DOWNLOAD")
    web.length = 10**15
    refused(web.url("a"), "1,000,000.0 GB, more than the 20 GB")
    assert not list(download.place(web.url("a")).parent.glob("a*.part"))


@pytest.mark.parametrize("text", ["much", "-1", "²", "1e400", "nan", "9" * 5000])
def test_a_limit_that_is_no_number_is_named(web, monkeypatch, text):
    monkeypatch.setenv("PPCLS_LARGEST_DOWNLOAD", text)
    with pytest.raises(UserError, match="PPCLS_LARGEST_DOWNLOAD: should be a number") as caught:
        fetch(web.url("a"))
    assert len(str(caught.value)) < 200


def test_a_byte_now_and_then_is_given_up_and_gone_on_with(web):
    """Each byte is in time for a time-out of the connection, and the file would take for ever."""
    web.drops = 0.01
    words = r"less than 64 KiB came in 0\.3 s: .* a later run goes on from"
    line = refused(web.url("a"), words, chunk=0.3)
    assert len(web.asked) == 1
    assert "\n" not in line
    web.drops = 0.0
    assert fetch(web.url("a")).read_bytes() == web.body


def test_an_answer_whose_head_never_ends_is_given_up(web):
    web.validators = {f"X-{number}": "x" for number in range(50)}
    web.slow_head = 0.05
    refused(web.url("a"), r"less than 64 KiB came in 0\.2 s", chunk=0.2)


def test_a_connection_for_each_byte_is_given_up(web):
    web.cuts = [1] * 100
    refused(web.url("a"), "the connection was cut; try again later")
    assert len(web.asked) == 1 + 3


def test_the_time_for_a_file_is_limited(web):
    words = "not complete after 0 hours: .* are kept and a later run goes on from"
    refused(web.url("a"), words, hours=0)
    assert fetch(web.url("a"), hours=1).read_bytes() == web.body


@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, gzip"])
def test_what_comes_packed_is_refused(web, encoding):
    """300 kB of gzip may stand for 300 MB."""
    web.encoding = encoding
    refused(web.url("a"), f"it comes packed \\('{encoding}'\\), which was not asked for")


def test_redirects_in_a_circle_end(web):
    web.redirect = web.url("a")
    refused(web.url("a"), "Exceeded 30 redirects")


# --------------------------------------------------------------------------- refusals


def test_a_wrong_address_is_not_tried_again(web):
    web.statuses = [404]
    refused(web.url("a"), "HTTP 404 Not Found; check the address")
    assert len(web.asked) == 1


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html; charset=utf-8", b"Please log in"),
        ("application/octet-stream", b"\n<!DOCTYPE html><title>Log in</title>"),
        ("application/octet-stream", b"<?xml version='1.0'?><Error/>"),
    ],
)
def test_a_web_page_is_not_kept(web, kind, body):
    web.type, web.body = kind, body
    refused(web.url("a"), "a web page, not the file; check the address")
    assert not any(download.place(web.url("a")).parent.glob("a*"))


def test_an_empty_file_is_not_kept(web):
    web.body = b""
    refused(web.url("a"), "an empty file; check the address")
    assert not any(download.place(web.url("a")).parent.glob("a*"))


def test_no_connection(web):
    web.shutdown()
    web.server_close()
    refused(web.url("a"), "no connection: Connection refused; try again later")


@pytest.mark.parametrize("url", ["http://", "http://host/", "http://[/a", "http://host/.."])
def test_an_address_without_a_file_is_refused(web, url):
    with pytest.raises(UserError, match=r"not (the|an) address"):
        fetch(url)


# --------------------------------------------------------------------------- by hand, offline


def test_offline_says_where_the_file_goes_and_takes_it_from_there(web, monkeypatch, capsys):
    monkeypatch.setenv("PPCLS_OFFLINE", "1")
    url = web.url("a.pdparams")
    refused(url, "not downloaded: unset PPCLS_OFFLINE, or put")
    download.place(url).parent.mkdir(parents=True)
    download.place(url).write_bytes(b"by hand")
    assert fetch(url).read_bytes() == b"by hand"
    assert f"{sha256(b'by hand')} is recorded in" in capsys.readouterr().out
    assert web.asked == []
    monkeypatch.setenv("PPCLS_OFFLINE", "0")
    assert fetch(web.url("b")).read_bytes() == web.body


def test_a_file_that_changes_in_the_cache_is_refused(web):
    path = fetch(web.url("a"))
    os.utime(path, (1, 1))
    assert fetch(web.url("a")) == path  # the same bytes at another time
    path.write_bytes(web.body[:-1] + b"?")
    with pytest.raises(UserError, match=r"the recorded one is .* delete the file .* or .*a\.json "):
        fetch(web.url("a"))
    path.with_name("a.json").unlink()
    assert fetch(web.url("a")) == path


def test_a_file_is_read_for_its_sha256_once(web, monkeypatch):
    read, sha256 = [], hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", lambda *given: read.append(given) or sha256(*given))
    path = fetch(web.url("a"))
    assert read.count(()) == 1  # of the whole, before it takes its place; another is of the address
    about = path.stat()
    path.write_bytes(web.body[:-1] + b"?")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert fetch(web.url("a")) == path  # of the same size and time: it is not read again
    assert read.count(()) == 1


def test_a_damaged_record_is_named(web):
    path = fetch(web.url("a"))
    path.with_name("a.json").write_text("{")
    with pytest.raises(UserError, match=r"a\.json: damaged; delete it"):
        fetch(web.url("a"))


def test_a_cache_that_cannot_be_written_is_named(web, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"Not a directory: make room .* or set PPCLS_HOME"):
        fetch(web.url("a"))


# --------------------------------------------------------------------------- at the same time


def wait_until(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_two_threads_download_once(web, capsys):
    web.silence = 120
    paths, said = [], []

    def waiting():
        said.append(capsys.readouterr().out)
        return "waiting for another process that downloads" in "".join(said)

    threads = [threading.Thread(target=lambda: paths.append(fetch(web.url("a")))) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(waiting)
    web.wake.set()
    for thread in threads:
        thread.join()
    assert len(paths) == 2
    assert paths[0].read_bytes() == web.body
    assert len(web.asked) == 1


def test_two_processes_download_once(web, tmp_path):
    web.silence = 120
    code = "import sys; from ppcls.weights.download import fetch; fetch(sys.argv[1])"
    command = [sys.executable, "-u", "-c", code, web.url("a")]
    said = tmp_path / "said.txt"
    with said.open("a") as out:
        processes = [subprocess.Popen(command, stdout=out) for _ in range(2)]
    wait_until(lambda: "waiting for another process" in said.read_text())
    web.wake.set()
    assert [process.wait() for process in processes] == [0, 0]
    assert download.place(web.url("a")).read_bytes() == web.body
    assert len(web.asked) == 1
