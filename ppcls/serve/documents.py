"""What OpenAPI says of the routes, and the page of problems."""

import html
from typing import Any, Literal

from pydantic import BaseModel

from ppcls.serve.bodies import MOST_TOPK
from ppcls.serve.problems import MEDIA_TYPE, TITLES

ABOUT = """\
Names what photos show. `POST /predict` takes a file, its bytes, or JSON; everything under `/v2` is
the Open Inference Protocol, which clients of KServe and Triton speak. What goes wrong comes as a
problem document (RFC 9457).
"""


class Problem(BaseModel):
    """What went wrong: `detail` says where and what to do."""

    type: str
    title: str
    status: int
    detail: str
    error: str


class ImageAnswer(BaseModel):
    """Of one image: its classes, the likeliest first, or why it has none.

    Of a calibrated model also `set`, the classes of which one is right as often as it was asked
    for, and `state`: sure (the set is one class), unsure, or unknown (unlike all classes); where it
    was calibrated with costs `decision`, the class that costs least.

    Where asked to explain, a map for each of the first ten classes, of rows from the top, with the
    class's logit place by place, and what of the image they lie over: top, left, bottom and right,
    in shares of its height and width.
    """

    name: str | None = None
    classes: list[int] | None = None
    labels: list[str] | None = None
    scores: list[float] | None = None
    set: list[str] | None = None
    state: Literal["sure", "unsure", "unknown"] | None = None
    decision: str | None = None
    maps: list[list[list[float]]] | None = None
    seen: list[float] | None = None
    error: str | None = None


class Milliseconds(BaseModel):
    """Waiting, decoding, engine, and from the request's head to here."""

    queue: float
    decode: float
    engine: float
    total: float


class Predicted(BaseModel):
    """An answer to `POST /predict`."""

    model: str
    version: str
    digest: str
    request_id: str
    predictions: list[ImageAnswer]
    milliseconds: Milliseconds


def problems(*statuses: int) -> dict[int | str, Any]:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": "Problem", "content": content} for status in statuses}


def with_problem(more: dict[int | str, Any], *statuses: int) -> dict[int | str, Any]:
    """Answers of a route, and the problems that may come in their place."""
    first = {400: {"model": Problem, "description": "Problem"}}
    known = {400: first[400] | problems(400)[400]} | problems(401, *statuses)
    return more | known  # type: ignore


# What the service asks for where it was started with --keys.
KEYS: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
# A PNG of 2 x 2 pixels, so that /docs can be tried out as it is.
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACAQMAAABIeJ9nAAAABlBMVEUAAAD/gAAgfBVpAAAADElEQVR42mNwYHIA"
    "AAEIAIMme1hiAAAAAElFTkSuQmCC"
)
BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
BASE64 = {"type": "string", "format": "byte", "minLength": 4, "description": "or a data: address"}
ADDRESS = {"type": "string", "format": "uri", "description": "only where started with --urls"}
TOPK = {
    "type": "integer", "minimum": 1, "maximum": MOST_TOPK - 1, "description": "classes an image"
}  # fmt: skip
THRESHOLD = {"type": "number", "minimum": 0, "maximum": 1, "description": "least score"}
EXPLAIN = {"type": "boolean", "description": "maps, too, of models exported with --explain"}
MODEL = {"type": "string", "minLength": 1, "description": "needed where several models are served"}
OPTIONS: dict[str, dict[str, Any]] = {
    "model": MODEL, "topk": TOPK, "threshold": THRESHOLD, "explain": EXPLAIN,
}  # fmt: skip
QUERY = [
    {"name": name, "in": "query", "required": False, "schema": schema}
    for name, schema in OPTIONS.items()
]


def listed(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema, "minItems": 1}


def or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return schema | {"type": [schema["type"], "null"]}


