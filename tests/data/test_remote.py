"""Images elsewhere: the same as here, whatever the server does; and nothing of this machine."""

import errno
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ppcls.cli import main
from ppcls.data import decode
from ppcls.data.datasets import missing, open_samples
from ppcls.data.loader import EvalPipeline, Loader, eval_order, load_batch
from ppcls.data.make_shards import make_shards
from ppcls.data.preprocess import Preprocess
from ppcls.utils import remote
from ppcls.utils.errors import DataError, UserError
from ppcls.utils.web import Patience

BENCHMARK = Path(__file__).parents[2] / "benchmarks/remote_data.py"


@pytest.fixture(scope="module")
def remote_data():
    spec = importlib.util.spec_from_file_location("remote_data", BENCHMARK)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def server(workdir, monkeypatch, remote_data):
    """A server of the working directory: `bucket` is one of its folders, and an S3 bucket."""
    (workdir / "bucket").mkdir()
    shutil.move(workdir / "photos", workdir / "bucket/photos")
    monkeypatch.setenv("PPCLS_HOME", str(workdir / "home"))
    monkeypatch.setattr(remote, "PATIENCE", Patience(connect=5, read=5, chunk=5, pauses=(0, 0, 0)))
    monkeypatch.setattr(remote, "here", None)
    for name, value in remote_data.KEYS.items():
        monkeypatch.setenv(name, value)
    with remote_data.Server(workdir) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
        yield server
        if remote.here:
            remote.here.threads.shutdown()


@pytest.fixture
def places(server, workdir):
    """What a list or shards are called here, on the web server and in the bucket."""
    return (str(workdir / "bucket"), f"{server.address}/bucket", "s3://bucket")


def write_list(workdir, *more):
    photos = sorted((workdir / "bucket/photos/train").rglob("*.png"))
    lines = [
        f"{path.relative_to(workdir / 'bucket')} {path.parent.name == 'bee':d}" for path in photos
    ]
    (workdir / "bucket/list.txt").write_text("".join(f"{line}\n" for line in [*lines, *more]))


def pixels(samples):
    loader = Loader({"eval": (samples, EvalPipeline(Preprocess(resize=36, crop=32)))}, 0)
    order = [np.array([3, 0, 3]), *eval_order(len(samples), 4)]  # one of them twice
    batches = list(loader.batches("eval", order))
    return [batch.images.tobytes() + batch.labels.tobytes() for batch in batches]


def test_a_list_and_its_images_are_the_same_elsewhere(places, server, workdir):
    name = "photos/train/ant/a b#é%.png"  # which an address spells otherwise
    shutil.copy(workdir / "bucket/photos/train/ant/0.png", workdir / "bucket" / name)
    write_list(workdir)
    here, *there = [open_samples(f"{place}/list.txt") for place in places]
    for samples in there:
        assert samples.digest() == here.digest()
        assert missing(samples) == []
        assert pixels(samples) == pixels(here)
    assert f"/bucket/{name}" in server.requests


def test_shards_elsewhere_are_indexed_once_and_read_in_parts(places, server, workdir):
    make_shards("bucket/photos/train", workdir / "bucket/shards", 20_000)
    count = len(list((workdir / "bucket/shards").glob("*.tar")))
    assert count > 2
    name = f"shards/train-{{000000..{count - 1:06}}}.tar"
    here, *there = [open_samples(f"{place}/{name}") for place in places]
    for place, samples in zip(places[1:], there, strict=True):
        assert samples.names == here.names == ("ant", "bee")
        assert samples.digest() == here.digest()
        server.requests.clear()
        assert pixels(samples) == pixels(here)
        assert len(server.requests) <= 2 * len(here)
        server.requests.clear()
        open_samples(f"{place}/{name}")
        assert len(server.requests) <= 2 * count + 5  # states, and the names of the classes
    tar = workdir / "bucket/shards/train-000001.tar"
    tar.write_bytes(tar.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"train-000001\.tar: not an uncompressed tar, damaged or"):
        open_samples(f"{places[1]}/{name}")
    with pytest.raises(UserError, match=r"train-000001\.tar:.*has changed or was cut short"):
        pixels(there[0])
    tar.unlink()
    with pytest.raises(UserError, match=r"shards that do not exist: http.*train-000001\.tar"):
        open_samples(f"{places[1]}/{name}")


