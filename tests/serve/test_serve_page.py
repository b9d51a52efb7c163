"""The commands and code of docs/serve.md run as they stand there, against a small export."""

import json
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack

import numpy as np
import pages
import pytest
import small_network
import yaml
from photos import write_photo
from quick_export import export
from running_service import RunningService

from ppcls.cli import make_parser, parse
from ppcls.export import Form
from ppcls.serve.documents import MEANINGS
from ppcls.serve.metrics import Metrics
from ppcls.serve.settings import MB, Limits

PAGE = pages.text_of("docs/serve.md")
PORT = 8000  # that the page speaks of
SERVE = "ppcls serve"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folders and files that the page names."""
    place = tmp_path_factory.mktemp("page")
    export(small_network.trained(), place / "exported/own_photos", [], Form(("onnx", "openvino")))
    for name in ("own_photos_2", "cars_2024", "triton"):
        shutil.copytree(place / "exported/own_photos", place / "exported" / name)
    write_photo(place / "photo.jpg", 1, (64, 80, 3))
    write_photo(place / "other.png", 2, (64, 80, 3))
    (place / ".curlrc").write_text("fail\nsilent\nshow-error\n")
    return place


def here(text, service):
    """With the port that the service has."""
    return re.sub(rf"(127\.0\.0\.1|localhost):{PORT}\b", rf"\1:{service.port}", text)


def shell(lines, place, service=None):
    """Commands of the page, each of which has to succeed; what they print."""
    needed = {word for word in ("curl", "openssl") for line in lines if line.startswith(word)}
    for program in needed:
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    text = "\n".join(lines).replace("python ", f"{sys.executable} ")
    text = here(text, service) if service else text
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(place), "CURL_HOME": str(place)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=place,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    return done.stdout


def values(text):
    """The JSON values that stand in a text one behind the other."""
    found = []
    while text := text.lstrip():
        value, end = json.JSONDecoder().raw_decode(text)
        found.append(value)
        text = text[end:]
    return found


def code(text, place, service):
    """Python of the page; what it prints."""
    command = [sys.executable, "-c", here(text, service)]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def service(place):
    """What the page's first command starts."""
    (command,) = (
        line for line in pages.blocks(PAGE)[0].splitlines() if line.startswith("ppcls serve")
    )
    with RunningService(*command.split()[2:], folder=place) as running:
        yield running


def test_predict(place, service):
    section = pages.section(PAGE, "The API")
    (block,) = pages.blocks(section)
    *answers, models = values(shell(block.splitlines(), place, service))
    assert [len(answer["predictions"]) for answer in answers] == [1, 2, 1, 1]
    assert [model["name"] for model in models["models"]] == ["own_photos"]
    first = answers[0]
    assert set(first["predictions"][0]["labels"]) == {"ant", "bee"}
    (example,) = (json.loads(text) for text in pages.blocks(section, "json"))
    assert list(example) == list(first)
    assert list(example["milliseconds"]) == list(first["milliseconds"])
    assert list(example["predictions"][0]) == list(first["predictions"][0])
    (python,) = pages.blocks(section, "python")
    said = code(python, place, service)
    assert re.findall(r"^\S+", said, re.M) == ["photo.jpg", "other.png"]


def test_open_inference_protocol(place, service):
    section = pages.section(PAGE, "The Open Inference Protocol")
    (block,) = pages.blocks(section)
    metadata, found = values(shell(block.splitlines(), place, service))
    assert metadata["name"] == "own_photos"
    assert [output["name"] for output in found["outputs"]] == ["labels", "scores"]
    pytest.importorskip("tritonclient.http", reason="pip install 'ppcls[test]'")
    (python,) = pages.blocks(section, "python")
    said = code(python, place, service)
    assert re.match(r"\[b'(ant|bee)'\] \[0\.\d+\]", said)


def test_metrics_and_log(place, service):
    section = pages.section(PAGE, "Metrics and logs")
    said = shell(pages.blocks(section)[0].splitlines(), place, service)
    assert 'ppcls_queue_share{model="own_photos"} 0.0' in said
    named = re.findall(r"^\| `(ppcls_\w+)` \| ([\w, ]*?) ?\|", section, re.M)
    documented = {name: {part for part in rest.split(", ") if part} for name, rest in named}
    endings = {"counter": "_total", "info": "_info"}
    registered = Metrics()
    there = {
        family.name + endings.get(family.type, ""): family
        for family in registered.registry.collect()
    }
    assert set(documented) == set(there)
    labels = {
        one._name: set(one._labelnames)
        for one in vars(registered).values()
        if hasattr(one, "_labelnames")
    }
    for name, own in documented.items():
        expected = labels[there[name].name]
        if name == "ppcls_model_info":
            expected = expected | {"version", "digest", "engine", "network"}
        assert own == expected, name
    example = json.loads(pages.blocks(section, "json")[0])
    lines = [json.loads(line) for line in service.said if line.startswith("{")]
    while len(lines) < 2 or not any("model" in line for line in lines):
        line = service.lines.get(timeout=60)
        service.said.append(line)
        lines += [json.loads(line)] if line.startswith("{") else []
    predicted = next(line for line in lines if "model" in line)
    assert list(predicted) == list(example)


# --------------------------------------------------------------------------- what it says


def options_of(command):
    """The options of a command: name → action."""
    parser, _ = make_parser()
    kinds = (action for action in parser._actions if isinstance(action.choices, dict))
    own = next(kinds).choices[command]._actions
    return {name: action for action in own for name in action.option_strings}