SOURCES: dict[str, dict[str, Any]] = {
    "image": BASE64,
    "images": listed(BASE64),
    "url": ADDRESS,
    "urls": listed(ADDRESS),
}
FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "image": listed(BINARY["schema"]),
        "images": listed(BINARY["schema"]),
        "url": listed(ADDRESS),
        "urls": listed(ADDRESS),
        **OPTIONS,
    },
    "anyOf": [{"required": [name]} for name in SOURCES],
    "additionalProperties": False,
}
JSON: dict[str, Any] = {
    "type": "object",
    "properties": {name: or_null(one) for name, one in (SOURCES | OPTIONS).items()},
    "anyOf": [{"required": [name], "properties": {name: one}} for name, one in SOURCES.items()],
    "additionalProperties": False,
}
PREDICT: dict[str, Any] = {
    "summary": "Name what images show",
    "responses": with_problem(
        {200: {"model": Predicted, "description": "Classes of each image"}},
        403, 404, 408, 413, 415, 422, 500, 503, 504,
    ),
    "openapi_extra": {
        "parameters": QUERY,
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": FORM},
                "image/jpeg": BINARY,
                "image/png": BINARY,
                "application/octet-stream": BINARY,
                "application/json": {"schema": JSON, "example": {"images": [PNG], "topk": 1}},
            },
        },
    },
}  # fmt: skip


class RequestLimits(BaseModel):
    """Of a request: bytes of its body, pixels of an image, images."""

    body: int
    pixels: int
    images: int


class Models(BaseModel):
    """The models that are served, and what a request may have."""

    models: list[dict[str, Any]]
    limits: RequestLimits


class Server(BaseModel):
    """The protocol's metadata of a server."""

    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    """The process answers."""

    live: bool


class Ready(BaseModel):
    """Whether all models answer."""

    ready: bool


class ModelReady(BaseModel):
    """Whether a model answers."""

    name: str
    ready: bool


class TensorMetadata(BaseModel):
    """Of an input or an output."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """The protocol's metadata of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: dict[str, Any]


class Tensor(BaseModel):
    """An output; its `data` follow the JSON where they were asked for as binary."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class Inferred(BaseModel):
    """The protocol's answer."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, Any]
    outputs: list[Tensor]


class IndexEntry(BaseModel):
    """A model of the repository."""

    name: str
    version: str
    state: str
    reason: str


def ok(model: Any, text: str) -> dict[int | str, Any]:
    return {200: {"model": model, "description": text}}


PARAMETERS: dict[str, Any] = {"type": ["object", "null"]}


def input_of(name: str, datatypes: list[str], sides: int, values: dict[str, Any]) -> dict[str, Any]:
    """An input whose data are in the JSON, or behind it, with their size in the parameters."""
    side = {"type": "integer", "minimum": 1, "maximum": (1 << 31) - 1}
    size = {"type": "object", "required": ["binary_data_size"]}
    behind = {"required": ["parameters"], "properties": {"parameters": size}}
    return {
        "type": "object",
        "properties": {
            "name": {"type": "string", "enum": [name]},
            "datatype": {"type": "string", "enum": datatypes},
            "shape": {"type": "array", "items": side, "minItems": 1, "maxItems": sides},
            "parameters": PARAMETERS,
            "data": values,
        },
        "required": ["name", "datatype", "shape"],
        "anyOf": [{"required": ["data"]}, behind],
    }


OUTPUT = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "enum": ["classes", "scores", "labels", "probabilities"]},
        "parameters": PARAMETERS,
    },
    "required": ["name"],
}
INFER_BODY = {
    "type": "object",
    "properties": {
        "id": {"type": ["string", "null"]},
        "parameters": PARAMETERS
        | {"properties": {"topk": or_null(TOPK), "threshold": or_null(THRESHOLD)}},
        "inputs": {
            "type": "array",
            "items": {
                "oneOf": [
                    input_of("images", ["BYTES"], 2, listed(BASE64)),
                    input_of("tensor", ["FP32", "UINT8"], 4, {"type": "array", "minItems": 1}),
                ]
            },
            "minItems": 1,
            "maxItems": 1,
        },
        "outputs": {"type": ["array", "null"], "items": OUTPUT},
    },
    "required": ["inputs"],
}
INFER_EXAMPLE = {
    "inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "data": [PNG]}],
    "outputs": [{"name": "labels"}, {"name": "scores"}],
}
LOAD_BODY = {
    "type": "object",
    "properties": {
        "parameters": {
            "type": "object",
            "properties": {"folder": {"type": ["string", "null"], "minLength": 1}},
            "additionalProperties": False,
        }
    },
}