def test_what_passes_is_tried_again_and_said_once(server, workdir, places, capsys):
    write_list(workdir)
    failed = set()

    def rule(path, number):
        new = path not in failed and (failed.add(path) or True)
        return 503 if new else 0

    server.rule = rule
    here, there, _ = [open_samples(f"{place}/list.txt") for place in places]
    server.cut = {f"/bucket/photos/train/ant/{i}.png": True for i in range(6)}
    assert pixels(there) == pixels(here)
    assert not server.cut
    out = capsys.readouterr().out
    assert out.count("trying again, from now on without a word") == out.count("HTTP 503") == 1
    server.rule = lambda path, number: 503
    with pytest.raises(UserError, match=r"ant/0\.png: HTTP 503, 4 times; start again later"):
        there.paths[0].read()


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "there is nothing at this address"), (403, "access is refused; a user name and pass")],
)
def test_what_does_not_pass_is_one_line_at_once(server, places, status, words):
    server.rule = lambda path, number: status
    with pytest.raises(UserError, match=words) as found:
        open_samples(f"{places[1]}/list.txt")
    assert len(found.value.lines) == 1
    assert len(server.requests) == 1


def test_a_batch_is_asked_for_at_once_and_the_next_one_too(server, workdir, places):
    write_list(workdir)
    samples = open_samples(f"{places[1]}/list.txt")
    part = (samples, EvalPipeline(Preprocess()))
    server.delay = 1
    server.most = 0
    server.requests.clear()
    load_batch(part, np.arange(4), 0, np.arange(4, 10))
    assert server.most == 10
    load_batch(part, np.arange(4, 10), 0)
    assert len(server.requests) == len(set(server.requests)) == 10


