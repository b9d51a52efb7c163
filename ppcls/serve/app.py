"""The service's HTTP: its routes, the page, metrics and documentation; `v2` has the rest."""

import secrets
import time
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ppcls.serve import documents, v2
from ppcls.serve.logs import say
from ppcls.serve.model import Model
from ppcls.serve.problems import ProblemError
from ppcls.serve.service import GoneError, Service, json_response
from ppcls.utils import environment, guard
from ppcls.utils.text import visible

OPEN = ("/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready")  # without a key
OPEN_BELOW = ("/page/", "/docs/")
ADMIN = "/v2/repository/models/"
HEALTH = "/v2/health/"
LONGEST_ID = 100
GONE = 499  # what the log and the metrics have where the client did not wait for the answer
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


def make_app(service: Service) -> ASGIApp:
    """The ASGI application; `service`'s models are loaded elsewhere."""
    app = FastAPI(
        title="ppcls serve",
        version=environment.own_version(),
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
        limits = service.settings.limits
        known = {"body": limits.body, "pixels": limits.pixels, "images": limits.images}
        found = [describe(model) for model in service.models.values()]
        return json_response({"models": found, "limits": known})

    @app.get("/metrics", tags=["service"], **documents.METRICS)
    async def metrics() -> Response:
        for model in service.models.values():
            service.metrics.ready.labels(model.name).set(model.is_ready)
            service.metrics.memory.labels(model.name).set(model.memory)
            model.tell()
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    v2.add(app, service)
    add_pages(app)
    app.add_exception_handler(ProblemError, problem)  # type: ignore
    app.add_exception_handler(HTTPException, http_problem)  # type: ignore
    app.add_exception_handler(GoneError, hung_up)
    app.add_exception_handler(Exception, own_fault)
    describe_keys(app, service.keys is not None)
    inner: ASGIApp = Gate(Shortcut(app, service), service)
    if service.settings.cors:  # around the gate: a page is to read why it was not let in
        inner = CORSMiddleware(
            inner,
            service.settings.cors,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["X-Request-ID", "Retry-After", v2.HEADER_LENGTH],
        )
    return Front(inner, service)


# Handlers are coroutines: Starlette runs plain functions in threads.
async def problem(request: Request, error: ProblemError) -> Response:
    return error.response()


async def http_problem(request: Request, error: HTTPException) -> Response:
    text = f"{request.method} {visible(request.scope['path'])}: {error.detail}"
    return ProblemError(
        error.status_code,
        "http",
        f"{text}; /docs lists what is here",
        headers=dict(error.headers or {}),
    ).response()


async def hung_up(request: Request, error: Exception) -> Response:
    return Response(status_code=GONE)  # nobody reads it


async def own_fault(request: Request, error: Exception) -> Response:
    text = "the service met an error of its own; its log says where"
    return ProblemError(500, "engine", text).response()


def describe_keys(app: FastAPI, needed: bool) -> None:
    """Let the OpenAPI say which keys are asked for."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        schema = plain()
        if needed and "security" not in schema:
            schema["components"]["securitySchemes"] = documents.KEYS
            schema["security"] = [{name: []} for name in documents.KEYS]
            for path in OPEN:
                for operation in schema["paths"].get(path, {}).values():
                    operation["security"] = []
        return schema

    app.openapi = described


def describe(model: Model) -> dict[str, Any]:
    """A model, for people and for the page."""
    version = model.current
    found: dict[str, Any] = {"name": model.name, "ready": model.is_ready}
    if version:
        about = version.about
        found |= {"version": version.number, "digest": version.digest}
        kept = ("classes", "task", "topk", "calibrated", "engine", "batch", "delay", "rate")
        found |= {"network": about["model"]}
        found |= {key: about[key] for key in (*kept, "check", "maps")}
        found["drift"] = about["drift"] and about["drift"] | {"last": model.drift}
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
    app.mount("/docs/assets", StaticFiles(directory=str(assets)))
    app.mount("/page", StaticFiles(directory=str(folder)))


class Shortcut:
    """Answers `POST /predict` itself: the framework's routing, and what that wraps a route in, take
    a third of the time which this process has for a photo. Its route is there for /docs.
    """

    path = "/predict"  # as of a route, for metrics

    def __init__(self, app: ASGIApp, service: Service):
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != self.path or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        scope["route"] = self
        request = Request(scope, receive)
        try:
            response = await self.service.predict(request)
        except ProblemError as error:
            response = error.response()
        except GoneError as error:
            response = await hung_up(request, error)
        await response(scope, receive, send)


class Gate:
    """Lets those in who may come in."""

    def __init__(self, app: ASGIApp, service: Service):
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self.admit(scope)
        except ProblemError as error:
            await error.response()(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def admit(self, scope: Scope) -> None:
        """ProblemError unless the request may go on."""
        service = self.service
        path = scope["path"]
        admin = path.startswith(ADMIN)
        if admin and service.keys is None and scope["method"] == "POST":
            text = "models are changed over HTTP only where the service was started with --keys"
            raise ProblemError(403, "forbidden", text)
        if service.keys is None or path in OPEN or path.startswith(OPEN_BELOW):
            return
        if wrong := service.keys.refresh():
            say(f"note: {wrong}; the keys before stay in force")
        holder = service.keys.find(scope["ppcls.headers"])
        scope["ppcls.key"] = holder.name
        if admin and not holder.admin:
            raise ProblemError(403, "forbidden", "this key may not change models")


class Front:
    """What stands before every request: its number, the access log, metrics, errors."""

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
        method = scope["method"]
        if method == "HEAD":  # as GET; the server leaves out the body
            scope = {**scope, "method": "GET"}
        scope["ppcls.id"] = own or secrets.token_hex(8)
        scope["ppcls.headers"] = headers
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
            await self.app(scope, receive, answer)
        except Exception as error:  # the application has answered it, with `own_fault`
            where = guard.kept(error)
            say(f"error: {method} {visible(scope['path'])}: {guard.gist(error)} ({where})")
            if not status:
                await (await own_fault(Request(scope), error))(scope, receive, answer)
        finally:
            if status == GONE:
                self.service.metrics.hung_up.inc()
            self.tell(scope, method, status, size, time.monotonic() - start)

    def tell(self, scope: Scope, method: str, status: int, size: int, seconds: float) -> None:
        """The access log and the metrics."""
        route = getattr(scope.get("route"), "path", None) or "other"
        key = (method if route != "other" else "other", route, status)
        counter = self.counters.get(key)
        if counter is None:
            counter = self.service.metrics.requests.labels(key[0], key[1], str(status))
            self.counters[key] = counter
        counter.inc()
        timer = self.timers.get(route)
        if timer is None:
            timer = self.timers[route] = self.service.metrics.request_seconds.labels(route)
        timer.observe(seconds)
        probe = scope["path"].startswith(HEALTH) and status == 200  # some every second
        if self.service.access_log and not probe:
            client = scope.get("client")
            self.service.access_log.write(
                {
                    "id": scope["ppcls.id"],
                    "client": client[0] if client else None,
                    "key": scope.get("ppcls.key"),
                    "method": method,
                    "path": scope["path"][:500],
                    "status": status,
                    "bytes": size,
                    "ms": round(1000 * seconds, 2),
                    **scope.get("ppcls.note", {}),
                }
            )