MODELS: dict[str, Any] = {
    "summary": "The models, their classes and how they are run",
    "responses": with_problem(ok(Models, "The models")),
}
METRICS: dict[str, Any] = {
    "summary": "Counters and times, for Prometheus",
    "responses": with_problem(
        {200: {"description": "Prometheus's text form", "content": {"text/plain": {}}}}
    ),
}
V2_SERVER: dict[str, Any] = {
    "summary": "The server", "responses": with_problem(ok(Server, "The server"))
}  # fmt: skip
V2_LIVE: dict[str, Any] = {
    "summary": "Whether the service lives", "responses": ok(Live, "It lives")
}  # fmt: skip
NOT_READY = {503: {"model": Ready, "description": "Not yet, or no more"}}
V2_READY: dict[str, Any] = {
    "summary": "Whether all models answer", "responses": ok(Ready, "They do") | NOT_READY
}  # fmt: skip
V2_MODEL: dict[str, Any] = {
    "summary": "A model's inputs and outputs",
    "responses": with_problem(ok(ModelMetadata, "The model"), 404, 503),
}
V2_MODEL_READY: dict[str, Any] = {
    "summary": "Whether a model answers",
    "responses": with_problem(
        ok(ModelReady, "It does") | {503: {"model": ModelReady, "description": "Not yet"}}, 404
    ),
}
V2_INFER: dict[str, Any] = {
    "summary": "Predict, with images or a tensor, as JSON or with binary data behind it",
    "responses": with_problem(
        {200: ok(Inferred, "Outputs")[200] | {"content": {"application/octet-stream": BINARY}}},
        404,
        408,
        413,
        415,
        422,
        500,
        503,
        504,
    ),
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": INFER_BODY, "example": INFER_EXAMPLE},
                # JSON, of the length that Inference-Header-Content-Length says, and data behind it.
                "application/octet-stream": BINARY,
            },
        }
    },
}
V2_INDEX: dict[str, Any] = {
    "summary": "The models of this service",
    "responses": with_problem(ok(list[IndexEntry], "The models")),
}
V2_LOAD: dict[str, Any] = {
    "summary": "Load a new version; the one before answers until it is ready",
    "responses": with_problem(
        ok(ModelMetadata, "The new version"), 403, 404, 408, 409, 413, 415, 422
    ),
    "openapi_extra": {
        "requestBody": {
            "required": False,
            "content": {"application/json": {"schema": LOAD_BODY}},
        }
    },
}

MEANINGS = {
    "image": "The file is no image, is damaged, or has more pixels than this service takes.",
    "request": "The body or a parameter is not as /docs describes it.",
    "model": "No model of that name, or that version, is served here.",
    "key": "The service was started with --keys; send one of its keys.",
    "forbidden": "This key, or this service, does not allow it.",
    "busy": "The queue is full; ask again after Retry-After seconds.",
    "late": "The answer took longer than a request may; ask again, or send fewer images.",
    "slow": "The body did not come in time.",
    "large": "The body, or the number of images, is above a limit.",
    "engine": "The model failed; its log says more. It is not the request's fault, but for an image that ends the process that reads it.",  # noqa: E501
    "starting": "The model is still being loaded; ask again after Retry-After seconds.",
    "reload": "The new version cannot be opened, or answers otherwise than at its export; the one before goes on.",  # noqa: E501
}


def problem_page() -> str:
    rows = "".join(
        f"<h2 id='{kind}'>{html.escape(TITLES[kind])} <code>{kind}</code></h2>"
        f"<p>{html.escape(text)}</p>"
        for kind, text in MEANINGS.items()
    )
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        "<meta name='color-scheme' content='light dark'><title>Problems · ppcls</title>"
        "<link rel='icon' href='/page/icon.svg' type='image/svg+xml'>"
        "<link rel='stylesheet' href='/page/page.css'></head><body><main class='problems'>"
        "<h1>Problems</h1><p>What an answer's <code>type</code> points to. "
        f"<a href='/docs'>All of the API</a></p>{rows}</main></body></html>"
    )
