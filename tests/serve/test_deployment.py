"""What deploy/ has for Docker, Compose and Kubernetes, held against their schemas and the service.

No image is built here: what the Dockerfile installs is put together from this environment, and
what it starts, with it, and the health check, are run.
"""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import types
import venv
from importlib import metadata
from pathlib import Path
from urllib.request import Request, urlopen

import pages
import pytest
import small_network
import yaml
from packaging.requirements import Requirement
from photos import write_photo
from quick_export import export
from running_service import RunningService

from ppcls.cli import parse
from ppcls.export import Form
from ppcls.serve import model, server
from ppcls.serve.metrics import Metrics
from ppcls.serve.settings import Limits
from ppcls.utils import environment

ROOT = pages.ROOT
DEPLOY = ROOT / "deploy"
ENGINES = ("onnxruntime", "openvino", "paddle")
LEFT_OUT = ("paddle", "matplotlib", "sklearn", "onnx", "paddle2onnx", "psutil")


def instructions(text):
    """The Dockerfile's instructions, each with what follows it, in a line."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    whole = re.sub(r"\\\n", " ", lines)
    return [tuple(line.split(None, 1)) for line in whole.splitlines() if line.strip()]


DOCKERFILE = instructions((DEPLOY / "Dockerfile").read_text())
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
KUBERNETES = list(yaml.safe_load_all((DEPLOY / "k8s/serve.yaml").read_text()))
RULES = yaml.safe_load((DEPLOY / "k8s/adapter.yaml").read_text())["rules"]["custom"]
MONITOR = yaml.safe_load((DEPLOY / "k8s/monitor.yaml").read_text())


def given(name):
    return [rest for kind, rest in DOCKERFILE if kind == name]


def of_kind(kind):
    (found,) = (one for one in KUBERNETES if one["kind"] == kind)
    return found


POD = of_kind("Deployment")["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]
ENTRY = json.loads(given("ENTRYPOINT")[0])
IMAGE = dict(part.split("=", 1) for part in shlex.split(given("ENV")[0]))


def options_of(words):
    """What the service would be told, by its own parser."""
    assert ENTRY[:2] == ["ppcls", "serve"]
    return parse([*ENTRY[1:], *words])


def setup_arguments():
    """What setup.py tells setuptools, which need not be here."""
    seen = {}
    parts = types.ModuleType("setuptools")
    parts.setup = seen.update
    parts.find_packages = lambda **_: []
    build = types.ModuleType("setuptools.command.build_py")
    build.build_py = object
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "setuptools", parts)
        patch.setitem(sys.modules, "setuptools.command", types.ModuleType("setuptools.command"))
        patch.setitem(sys.modules, "setuptools.command.build_py", build)
        runpy.run_path(str(ROOT / "setup.py"))
    return seen


SETUP = setup_arguments()
EXTRAS = SETUP["extras_require"]


def installed_by_dockerfile():
    """The words of its pip command."""
    (line,) = (rest for rest in given("RUN") if "pip " in rest)
    (command,) = (part for part in line.split("&&") if " install " in part)
    return shlex.split(command)


def finished(command, **options):
    """A process that has ended, whatever its exit code."""
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


# --------------------------------------------------------------------------- the Dockerfile


def test_hadolint():
    program = shutil.which("hadolint", path=Path(sys.executable).parent) or shutil.which("hadolint")
    if not program:
        pytest.skip("hadolint is not installed: its package has it for Linux on x86-64 alone")
    done = finished([program, DEPLOY / "Dockerfile"])
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_dockerfile_is_careful():
    assert given("USER") == ["10001:10001"]
    after = [kind for kind, _ in DOCKERFILE]
    assert "RUN" not in after[after.index("USER") :]  # nor COPY: root owns what is run
    assert "COPY" not in after[after.index("USER") :]
    for base in given("FROM"):
        image = base.split()[0]
        assert re.fullmatch(r"python:\$\{PYTHON\}-slim", image), base
    version = next(rest for rest in given("ARG") if rest.startswith("PYTHON="))
    assert re.fullmatch(r"PYTHON=3\.\d+", version)
    assert int(version.rpartition(".")[2]) >= 12  # else Paddle lacks setuptools
    assert options_of(json.loads(given("CMD")[0])).folders == ["/models"]
    assert options_of([]).host == "0.0.0.0"
    assert options_of([]).port == int(given("EXPOSE")[0])
    assert given("STOPSIGNAL") == ["SIGTERM"]


def test_files_that_are_copied_are_all_that_a_wheel_needs():
    sources = [word for rest in given("COPY") if "--from" not in rest for word in rest.split()[:-1]]
    for source in sources:
        assert (ROOT / source).exists(), source
    named = set(re.findall(r'here / "([^"]+)"', (ROOT / "setup.py").read_text()))
    tops = {name.split("/")[0] for name in named} | {f"{name}.py" for name in SETUP["py_modules"]}
    manifest = re.findall(r"^(?:graft|include) (\S+)", (ROOT / "MANIFEST.in").read_text(), re.M)
    assert tops | set(manifest) | {"setup.py", "pyproject.toml", "MANIFEST.in"} <= set(sources)
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    let_in = {line[1:] for line in ignore if line.startswith("!")}
    assert "*" in ignore
    assert let_in == set(sources)


@pytest.mark.slow
def test_a_wheel_is_built_of_the_files_that_are_copied(tmp_path):
    for rest in given("COPY"):
        if "--from" in rest:
            continue
        *sources, target = rest.split()
        for source in sources:
            own = ROOT / source
            if own.is_dir():
                shutil.copytree(own, tmp_path / target[1:])
            else:
                (tmp_path / target[1:]).mkdir(parents=True, exist_ok=True)
                shutil.copy(own, tmp_path / target[1:] / own.name)
    try:
        metadata.distribution("wheel")
        how = ["--no-build-isolation"]
    except metadata.PackageNotFoundError:
        how = []
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", *how, "-w", tmp_path]
    subprocess.run([*command, tmp_path / "src"], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "out", "zip")
    for name in ("serve/page/index.html", "serve/page/page.js", "configs/quick_start/digits.yaml"):
        assert (tmp_path / "out/ppcls" / name).is_file(), name


@pytest.mark.parametrize("engine", ENGINES)
def test_extras_that_the_dockerfile_installs(engine):
    (target,) = (word for word in installed_by_dockerfile() if word.startswith("/src"))
    extra = target.replace("${ENGINE}", engine)
    assert extra == f"/src[serve-{engine}]"
    own = EXTRAS[f"serve-{engine}"]
    assert own[: len(EXTRAS["serve"])] == EXTRAS["serve"]
    (package,) = own[len(EXTRAS["serve"]) :]
    assert re.match(r"[\w-]+>=", package)
    assert package in EXTRAS["cpu" if engine == "paddle" else "deploy"]
    assert any(rest == f"ENGINE={ENGINES[0]}" for rest in given("ARG"))


def distributions(requirements):
    """What pip would install for them, as it is in this environment: name → distribution."""
    found = {}
    waiting = [(Requirement(text), frozenset()) for text in requirements]
    while waiting:
        one, extras = waiting.pop()
        extras = extras or {""}
        if one.marker and not any(one.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        own = metadata.distribution(one.name)
        assert one.specifier.contains(own.version, prereleases=True), f"{one}: {own.version}"
        key = (own.name.lower(), frozenset(one.extras))
        if key in found:
            continue
        found[key] = own
        waiting += [(Requirement(text), one.extras) for text in own.requires or ()]
    return {name: own for (name, _), own in found.items()}


def put_together(folder, requirements):
    """A Python with these packages and this one, as links into this environment; its program."""
    site = folder / "site"
    site.mkdir()
    for own in distributions(requirements).values():
        for file in own.files:
            top = file.parts[0]
            link = site / top
            if top not in ("..", "__pycache__") and not link.is_symlink():
                link.symlink_to(own.locate_file(top))
    for name in ("ppcls", "ppcls_main.py"):
        (site / name).symlink_to(ROOT / name)
    place = folder / "python"
    venv.create(place, with_pip=False, symlinks=True)
    program = place / "bin" / "python"
    command = [program, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    lib = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    Path(lib, "site.pth").write_text(str(site))
    return program


@pytest.fixture(scope="module")
def small_export(tmp_path_factory):
    """A folder for ONNX Runtime and OpenVINO, without Paddle's file, and a photo beside it."""
    place = tmp_path_factory.mktemp("deployment")
    export(small_network.trained(), place / "models/own_photos", [], Form(("onnx", "openvino")))
    write_photo(place / "photo.png", 1)
    return place


