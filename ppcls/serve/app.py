"""The service's HTTP: `POST /predict`, the page, metrics and documentation; `v2` has the rest."""

import asyncio
import json
import secrets
import time
from collections.abc import Coroutine
from importlib.resources import files
from typing import Any

import fastapi_offline
from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import ppcls
from ppcls.serve import documents, v2
from ppcls.serve.addresses import fetch
from ppcls.serve.bodies import Asked, Body, Budget, parse
from ppcls.serve.keys import Keys
from ppcls.serve.logs import AccessLog, Samples
from ppcls.serve.metrics import Metrics
from ppcls.serve.model import Model, Version, model_name
from ppcls.serve.problems import ProblemError
from ppcls.serve.settings import ServeSettings
from ppcls.utils import guard
from ppcls.utils.errors import UserError
from ppcls.utils.log import say
from ppcls.utils.text import did_you_mean, visible

OPEN = ("/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready")  # without a key
OPEN_BELOW = ("/page/", "/docs/")
ADMIN = "/v2/repository/models/"
LONGEST_ID = 100
JSON = "application/json"
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


class GoneError(Exception):
    """The client has hung up; nobody reads an answer."""


class Service:
    """The models, and what all requests share.

    Raises:
        UserError: two models have one name, or a file of the settings is wrong.
    """

    def __init__(self, settings: ServeSettings):
        self.settings = settings
        self.metrics = Metrics()
        self.keys = Keys(settings.keys) if settings.keys else None
        self.access_log = AccessLog(settings.access_log) if settings.access_log else None
        self.samples: Samples | None = None
        if settings.record:
            self.samples = Samples(settings.record, settings.share, settings.record_most)
        self.budget = Budget(settings.limits.bytes)
        self.draining = False
        self.models: dict[str, Model] = {}
        for given, folder in settings.models:
            name = model_name(given, folder)
            if name in self.models:
                other = self.models[name].folder
                raise UserError(f"{other} and {folder} are both called {name}; give NAME=FOLDER")
            self.models[name] = Model(name, folder, settings, self.metrics)

    @property
    def is_ready(self) -> bool:
        return not self.draining and all(model.is_ready for model in self.models.values())

    def model(self, name: str | None) -> Model:
        """By its name; without one, the only model."""
        if name is None:
            if len(self.models) == 1:
                return next(iter(self.models.values()))
            known = ", ".join(self.models)
            raise ProblemError(422, "model", f"several models are here: give model, of {known}")
        if name not in self.models:
            hint = did_you_mean(name, self.models)
            known = ", ".join(self.models)
            text = f"{visible(name)} is no model here{hint}; known are {known}"
            raise ProblemError(404, "model", text)
        return self.models[name]

    async def load(self, model: Model, folder: Any = None) -> Version:
        """A new version of a model.

        Raises:
            ProblemError: it is not taken; the one before goes on.
        """
        try:
            version = await model.load(folder)
        except UserError as error:
            text = "; ".join(error.lines)
            say(f"note: {model.name}: not loaded: {text}")
            raise ProblemError(409, "reload", text) from None
        about = version.about
        say(
            f"{model.name}: version {version.number} ({version.digest}) by {about['engine']}, "
            f"batches of up to {about['batch']}, {about['rate']:.0f} images/s"
        )
        return version

    async def images_of(self, asked: Asked) -> list[bytes]:
        """The images' bytes, those given by address fetched."""
        if any(isinstance(image, str) for image in asked.images) and not self.settings.urls:
            text = "images by address are not taken here; send their bytes, or start with --urls"
            raise ProblemError(403, "forbidden", text)
        limits = self.settings.limits
        return [
            await fetch(image, limits) if isinstance(image, str) else image
            for image in asked.images
        ]

    def count(self, name: str, answer: dict[str, Any]) -> None:
        """A worker's answer, in the metrics."""
        metrics = self.metrics
        metrics.queue_seconds.labels(name).observe(answer["waited"])
        metrics.decode_seconds.labels(name).observe(answer["decode"])
        if answer["batch"]:
            metrics.engine_seconds.labels(name).observe(answer["engine"])
            metrics.batch_size.labels(name).observe(answer["batch"])
        outcomes = {"image": "broken", "late": "late", "engine": "failed"}
        for image in answer["images"]:
            outcome = outcomes[image["kind"]] if "error" in image else "predicted"
            metrics.images.labels(name, outcome).inc()

    async def predict(self, request: Request) -> Response:
        """`POST /predict`."""
        start = time.monotonic()
        body = Body(self.budget)
        try:
            data = await body.read(request, self.settings.limits)
            asked = parse(request, data, self.settings.limits)
            model = self.model(asked.model)
            images = await self.images_of(asked)
            header = {
                "kind": "images",
                "sizes": [len(image) for image in images],
                "topk": asked.topk,
                "threshold": asked.threshold,
            }
            work = model.submit(header, images, len(images))  # type: ignore
            version, found, _ = await unless_gone(request, work)
        finally:
            body.close()
        self.count(model.name, found)
        refuse_failed(found["images"])
        answer = {
            "model": model.name,
            "version": version.number,
            "digest": version.digest,
            "request_id": request.scope["ppcls.id"],
            "predictions": [
                ({"name": name} if name else {}) | without_kind(image)
                for name, image in zip(asked.names, found["images"], strict=True)
            ],
            "milliseconds": milliseconds(found, time.monotonic() - start),
        }
        note(request, model.name, version, found)
        if self.samples:
            self.samples.take(images, answer)
        return json_response(answer)


