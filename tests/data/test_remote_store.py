"""Folders, lists and shards in a store that speaks S3, as moto does."""

import logging
import shutil

import pytest

from ppcls.data.datasets import open_samples
from ppcls.data.make_shards import make_shards
from ppcls.utils import remote
from ppcls.utils.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture
def store(workdir, monkeypatch):
    """A bucket with the folder's files: `store()` puts there what has been added."""
    server = pytest.importorskip("moto.server", reason="pip install 'ppcls[test]'")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("PPCLS_HOME", str(workdir / "home"))
    monkeypatch.setattr(remote, "here", None)
    import boto3

    client = boto3.client("s3")
    client.create_bucket(Bucket="bucket")

    def store():
        for path in workdir.rglob("*"):
            if path.is_file():
                client.upload_file(str(path), "bucket", str(path.relative_to(workdir)))

    yield store
    if remote.here:
        remote.here.threads.shutdown()
    running.stop()


def inside(samples, start):
    return [path.removeprefix(start) for path in samples.paths]


def test_a_folder_has_the_order_of_one_here(store, workdir):
    train = workdir / "photos/train"
    for name in (
        "ant/a/1.png",
        "ant/a.b/2.png",
        "ant/a-b.png",
        "bee/.hidden.png",
        "bee/@eaDir/1.png",
    ):
        (train / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(train / "ant/0.png", train / name)
    (train / "bee/notes.txt").write_text("no image")
    store()
    here, there = open_samples(train), open_samples("s3://bucket/photos/train/")
    assert inside(there, "s3://bucket/photos/train/") == inside(here, f"{train}/")
    assert there.names == here.names
    assert there.labels.tolist() == here.labels.tolist()
    assert there.digest() == here.digest()
    assert there.paths[0].read() == (train / "ant/0.png").read_bytes()
    with pytest.raises(UserError, match="parts of a data set, not classes; open one part, such as"):
        open_samples("s3://bucket/photos")
    with pytest.raises(UserError, match=r"s3://bucket/nothing: there is nothing at this address"):
        open_samples("s3://bucket/nothing")


def test_many_shards_are_found_by_listing(store, workdir, monkeypatch):
    make_shards("photos/train", workdir / "shards", 3_000)
    count = len(list((workdir / "shards").glob("*.tar")))
    (workdir / "shards/deeper").mkdir()
    shutil.copy(workdir / "shards/train-000000.tar", workdir / "shards/deeper/train-000001.tar")
    store()
    monkeypatch.setattr(remote, "LISTED", 2)
    name = f"shards/train-{{000000..{count - 1:06}}}.tar"
    here, there = open_samples(name), open_samples(f"s3://bucket/{name}")
    assert there.digest() == here.digest()
    lost = name.replace(f"{count - 1:06}", f"{count:06}")
    with pytest.raises(UserError, match=rf"do not exist: s3://bucket/shards/train-{count:06}\.tar"):
        open_samples(f"s3://bucket/{lost}")


def test_without_credentials_one_line_says_where_they_go(store, monkeypatch, workdir):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(workdir / "none"))
    with pytest.raises(UserError, match="no credentials; see `aws configure`") as found:
        open_samples("s3://bucket/list.txt")
    assert len(found.value.lines) == 1
    (workdir / "none").write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    monkeypatch.setattr(remote, "here", None)
    with pytest.raises(UserError, match="there is nothing at this address"):
        open_samples("s3://bucket/list.txt")
