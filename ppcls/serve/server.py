"""The process that speaks HTTP: it starts, listens, loads the models, and ends in good order."""

import asyncio
import resource
import signal
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import uvicorn

from ppcls.serve.app import make_app
from ppcls.serve.connection import connection_class
from ppcls.serve.problems import ProblemError
from ppcls.serve.service import Service
from ppcls.serve.settings import Limits, ServeSettings
from ppcls.utils.errors import UserError
from ppcls.utils.log import say

IDLE = 75.0  # seconds that a connection is kept without a request
OWN_FILES = 256  # open ones that are no connections


class Server(uvicorn.Server):
    """uvicorn's, which leaves signals to `serve`."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def raise_file_limit() -> int:
    """As many open files as the system lets this user have; how many these are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    return soft


def with_files(limits: Limits, files: int) -> Limits:
    """The limits, with no more connections than the files that can be open allow."""
    most = max(1, files - OWN_FILES) if files > 0 else limits.connections  # below 0: no limit
    return replace(limits, connections=min(limits.connections, most))


def check_tls(settings: ServeSettings) -> None:
    """UserError for files of TLS that cannot be used."""
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise UserError("--tls-cert and --tls-key are needed together")
    if settings.tls_cert:
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(settings.tls_cert, settings.tls_key)
        except (OSError, ssl.SSLError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"--tls-cert {settings.tls_cert}: cannot be used ({reason})") from None


def serve(settings: ServeSettings) -> int:
    """Serve until a signal ends it; returns the exit code.

    Raises:
        UserError: a model cannot be loaded at the start, or the port not be had.
    """
    check_tls(settings)
    settings = replace(settings, limits=with_files(settings.limits, raise_file_limit()))
    service = Service(settings)
    with asyncio_runner() as run:
        return run(serve_until_ended(service, settings))


@contextmanager
def asyncio_runner() -> Iterator[Any]:
    """`asyncio.run`, with uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        yield asyncio.run
        return
    loop = uvloop.new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        yield loop.run_until_complete
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def serve_until_ended(service: Service, settings: ServeSettings) -> int:
    limits = settings.limits
    config = uvicorn.Config(
        make_app(service),
        host=settings.host,
        port=settings.port,
        http=connection_class(limits, service.metrics),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # what is no HTTP is counted, not told
        access_log=False,
        server_header=False,
        backlog=2048,
        timeout_keep_alive=int(IDLE),
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    config.load()
    server = Server(config)
    try:
        sockets = [config.bind_socket()]
    except SystemExit:  # what uvicorn does where the port is taken
        text = f"--port {settings.port} on {settings.host}: cannot be listened on; is it taken?"
        raise UserError(text) from None
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def end() -> None:
        if ended.is_set():
            server.force_exit = True
        service.draining = True
        ended.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    tasks: set[asyncio.Task[Any]] = set()

    def reload() -> None:
        task = asyncio.ensure_future(reload_all(service))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    serving = asyncio.ensure_future(server.serve(sockets))
    loading = asyncio.ensure_future(load_all(service, settings, sockets[0].getsockname()[1]))
    waiting = asyncio.ensure_future(ended.wait())
    try:
        await asyncio.wait([loading, waiting, serving], return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
            await asyncio.wait([waiting, serving], return_when=asyncio.FIRST_COMPLETED)
        say("ending: no new connections, what is here is answered")
    finally:
        loading.cancel()
        server.should_exit = True
        await asyncio.wait([serving], timeout=limits.seconds + 5)
        server.force_exit = True
        await asyncio.gather(*(model.close() for model in service.models.values()))
        await asyncio.wait([serving])
        for log in (service.access_log, service.samples):
            if log:
                log.close()
    return 0


async def load_all(service: Service, settings: ServeSettings, port: int) -> None:
    for model in service.models.values():
        say(f"{model.name}: opening {model.folder}")
        try:
            await service.load(model)
        except ProblemError as error:
            raise UserError(error.detail) from None
    scheme = "https" if settings.tls_cert else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    say(f"ready: {scheme}://{host}:{port}, its API at /docs; Ctrl-C ends it")


async def reload_all(service: Service) -> None:
    """What SIGHUP asks for: a new version of each model, from its folder."""
    for model in service.models.values():
        with suppress(ProblemError):  # it is said
            await service.load(model)