def milliseconds(found: dict[str, Any], seconds: float) -> dict[str, float]:
    parts = {
        "queue": found["waited"],
        "decode": found["decode"],
        "engine": found["engine"],
        "total": seconds,
    }
    return {name: round(1000 * value, 3) for name, value in parts.items()}


def note(request: Request, name: str, version: Version, found: dict[str, Any]) -> None:
    """What the access log is to have of a request."""
    request.scope["ppcls.note"] = {
        "model": name,
        "version": version.number,
        "images": len(found["images"]),
        "batch": found["batch"],
        "queue_ms": round(1000 * found["waited"], 2),
        "engine_ms": round(1000 * found["engine"], 2),
    }


def without_kind(image: dict[str, Any]) -> dict[str, Any]:
    return {"error": image["error"]} if "error" in image else image


def refuse_failed(images: list[dict[str, Any]]) -> None:
    """ProblemError where the engine failed, the answer is late, or no image could be read."""
    for kind, status in (("engine", 500), ("late", 504)):
        for image in images:
            if image.get("kind") == kind:
                raise ProblemError(status, kind, image["error"])
    errors = [image.get("error") for image in images]
    if all(errors):
        more = {"errors": errors} if len(errors) > 1 else {}
        raise ProblemError(422, "image", errors[0], **more)


def json_response(value: Any, status: int = 200) -> Response:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Response(text.encode("utf-8", "replace"), status, media_type=JSON)


async def unless_gone(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """What `work` returns, which is cancelled where the client hangs up before."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(gone())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            return tasks[0].result()
        raise GoneError
    finally:
        for task in tasks:
            task.cancel()


# --------------------------------------------------------------------------- the application


def make_app(service: Service) -> ASGIApp:
    """The ASGI application; `service`'s models are loaded elsewhere."""
    app = FastAPI(
        title="ppcls serve",
        version=ppcls.__version__,
        description=documents.ABOUT,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )

    @app.post("/predict", tags=["predict"], **documents.PREDICT)
    async def predict(request: Request) -> Response:
        return await service.predict(request)

    @app.get("/models", tags=["models"], **documents.MODELS)
    async def models() -> Response:
        return json_response({"models": [describe(model) for model in service.models.values()]})

    @app.get("/metrics", tags=["service"], **documents.METRICS)
    async def metrics() -> Response:
        for model in service.models.values():
            service.metrics.ready.labels(model.name).set(model.is_ready)
            service.metrics.memory.labels(model.name).set(model.memory)
            model.tell()
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    v2.add(app, service)
    add_pages(app)
    app.add_exception_handler(ProblemError, lambda _, error: error.response())  # type: ignore
    app.add_exception_handler(HTTPException, http_problem)  # type: ignore
    inner: ASGIApp = app
    if service.settings.cors:
        inner = CORSMiddleware(
            inner, service.settings.cors, allow_methods=["GET", "POST"], allow_headers=["*"]
        )
    return Front(inner, service)


def http_problem(request: Request, error: HTTPException) -> Response:
    text = f"{request.method} {visible(request.url.path)}: {error.detail}; /docs lists what is here"
    return ProblemError(
        error.status_code, "http", text, headers=dict(error.headers or {})
    ).response()


def describe(model: Model) -> dict[str, Any]:
    """A model, for people and for the page."""
    version = model.current
    found: dict[str, Any] = {"name": model.name, "ready": model.is_ready}
    if version:
        about = version.about
        found |= {"version": version.number, "digest": version.digest}
        kept = ("classes", "task", "topk", "engine", "batch", "delay", "rate", "check")
        found |= {"network": about["model"], **{key: about[key] for key in kept}}
    elif model.problem:
        found["problem"] = model.problem
    return found


def add_pages(app: FastAPI) -> None:
    """The page at /, and documentation at /docs; both need nothing from outside."""
    folder = files("ppcls.serve") / "page"
    page = (folder / "index.html").read_text(encoding="utf-8")

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        found = get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="ppcls serve",
            swagger_js_url="/docs/assets/swagger-ui-bundle.js",
            swagger_css_url="/docs/assets/swagger-ui.css",
            swagger_favicon_url="/docs/assets/favicon.png",
        )
        policy = POLICY + "; script-src 'self' 'unsafe-inline'"
        found.headers["Content-Security-Policy"] = policy
        return found

    @app.get("/docs/problems", include_in_schema=False)
    async def problems() -> Response:
        return HTMLResponse(documents.problem_page(), headers={"Content-Security-Policy": POLICY})

    assets = files("fastapi_offline") / "static"
    assert fastapi_offline
    app.mount("/docs/assets", StaticFiles(directory=str(assets)))
    app.mount("/page", StaticFiles(directory=str(folder)))