def predict(service, photo):
    kind = {"Content-Type": "image/png"}
    request = Request(f"{service.address}/predict", photo.read_bytes(), kind, method="POST")
    with urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def health_check(port):
    """The Dockerfile's, with the service's port in place of the image's; its exit code."""
    (line,) = given("HEALTHCHECK")
    command = json.loads(line.partition("CMD ")[2])
    assert command[0] == "python"
    assert command[2].count("8000") == 1
    words = [sys.executable, "-c", command[2].replace("8000", str(port))]
    return finished(words).returncode


@pytest.mark.parametrize(
    "engine", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)]
)
def test_what_the_image_holds_serves(small_export, tmp_path, engine):
    wanted = [*SETUP["install_requires"], *EXTRAS[f"serve-{engine}"]]
    program = put_together(tmp_path, wanted)
    code = "import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])"
    others = [name for name in ("onnxruntime", "openvino") if name != engine]
    command = [program, "-c", code, *LEFT_OUT, *others]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"
    (check,) = (rest for rest in given("RUN") if "python -c" in rest)
    imports = shlex.split(check.partition("&&")[0])[-1].replace("${ENGINE}", engine)
    subprocess.run([program, "-c", imports], check=True, cwd=tmp_path)
    words = (small_export / "models/own_photos",)
    python = (program, "-m", "ppcls")
    with RunningService(*words, folder=tmp_path, python=python, PYTHONPATH=None) as service:
        answer = predict(service, small_export / "photo.png")
        assert answer["model"] == "own_photos"
        assert answer["predictions"][0]["labels"][0] in ("ant", "bee")
        with urlopen(f"{service.address}/models", timeout=60) as found:
            assert json.loads(found.read())["models"][0]["engine"].startswith(engine)
        assert health_check(service.port) == 0
    assert health_check(service.port) != 0