def test_a_bucket_of_google_is_read_like_the_others(server, workdir, places, monkeypatch):
    write_list(workdir)
    account = {"gcs_base_url": server.address, "disable_oauth": True}
    account |= dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    Path("account.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(workdir / "account.json"))
    here, there = open_samples(f"{places[0]}/list.txt"), open_samples("gs://bucket/list.txt")
    assert pixels(there) == pixels(here)
    with pytest.raises(UserError, match=r"gs://bucket/none\.txt: there is nothing at this address"):
        open_samples("gs://bucket/none.txt")


def test_a_disk_that_is_away_is_no_fault_of_the_images(workdir, monkeypatch):
    samples = open_samples("photos/train")

    def away(path):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(decode, "read_file", away)
    with pytest.raises(DataError, match=r"Stale file handle.*start again later"):
        load_batch((samples, EvalPipeline(Preprocess(), skip=True)), np.arange(3), 0)


def test_keys_that_are_not_accepted_are_no_fault_of_the_images(server, workdir, places):
    """`data.on_error: skip` must not take them for broken, one after the other."""
    write_list(workdir)
    samples = open_samples(f"{places[1]}/list.txt")
    part = (samples, EvalPipeline(Preprocess(), skip=True))
    server.rule = lambda path, number: 403 if "ant/0" in path else 0
    assert "access is refused" in load_batch(part, np.arange(3), 0).skipped[0]
    server.rule = lambda path, number: 401
    with pytest.raises(DataError, match="no credentials that are"):
        load_batch(part, np.arange(3), 0)
    expired = Exception("status code: 400 Bad Request: <Error><Code>ExpiredToken</Code>")
    found = remote.explained("s3://bucket/a.jpg", expired)
    assert isinstance(found, remote.CredentialsError)


def test_a_server_without_parts_a_missing_package_and_no_network(server, places, monkeypatch):
    make_shards("bucket/photos/train", Path("bucket/shards"), 1_000_000)
    server.ranges = False
    with pytest.raises(UserError, match=r"sends whole files .* -o data\.fetch=true"):
        open_samples(f"{places[1]}/shards/train-000000.tar")
    with pytest.raises(UserError, match="has no folders to look into: give a list file or shards"):
        open_samples(f"{places[1]}/photos/train")
    monkeypatch.setenv("PPCLS_OFFLINE", "1")
    with pytest.raises(UserError, match=r"list\.txt: not read: unset PPCLS_OFFLINE"):
        open_samples(f"{places[1]}/list.txt")
    monkeypatch.setattr(remote, "here", None)
    monkeypatch.setattr(remote, "find_spec", lambda name: None)
    monkeypatch.delenv("PPCLS_OFFLINE")
    with pytest.raises(UserError, match=r'pip install "ppcls\[remote\]"'):
        open_samples(f"{places[1]}/list.txt")


def test_a_list_elsewhere_names_no_file_of_this_machine(places, workdir):
    secret = workdir / "secret.png"
    shutil.copy(workdir / "bucket/photos/train/ant/0.png", secret)
    tricks = [str(secret), f"file://{secret}", "~/secret.png", "../secret.png", f"//{secret}"]
    write_list(workdir, *[f"{trick} 0" for trick in tricks])
    for place in places[1:]:
        samples = open_samples(f"{place}/list.txt")
        for index in range(12, len(samples)):
            assert samples.paths[index].startswith(place)
    # The server's own folder above is reached by no S3 key, and by a web address only as the
    # server allows it.
    samples = open_samples("s3://bucket/list.txt")
    assert len(missing(samples)) == len(tricks)


def test_a_list_elsewhere_leads_to_no_other_server(places, workdir):
    write_list(workdir, "https://169.254.169.254/latest 0")
    with pytest.raises(UserError, match=r"list\.txt:13: https://169.* is on another server than"):
        open_samples(f"{places[1]}/list.txt")
    assert len(open_samples(f"{places[0]}/list.txt")) == 13  # the user's own may


@pytest.mark.parametrize(
    "address", ["https://me:hunter2@host/list.txt", "https://host/list.txt?X-Signature=hunter2"]
)
def test_addresses_with_secrets_are_refused_and_not_shown(address, workdir, capsys):
    assert main(["train", "-c", "recipe.yaml", "-o", f"data.train={address}"]) == 2
    (workdir / "list.txt").write_text(f"{address.replace('txt', 'png')} 0\n")
    assert main(["train", "-c", "recipe.yaml", "-o", "data.train=list.txt"]) == 2
    assert main(["train", address]) == 2
    said = "".join(capsys.readouterr())
    assert said.count("an address at https://host holds a password, or a key") == 3
    assert "hunter2" not in said
    assert not (workdir / "runs").exists()


def test_passwords_of_web_servers_stand_in_netrc(server, places, workdir, monkeypatch):
    netrc = workdir / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hunter2\n")
    monkeypatch.setenv("NETRC", str(netrc))
    write_list(workdir)
    open_samples(f"{places[1]}/list.txt")
    assert b"authorization: Basic bWU6aHVudGVyMg==" in server.last


def test_what_has_forked_says_that_it_cannot_read(server, places, workdir):
    write_list(workdir)
    remote.read(f"{places[1]}/list.txt")
    child = os.fork()
    if not child:
        try:
            remote.read(f"{places[1]}/list.txt")
        except UserError as error:
            os._exit(7 if "forked" in str(error) else 1)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.slow
@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_run_whose_server_goes_away_is_saved_and_worth_another_try(
    server, places, workdir, on_error, capsys
):
    write_list(workdir)
    own = [f"data.train={places[1]}/list.txt", "data.eval=null", f"data.on_error={on_error}"]
    command = ["train", "-c", "recipe.yaml", "-o", *own, "train.epochs=4"]
    server.rule = lambda path, number: 503 if number > 60 else 0
    assert main(command) == 75
    assert "4 times; start again later; saved runs/small/latest" in capsys.readouterr().err
    server.rule = lambda path, number: 0
    assert main([*command[:3], "--resume", *command[3:]]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_training_from_elsewhere_and_its_resume_are_bit_for_bit_those_from_here(
    server, places, workdir, workers
):
    write_list(workdir)
    weights = []
    for number, place in enumerate(places):
        own = [f"data.train={place}/list.txt", "data.eval=null", f"data.workers={workers}"]
        own += [f"output=runs/{number}", "train.epochs=4"]
        command = ["train", "-c", "recipe.yaml", "-o", *own]
        if number and not workers:  # the server goes away in the midst of it, once
            start = len(server.requests)
            server.rule = lambda path, at, start=start: 503 if at > start + 60 else 0
            assert main(command) == 75
            server.rule = lambda path, at: 0
            command.insert(3, "--resume")
        assert main(command) == 0
        found = load_file(workdir / f"runs/{number}/latest.safetensors")
        weights.append({name: value.tobytes() for name, value in found.items()})
    assert weights[0] == weights[1] == weights[2]


@pytest.mark.slow
def test_a_long_list_elsewhere_takes_no_more_memory_than_here(workdir, remote_data):
    done = remote_data.subprocess.run(
        [sys.executable, BENCHMARK, "--list", "400000", "--delay", "0"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split("|") for line in done.stdout.splitlines() if "lines" in line]
    here, there = (float(row[3].replace(",", "")) for row in rows)
    assert there < here + 100  # MiB: blocks that are read ahead, and obstore