class Front:
    """What stands before every request: its number, keys, the access log, metrics, errors."""

    def __init__(self, app: ASGIApp, service: Service):
        self.app = app
        self.service = service
        self.counters: dict[tuple[str, str, int], Any] = {}
        self.timers: dict[str, Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        start = time.monotonic()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        own = given if given.isprintable() and 0 < len(given) <= LONGEST_ID else ""
        scope["ppcls.id"] = own or secrets.token_hex(8)
        status = 0
        size = 0

        async def answer(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                known = {name for name, _ in message["headers"]}
                mine = [(name, value) for name, value in HEADERS if name not in known]
                own_id = (b"x-request-id", scope["ppcls.id"].encode("latin-1"))
                message["headers"] = [*message["headers"], *mine, own_id]
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            self.admit(scope)
            await self.app(scope, receive, answer)
        except GoneError:
            status = 499
            self.service.metrics.hung_up.inc()
        except ProblemError as problem:
            await problem.response()(scope, receive, answer)
        except Exception as error:
            where = guard.kept(error)
            say(f"error: {scope['method']} {visible(scope['path'])}: {guard.gist(error)} ({where})")
            if not status:
                text = "the service met an error of its own; its log says where"
                await ProblemError(500, "engine", text).response()(scope, receive, answer)
        finally:
            self.tell(scope, status, size, time.monotonic() - start)

    def admit(self, scope: Scope) -> None:
        """ProblemError unless the request may go on."""
        service = self.service
        path = scope["path"]
        admin = path.startswith(ADMIN)
        if admin and service.keys is None:
            text = "models are changed over HTTP only where the service was started with --keys"
            raise ProblemError(403, "forbidden", text)
        if service.keys is None or path in OPEN or path.startswith(OPEN_BELOW):
            return
        if scope["method"] == "OPTIONS" and service.settings.cors:
            return  # a page asks what it may send; browsers send no key with that
        if wrong := service.keys.refresh():
            say(f"note: {wrong}; the keys before stay in force")
        holder = service.keys.find(Request(scope).headers)
        scope["ppcls.key"] = holder.name
        if admin and not holder.admin:
            raise ProblemError(403, "forbidden", "this key may not change models")

    def tell(self, scope: Scope, status: int, size: int, seconds: float) -> None:
        """The access log and the metrics."""
        route = getattr(scope.get("route"), "path", None) or "other"
        key = (scope["method"] if route != "other" else "other", route, status)
        counter = self.counters.get(key)
        if counter is None:
            counter = self.service.metrics.requests.labels(key[0], key[1], str(status))
            self.counters[key] = counter
        counter.inc()
        timer = self.timers.get(route)
        if timer is None:
            timer = self.timers[route] = self.service.metrics.request_seconds.labels(route)
        timer.observe(seconds)
        if self.service.access_log:
            client = scope.get("client")
            self.service.access_log.write(
                {
                    "id": scope["ppcls.id"],
                    "client": client[0] if client else None,
                    "key": scope.get("ppcls.key"),
                    "method": scope["method"],
                    "path": scope["path"][:500],
                    "status": status,
                    "bytes": size,
                    "ms": round(1000 * seconds, 2),
                    **scope.get("ppcls.note", {}),
                }
            )