READ_ONLY = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$PPCLS_HOME"
mount -o remount,bind,ro /
for place in /tmp /var/tmp /dev/shm; do
    if mountpoint -q "$place"; then mount -o remount,bind,ro "$place"; fi
done
if touch "$1/here" 2> /dev/null; then echo "the files can be written to"; exit 1; fi
shift
exec "$@"
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts, as Linux has them")
def test_a_root_file_system_that_is_read_only(small_export, tmp_path):
    home = tmp_path / "cache"
    home.mkdir()
    probe = ["unshare", "--map-root-user", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    if not shutil.which("unshare") or finished(probe).returncode:
        pytest.skip("this system does not let a process mount file systems of its own")
    inside = ["unshare", "--map-root-user", "--mount", "sh", "-c", READ_ONLY, "sh", tmp_path]
    words = (*inside, sys.executable, "-m", "ppcls")
    place = tmp_path / "models/own_photos"
    kept = shutil.ignore_patterns("engine_cache")
    shutil.copytree(small_export / "models/own_photos", place, ignore=kept)
    known = {"PPCLS_HOME": str(home)}
    with RunningService(place, folder=tmp_path, python=words, **known) as service:
        assert predict(service, small_export / "photo.png")["predictions"][0]["labels"]
        assert service.end() == 0
    assert not list(home.iterdir())  # it was written to the tmpfs
    assert not (place / "engine_cache").exists()


# --------------------------------------------------------------------------- Compose


def test_compose_file_is_as_its_schema_says():
    pytest.importorskip("check_jsonschema", reason="pip install 'ppcls[test]'")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = finished([*command, DEPLOY / "compose.yaml"])
    assert done.returncode == 0, done.stdout
    wrong = (DEPLOY / "compose.yaml").read_text().replace("read_only: true", "readonly: true")
    assert "readonly" in wrong
    done = finished([*command, "-"], input=wrong)
    assert done.returncode == 1, done.stdout


def test_compose_file_agrees_with_the_image():
    (service,) = COMPOSE["services"].values()
    build = service["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).samefile(DEPLOY / "Dockerfile")
    assert (DEPLOY / build["context"]).samefile(ROOT)
    arguments = {rest.split("=")[0] for rest in given("ARG")}
    assert set(build["args"]) <= arguments
    assert build["args"]["ENGINE"] in ENGINES
    options = options_of(service["command"])
    assert options.folders == ["/models/own_photos"]
    assert service["user"] == given("USER")[0]
    (published,) = service["ports"]
    assert published.split(":")[-1] == given("EXPOSE")[0]
    mounts = dict(volume.split(":")[1::-1] for volume in service["volumes"])
    assert mounts["/models"] == "../exported"
    assert mounts[IMAGE["PPCLS_HOME"]] in COMPOSE["volumes"]
    assert seconds(service["stop_grace_period"]) >= drain(options)
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]


def seconds(text):
    assert text.endswith("s")
    return int(text[:-1])


def drain(options):
    """Seconds from SIGTERM to the service's end at most: a body, its answer, the workers."""
    margin = getattr(server, "MARGIN", 5.0)
    return Limits.slow + options.timeout + margin + model.END + getattr(model, "REAP", 0) + margin


# --------------------------------------------------------------------------- Kubernetes


@pytest.mark.parametrize("version", ["1.31", "newest"])
def test_manifests_are_as_the_schemas_of_kubernetes_say(version):
    schemas = pytest.importorskip("kubernetes_validate", reason="pip install 'ppcls[test]'")
    version = schemas.latest_version() if version == "newest" else version
    for one in KUBERNETES:
        schemas.validate(one, version, strict=True)
    wrong = json.loads(json.dumps(of_kind("Deployment")))
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(schemas.ValidationError):
        schemas.validate(wrong, version, strict=True)


def test_deployment_agrees_with_the_image():
    assert "command" not in CONTAINER
    options = options_of(CONTAINER["args"])
    assert options.folders == ["/models/own_photos"]
    mounts = {mount["mountPath"]: mount for mount in CONTAINER["volumeMounts"]}
    assert mounts["/models"]["readOnly"]
    volumes = {volume["name"]: volume for volume in POD["spec"]["volumes"]}
    assert set(volumes) == {mount["name"] for mount in mounts.values()}
    assert "emptyDir" in volumes[mounts[IMAGE["PPCLS_HOME"]]["name"]]
    (port,) = CONTAINER["ports"]
    assert (port["containerPort"], port["name"]) == (options.port, "http")
    annotations = POD["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(options.port)
    user = POD["spec"]["securityContext"]
    assert f"{user['runAsUser']}:{user['runAsGroup']}" == given("USER")[0]
    assert user["runAsNonRoot"]
    own = CONTAINER["securityContext"]
    assert own["readOnlyRootFilesystem"]
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert CONTAINER["image"] == next(iter(COMPOSE["services"].values()))["image"]


def test_pods_have_time_to_drain():
    before = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    assert before[0] == "sleep"
    needed = int(before[1]) + drain(options_of(CONTAINER["args"]))
    assert POD["spec"]["terminationGracePeriodSeconds"] >= needed


def test_probes_ask_what_is_open_without_a_key():
    app = pytest.importorskip("ppcls.serve.app")
    for name, path in (("startup", "ready"), ("readiness", "ready"), ("liveness", "live")):
        probe = CONTAINER[f"{name}Probe"]
        assert probe["httpGet"] == {"path": f"/v2/health/{path}", "port": "http"}
        assert probe["httpGet"]["path"] in app.OPEN


def test_all_find_the_pods():
    labels = POD["metadata"]["labels"]
    deployment = of_kind("Deployment")
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    service = of_kind("Service")
    assert service["spec"]["selector"] == labels
    assert of_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    (spread,) = POD["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == labels
    assert MONITOR["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
    (endpoint,) = MONITOR["spec"]["endpoints"]
    (port,) = service["spec"]["ports"]
    assert endpoint["port"] == port["name"]
    assert endpoint["path"] == POD["metadata"]["annotations"]["prometheus.io/path"]
    assert port["targetPort"] == CONTAINER["ports"][0]["name"]
    target = of_kind("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert "replicas" not in deployment["spec"]  # every apply would undo what the autoscaler did


def test_autoscaler_asks_for_a_metric_that_there_is():
    (metric,) = of_kind("HorizontalPodAutoscaler")["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert name in {family.name for family in Metrics().registry.collect()}
    (rule,) = RULES
    assert rule["name"]["as"] == name
    assert re.match(rule["name"]["matches"], name)
    assert rule["seriesQuery"].startswith(f"{name}{{")


def test_variables_that_are_set_are_read():
    named = set(IMAGE) - {"PATH", "PYTHONUNBUFFERED"}
    named |= {one["name"] for one in CONTAINER.get("env", [])}
    named |= set(next(iter(COMPOSE["services"].values())).get("environment", {}))
    assert named == {"PPCLS_HOME"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PPCLS_HOME", IMAGE["PPCLS_HOME"])
        assert environment.home() == Path("/cache")


def test_prediction_is_all_that_the_package_imports():
    """No module of the service, the engines or the command line wants what the image lacks."""
    code = "import sys, ppcls.cli, ppcls.serve.server, ppcls.serve.worker, ppcls.prediction; "
    code += "print([name for name in sys.argv[1:] if name in sys.modules])"
    own = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *LEFT_OUT]
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