def test_options_that_the_page_names_are_there_and_all_are_named():
    known = options_of("serve")
    for name in set(known) - set(options_of("predict")) - {"--share"}:
        assert f"`{name}" in PAGE or f" {name} " in PAGE, name
    others = re.sub(r"^(python|curl|openssl|docker|kubectl|helm) .*", "", PAGE, flags=re.MULTILINE)
    others = others.replace("`--model-control-mode=explicit`", "").replace("`--format`", "")
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", others))
    assert named - set(known) == {"--explain", "--input"}  # of export


def test_defaults_of_limits_and_tuning():
    known = options_of("serve")
    rows = dict(re.findall(r"^\| `(--[\w-]+)` \| ([^|]+?) \|", PAGE, re.M))
    for name in ("--max-pixels", "--max-images", "--queue", "--timeout", "--hang", "--workers"):
        number = float(rows[name].replace(",", "").removesuffix(" s"))
        assert number == known[name].default, name
    assert rows["--max-body"] == f"{known['--max-body'].default // MB}M"
    section = pages.section(PAGE, "Limits")
    unnamed = re.findall(r"^\| \| ([\d,]+)( s|K|M|) \|", section, re.M)
    limits = Limits()
    expected = [limits.slow, limits.header, limits.bytes, limits.connections]
    units = {" s": 1, "K": 1 << 10, "M": MB, "": 1}
    assert [float(n.replace(",", "")) * units[unit] for n, unit in unnamed] == expected
    settings = pages.section(PAGE, "Behind nginx")
    assert f"client_max_body_size {limits.body // MB}m;" in settings
    wait = int(re.search(r"proxy_read_timeout (\d+)s;", settings)[1])
    assert wait > limits.seconds


def test_problems_are_those_of_the_service():
    rows = re.findall(r"^\| `(\w+)` \| [45]\d\d", pages.section(PAGE, "The API"), re.M)
    assert rows == list(MEANINGS)


def test_files_that_the_page_names_are_there():
    for block in pages.blocks(PAGE, "sh"):
        for name in re.findall(r"deploy/[\w./-]+", block):
            assert (pages.ROOT / name).is_file(), name
    for name in re.findall(r"\]\(([\w.]+\.md)", PAGE):
        assert (pages.ROOT / "docs" / name).is_file(), name


# --------------------------------------------------------------------------- others' servers


def test_names_for_triton_are_those_of_the_export(place):
    onnxruntime = pytest.importorskip("onnxruntime")
    section = pages.section(PAGE, "Beside Triton and KServe")
    (text,) = pages.blocks(section, "pbtxt")
    rows = re.findall(
        r'^(\w+) \[ \{ name: "(\w+)", data_type: (\w+), dims: \[ ([\d, ]+) \]', text, re.M
    )
    described = {kind: (name, dtype, dims.split(", ")) for kind, name, dtype, dims in rows}
    session = onnxruntime.InferenceSession(str(place / "exported/triton/inference.onnx"))
    for kind, (tensor,) in (("input", session.get_inputs()), ("output", session.get_outputs())):
        name, dtype, dims = described[kind]
        assert (tensor.name, tensor.type) == (name, "tensor(float)")
        assert dtype == "TYPE_FP32"
        assert not isinstance(tensor.shape[0], int)  # max_batch_size wants a free one
        assert len(dims) == len(tensor.shape) - 1
    rows = session.run(None, {described["input"][0]: np.zeros((2, 3, 32, 32), np.float32)})[0]
    assert rows.shape == (2, int(described["output"][2][0]))


def test_openvino_keeps_the_names(place):
    openvino = pytest.importorskip("openvino")
    (text,) = pages.blocks(PAGE, "pbtxt")
    network = openvino.Core().read_model(place / "exported/triton/inference.xml")
    names = [network.input(0).any_name, network.output(0).any_name]
    assert names == re.findall(r'\{ name: "(\w+)"', text)


def test_kserve_resource_starts_the_service():
    (text,) = pages.blocks(PAGE, "yaml")
    resource = yaml.safe_load(text)
    (container,) = resource["spec"]["predictor"]["containers"]
    options = parse(["serve", "--host", "0.0.0.0", *container["args"]])
    assert options.folders == ["own_photos=/mnt/models"]
    assert container["ports"][0]["containerPort"] == options.port
    schemas = pytest.importorskip("kubernetes_validate", reason="pip install 'ppcls[test]'")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": resource["metadata"]}
    schemas.validate(pod | {"spec": resource["spec"]["predictor"]}, "1.31", strict=True)


# --------------------------------------------------------------------------- the whole page


def segments(block):
    """Its lines in order: each `ppcls serve` alone, and what stands between them together."""
    found = []
    for line in block.splitlines():
        if not found or SERVE in (line[: len(SERVE)], found[-1][0][: len(SERVE)]):
            found.append([])
        found[-1].append(line)
    return found


@pytest.mark.slow
def test_every_command_runs_in_order(trained, workdir, place):
    """What a block starts, the rest of it asks; blocks that start nothing ask the first service."""
    shutil.copytree(place, workdir, dirs_exist_ok=True)
    for name in ("own_photos", "triton"):  # which the page exports
        shutil.rmtree(workdir / "exported" / name)
    (workdir / "runs/small").rename(workdir / "runs/own_photos")
    (workdir / "tools").symlink_to(pages.ROOT / "tools")
    started = []
    with ExitStack() as whole:
        first = None
        for block in pages.blocks(PAGE):
            with ExitStack() as own:
                running = first
                for lines in segments(block):
                    if not lines[0].startswith(SERVE):
                        shell(lines, workdir, running)
                        continue
                    service = RunningService(*lines[0].split()[2:], folder=workdir)
                    running = (own if first else whole).enter_context(service)
                    started.append(running)
                first = first or running
    assert len(started) == 6
    assert all(one.process.returncode == 0 for one in started)
    assert (workdir / "model_repository/own_photos/1/model.onnx").is_file()
    assert (workdir / "kept/answers.jsonl").is_file()
