"""What all requests of a service share: its models, limits, keys and logs; `POST /predict`."""

import asyncio
import json
import time
from collections.abc import Coroutine
from typing import Any

from fastapi import Request
from starlette.responses import Response

from ppcls.serve.addresses import fetch
from ppcls.serve.bodies import Asked, Body, Budget, parse
from ppcls.serve.keys import Keys
from ppcls.serve.logs import AccessLog, Samples, say
from ppcls.serve.metrics import Metrics
from ppcls.serve.model import Model, Version, model_name
from ppcls.serve.problems import ProblemError
from ppcls.serve.settings import ServeSettings
from ppcls.utils.errors import UserError
from ppcls.utils.text import did_you_mean, visible


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
        for name, log in (("access", self.access_log), ("record", self.samples)):
            dropped = self.metrics.dropped.labels(name)
            if log:
                dropped.set_function(log.writer.count_dropped)
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

    async def images_of(self, asked: Asked, body: Body) -> list[bytes]:
        """The images' bytes, those given by address fetched; these count as the body's, too.

        Raises:
            ProblemError: addresses are not taken here, or one of them is not to be had in time.
        """
        if not self.settings.urls:
            text = "images by address are not taken here; send their bytes, or start with --urls"
            raise ProblemError(403, "forbidden", text)
        limits = self.settings.limits
        found = []
        until = time.monotonic() + limits.seconds
        for image in asked.images:
            data = image
            if isinstance(data, str):
                data = await fetch(data, limits.body - body.held, until - time.monotonic())
                body.take(len(data))
            found.append(data)
        return found

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
            if asked.explain:
                refuse_unexplained(model)
            images: Any = asked.images
            if asked.has_addresses:
                images = await unless_gone(request, self.images_of(asked, body))
            header = {
                "kind": "images",
                "sizes": [len(image) for image in images],
                "topk": asked.topk,
                "threshold": asked.threshold,
                "explain": asked.explain,
            }
            if any(asked.names):
                header["names"] = asked.names
            work = model.submit(header, images, len(images))
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


def refuse_unexplained(model: Model) -> None:
    """ProblemError where the model gives no maps."""
    if model.current and not model.current.about["maps"]:
        text = f"{model.name} gives no maps; export it again with ppcls export --explain"
        raise ProblemError(422, "request", text)


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
    errors = [image["error"] for image in images if "error" in image]
    if len(errors) == len(images):
        more = {"errors": errors} if len(errors) > 1 else {}
        raise ProblemError(422, "image", errors[0], **more)


def json_response(value: Any, status: int = 200) -> Response:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Response(text.encode("utf-8", "replace"), status, media_type="application/json")


async def unless_gone(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """What `work` returns, which is cancelled where the client hangs up before."""

    own = asyncio.current_task()
    assert own
    is_gone = False

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    def hang_up(watcher: "asyncio.Task[None]") -> None:
        nonlocal is_gone
        if not watcher.cancelled():
            is_gone = True
            own.cancel()

    watcher = asyncio.ensure_future(watch())
    watcher.add_done_callback(hang_up)
    try:
        return await work  # in this task: in one of its own each answer would pass the loop twice
    except asyncio.CancelledError:
        if not is_gone:
            raise
        if hasattr(own, "uncancel"):  # Python 3.11
            own.uncancel()  # type: ignore
        raise GoneError from None
    finally:
        watcher.remove_done_callback(hang_up)
        watcher.cancel()
