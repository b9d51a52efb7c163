"""The Open Inference Protocol, version 2, over HTTP: what KServe, Triton and their clients speak.

A model has two inputs, of which a request gives one: `images`, BYTES [N], image files as they are;
or `tensor`, what the network takes, float32 [N, C, H, W] normalised or uint8 [N, H, W, C].
"""

import base64
import binascii
import json
import math
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from starlette.responses import Response

from ppcls.serve import documents
from ppcls.serve.bodies import Body, from_json, share, whole, wrong
from ppcls.serve.model import Model, Version
from ppcls.serve.problems import ProblemError
from ppcls.serve.service import Service, json_response, note, refuse_failed, unless_gone
from ppcls.utils import environment
from ppcls.utils.text import quoted, visible

HEADER_LENGTH = "Inference-Header-Content-Length"
DATATYPES = {"float32": "FP32", "uint8": "UINT8"}
OUTPUTS = ("classes", "scores", "labels", "probabilities")
TAGS: list[Any] = ["open inference protocol"]


@dataclass(frozen=True)
class Infer:
    """An inference request, read.

    Attributes:
        outputs: names → whether as binary data.
    """

    id: str | None
    images: list[bytes] | None
    tensor: np.ndarray | None
    outputs: dict[str, bool]
    topk: int | None
    threshold: float | None

    @property
    def count(self) -> int:
        return len(self.images if self.images is not None else self.tensor)  # type: ignore


def add(app: FastAPI, service: Service) -> None:
    """The protocol's routes."""

    @app.get("/v2", tags=TAGS, **documents.V2_SERVER)
    async def server() -> Response:
        found = {"name": "ppcls", "version": environment.own_version()}
        return json_response(found | {"extensions": ["binary_tensor_data", "model_repository"]})

    @app.get("/v2/health/live", tags=TAGS, **documents.V2_LIVE)
    async def live() -> Response:
        return json_response({"live": True})

    @app.get("/v2/health/ready", tags=TAGS, **documents.V2_READY)
    async def ready() -> Response:
        return json_response({"ready": service.is_ready}, 200 if service.is_ready else 503)

    @app.get("/v2/models/{model}", tags=TAGS, **documents.V2_MODEL)
    async def metadata(model: str) -> Response:
        return json_response(describe(*find(service, model)))

    @app.get("/v2/models/{model}/versions/{version}", tags=TAGS, **documents.V2_MODEL)
    async def version_metadata(model: str, version: str) -> Response:
        return json_response(describe(*find(service, model, version)))

    @app.get("/v2/models/{model}/ready", tags=TAGS, **documents.V2_MODEL_READY)
    async def model_ready(model: str) -> Response:
        return readiness(service.model(model))

    @app.get("/v2/models/{model}/versions/{version}/ready", tags=TAGS, **documents.V2_MODEL_READY)
    async def version_ready(model: str, version: str) -> Response:
        return readiness(find(service, model, version)[0])

    @app.post("/v2/models/{model}/infer", tags=TAGS, **documents.V2_INFER)
    async def infer(request: Request, model: str) -> Response:
        return await run(service, request, *find(service, model))

    @app.post("/v2/models/{model}/versions/{version}/infer", tags=TAGS, **documents.V2_INFER)
    async def version_infer(request: Request, model: str, version: str) -> Response:
        return await run(service, request, *find(service, model, version))

    @app.post("/v2/repository/index", tags=TAGS, **documents.V2_INDEX)
    async def index() -> Response:
        found = []
        for model in service.models.values():
            state = "READY" if model.is_ready else "UNAVAILABLE"
            number = model.current.number if model.current else ""
            found.append(
                {"name": model.name, "version": number, "state": state, "reason": model.problem}
            )
        return json_response(found)

    @app.post("/v2/repository/models/{model}/load", tags=TAGS, **documents.V2_LOAD)
    async def load(request: Request, model: str) -> Response:
        found = service.model(model)
        body = Body(service.budget)
        try:
            data = await body.read(request, service.settings.limits)
            version = await service.load(found, folder_in(data))
        finally:
            body.close()
        return json_response(describe(found, version))


def readiness(model: Model) -> Response:
    is_ready = model.is_ready
    return json_response({"name": model.name, "ready": is_ready}, 200 if is_ready else 503)


def find(service: Service, name: str, version: str | None = None) -> tuple[Model, Version]:
    """A model and the version that answers for it.

    Raises:
        ProblemError: it is not here, not loaded, or another version answers.
    """
    model = service.model(name)
    current = model.current
    if current is None:
        text = model.problem or f"model {model.name} is being loaded; ask again"
        raise ProblemError(503, "starting", text, headers={"Retry-After": "2"})
    if version not in (None, current.number):
        text = f"version {visible(version)} of {model.name} is not here; {current.number} is"
        raise ProblemError(404, "model", text)
    return model, current


def folder_in(data: bytes) -> Path | None:
    """The folder that a load names, `{"parameters": {"folder": "..."}}`; None: the model's own."""
    if not data.strip():
        return None
    found = from_json(data)
    parameters = found.get("parameters", {}) if isinstance(found, dict) else None
    if not isinstance(parameters, dict) or not set(parameters) <= {"folder"}:
        raise wrong('the body should be {"parameters": {"folder": "exported/..."}}, or empty', 400)
    folder = parameters.get("folder")
    if folder is None:
        return None
    if not isinstance(folder, str) or not folder or "\0" in folder:
        raise wrong(f"folder ({quoted(folder)}) should be a folder's path", 400)
    return Path(folder)


def describe(model: Model, version: Version) -> dict[str, Any]:
    """A model's metadata."""
    about = version.about
    free = [-1 if side is None else side for side in about["shape"]]
    tensor = {"name": "tensor", "datatype": DATATYPES[about["dtype"]], "shape": free}
    return {
        "name": model.name,
        "versions": [version.number],
        "platform": f"ppcls_{about['framework']}",
        "inputs": [{"name": "images", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": "classes", "datatype": "INT64", "shape": [-1, -1]},
            {"name": "scores", "datatype": "FP32", "shape": [-1, -1]},
            {"name": "labels", "datatype": "BYTES", "shape": [-1, -1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, about["outputs"]]},
        ],
        "parameters": {"digest": version.digest, "in_place_of_images": tensor},
    }


# --------------------------------------------------------------------------- requests


async def run(service: Service, request: Request, model: Model, version: Version) -> Response:
    """Answer an inference request."""
    start = time.monotonic()
    body = Body(service.budget)
    try:
        data = await body.read(request, service.settings.limits)
        asked = read(request, data, version)
        if asked.count > service.settings.limits.images:
            text = f"{asked.count} images came, of at most {service.settings.limits.images}"
            raise ProblemError(413, "large", f"{text}; send them in several requests")
        header: dict[str, Any] = {"topk": asked.topk, "threshold": asked.threshold}
        header["whole"] = "probabilities" in asked.outputs
        parts: list[Any]
        if asked.images is not None:
            parts = list(asked.images)
            header |= {"kind": "images", "sizes": list(map(len, parts))}
        else:
            assert asked.tensor is not None
            parts = [asked.tensor.tobytes()]
            header |= {"kind": "tensor", "shape": asked.tensor.shape}
            header["dtype"] = asked.tensor.dtype.str
        work = model.submit(header, parts, asked.count)
        version, found, rows = await unless_gone(request, work)
    finally:
        body.close()
    service.count(model.name, found)
    images = found["images"]
    refuse_failed(images)
    broken = next((image["error"] for image in images if "error" in image), None)
    if broken:
        raise ProblemError(422, "image", broken)
    note(request, model.name, version, found)
    response: dict[str, Any] = {"model_name": model.name, "model_version": version.number}
    if asked.id is not None:
        response["id"] = asked.id
    times = {"queue": found["waited"], "decode": found["decode"], "engine": found["engine"]}
    times["total"] = time.monotonic() - start
    response["parameters"] = {"digest": version.digest} | {
        f"{name}_ms": round(1000 * value, 3) for name, value in times.items()
    }
    return written(response, tensors_of(images, rows), asked.outputs)


def read(request: Request, data: bytes, version: Version) -> Infer:
    """An inference request, of JSON alone or of JSON and binary data behind it."""
    length = request.scope["ppcls.headers"].get(HEADER_LENGTH.lower().encode())
    rest = b""
    if length is not None:
        if not length.isdigit() or int(length[:18]) > len(data):
            given = quoted(length.decode("latin-1"))
            raise wrong(f"{HEADER_LENGTH} ({given}) should be the length of the JSON", 400)
        data, rest = data[: int(length[:18])], data[int(length[:18]) :]
    found = from_json(data)
    if not isinstance(found, dict):
        raise wrong('the JSON should be {"inputs": [...]}', 400)
    inputs = found.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise wrong("inputs should be a list with one of images and tensor", 400)
    own = parameters_of(found, "the request")
    own_id = found.get("id")
    if own_id is not None and not isinstance(own_id, str):
        raise wrong("id should be a text", 400)
    images, tensor = read_input(inputs[0], rest, version)
    return Infer(
        own_id,
        images,
        tensor,
        read_outputs(found, own),
        None if own.get("topk") is None else whole(own["topk"]),
        None if own.get("threshold") is None else share(own["threshold"]),
    )


def parameters_of(found: dict[str, Any], what: str) -> dict[str, Any]:
    own = found.get("parameters")
    if own is not None and not isinstance(own, dict):
        raise wrong(f"parameters of {what} should be an object", 400)
    return own or {}


def read_outputs(found: dict[str, Any], own: dict[str, Any]) -> dict[str, bool]:
    """Which outputs are asked for, all where none is named, and which of them as binary data."""
    binary = own.get("binary_data_output", False) is True
    listed = found.get("outputs")
    if listed is None or listed == []:
        return dict.fromkeys(OUTPUTS, binary)
    if not isinstance(listed, list):
        raise wrong("outputs should be a list", 400)
    asked: dict[str, bool] = {}
    for one in listed:
        name = one.get("name") if isinstance(one, dict) else None
        if not isinstance(name, str) or name not in OUTPUTS:
            raise wrong(f"output {quoted(name)} is unknown; known are {', '.join(OUTPUTS)}", 400)
        asked[name] = parameters_of(one, name).get("binary_data", binary) is True
    return asked


def read_input(
    given: dict[str, Any], rest: bytes, version: Version
) -> tuple[list[bytes] | None, np.ndarray | None]:
    """Images, or a tensor as the network takes it."""
    name, datatype, shape = (given.get(key) for key in ("name", "datatype", "shape"))
    if not is_shape(shape):
        raise wrong("shape should be a list of whole numbers from 1", 400)
    assert isinstance(shape, list)
    size = parameters_of(given, "the input").get("binary_data_size")
    if size is not None and (type(size) is not int or size != len(rest)):
        text = f"binary_data_size ({quoted(size)}) should be what follows the JSON, {len(rest)}"
        raise wrong(text, 400)
    if size is None and rest:
        raise wrong(f"{len(rest)} bytes follow the JSON, and no input has binary_data_size", 400)
    values = given.get("data")
    if size is None and values is None:
        raise wrong("the input has no data", 400)
    if name == "images" and datatype == "BYTES":
        if len(shape) > 2 or shape[1:] not in ([], [1]):
            raise wrong(f"shape of images should be [N], not {shape}", 400)
        found = split(rest) if size is not None else from_texts(values)
        if len(found) != shape[0]:
            raise wrong(f"{len(found)} images came, and shape says {shape[0]}", 400)
        return found, None
    wanted = version.about["dtype"]
    if name != "tensor" or datatype != DATATYPES[wanted]:
        text = f"{quoted(name)} of {quoted(datatype)} is no input of {version.name}; it takes "
        raise wrong(f"{text}images of BYTES, or tensor of {DATATYPES[wanted]}", 400)
    sides = version.about["shape"]
    fits = len(shape) == len(sides) and all(
        want in (None, have) for want, have in zip(sides[1:], shape[1:], strict=True)
    )
    if not fits:
        text = ", ".join("any" if side is None else str(side) for side in sides[1:])
        raise wrong(f"the tensor should be [N, {text}], not {shape}", 400)
    return None, read_tensor(values, rest if size is not None else None, shape, wanted)


def is_shape(value: Any) -> bool:
    sides = value if isinstance(value, list) else []
    return bool(sides) and all(type(side) is int and 0 < side < 1 << 31 for side in sides)


def read_tensor(values: Any, data: bytes | None, shape: list[int], dtype: str) -> np.ndarray:
    """An array of numbers, from bytes or from JSON."""
    count = math.prod(shape)
    kind = np.dtype(dtype).newbyteorder("<")
    if data is not None:
        if len(data) != count * kind.itemsize:
            text = f"{len(data)} bytes came, and a tensor {shape} has {count * kind.itemsize}"
            raise wrong(text, 400)
        return np.frombuffer(data, kind).reshape(shape)
    try:
        found = np.asarray(values)
        if found.size != count or found.dtype.kind not in "iuf":
            raise ValueError(f"{found.size} numbers came")
        if dtype == "uint8" and (found.dtype.kind == "f" or found.min() < 0 or found.max() > 255):
            raise ValueError("pixels are whole numbers from 0 to 255")
        with np.errstate(over="ignore"):
            found = found.astype(kind).reshape(shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise wrong(f"data should be {count} numbers ({quoted(str(error))})", 400) from None
    if not np.isfinite(found).all():
        raise wrong("data has numbers that float32 has not", 400)
    return found


def split(data: bytes) -> list[bytes]:
    """Texts of BYTES as binary data: each behind its length, uint32 little-endian."""
    found = []
    place = 0
    while place < len(data):
        if place + 4 > len(data):
            raise wrong("the binary data end within a length", 400)
        (size,) = struct.unpack_from("<I", data, place)
        place += 4
        if place + size > len(data):
            raise wrong("the binary data end within an image", 400)
        found.append(data[place : place + size])
        place += size
    return found


def from_texts(values: Any) -> list[bytes]:
    """Images in JSON: base64, in a list which may be nested."""
    flat = values if isinstance(values, list) else [values]
    if flat and all(isinstance(one, list) and len(one) == 1 for one in flat):
        flat = [one[0] for one in flat]
    try:
        return [base64.b64decode(one, validate=True) for one in flat]
    except (binascii.Error, ValueError, TypeError):
        raise wrong("data of images should be texts of base64; or send binary data", 400) from None


# --------------------------------------------------------------------------- answers


def tensors_of(images: list[dict[str, Any]], rows: list[bytes]) -> dict[str, np.ndarray]:
    """Outputs as arrays; where images have fewer classes than others, -1, 0 and "" fill up."""
    most = max(len(image["classes"]) for image in images)
    classes = np.full((len(images), most), -1, "<i8")
    scores = np.zeros((len(images), most), "<f4")
    labels = np.full((len(images), most), "", object)
    for place, image in enumerate(images):
        count = len(image["classes"])
        classes[place, :count] = image["classes"]
        scores[place, :count] = image["scores"]
        labels[place, :count] = image["labels"]
    found = {"classes": classes, "scores": scores, "labels": labels}
    if rows:
        found["probabilities"] = np.stack([np.frombuffer(row, "<f4") for row in rows])
    return found


def written(
    response: dict[str, Any], tensors: dict[str, np.ndarray], asked: dict[str, bool]
) -> Response:
    """An answer as JSON, with binary data behind it where that was asked for."""
    kinds = {"classes": "INT64", "labels": "BYTES"}
    parts: list[bytes] = []
    outputs = []
    for name, binary in asked.items():
        array = tensors[name]
        output: dict[str, Any] = {
            "name": name,
            "datatype": kinds.get(name, "FP32"),
            "shape": list(array.shape),
        }
        if binary:
            data = packed(array)
            parts.append(data)
            output["parameters"] = {"binary_data_size": len(data)}
        else:
            output["data"] = array.reshape(-1).tolist()
        outputs.append(output)
    head = json.dumps(response | {"outputs": outputs}, separators=(",", ":")).encode()
    if not parts:
        return Response(head, media_type="application/json")
    headers = {HEADER_LENGTH: str(len(head))}
    return Response(b"".join([head, *parts]), 200, headers, "application/octet-stream")


def packed(array: np.ndarray) -> bytes:
    """An output as binary data; texts each behind its length."""
    if array.dtype != object:
        return array.tobytes()
    texts = [text.encode("utf-8", "replace") for text in array.reshape(-1)]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)
