"""The process that speaks HTTP: it starts, listens, loads the models, and ends in good order."""

import asyncio
import os
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import uvicorn

from ppcls.serve.app import make_app
from ppcls.serve.connection import connection_class
from ppcls.serve.logs import finish_saying, say
from ppcls.serve.problems import ProblemError
from ppcls.serve.service import Service
from ppcls.serve.settings import Limits, ServeSettings
from ppcls.utils import environment, guard
from ppcls.utils.errors import UserError

BACKLOG = 2048  # connections that wait to be taken
IDLE = 75.0  # seconds that a connection is kept without a request
OWN_FILES = 256  # open ones that are no connections
# Bytes from which on a block is the system's own, and that are kept free. By itself glibc keeps
# more and more of what bodies took: the largest block that was ever freed sets that.
OWN_BLOCK = 1 << 20
KEPT = 4 << 20
MARGIN = 5.0  # seconds, at the end, for what has no limit of its own


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
    environment.tune_malloc(OWN_BLOCK, KEPT, arenas=1)  # other threads write lines alone
    service = Service(settings)
    try:
        code = runner()(serve_until_ended(service, settings))
    except Exception as error:
        if not finished(service):
            os._exit(guard.ended(error))
        raise
    if not finished(service):
        os._exit(code)
    sys.stdout.flush()  # where nobody reads it any more, the command line takes that error
    return code


def finished(service: Service) -> bool:
    """Whether all that was said is written; else a thread waits for a reader that has stopped, for
    which Python's own end would wait, too.
    """
    logs = [log for log in (service.access_log, service.samples) if log]
    return all([finish_saying(), *(log.close() for log in logs)])


def runner() -> Callable[[Coroutine[Any, Any, int]], int]:
    """`asyncio.run`, with uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    return uvloop.run


async def serve_until_ended(service: Service, settings: ServeSettings) -> int:
    server = make_server(service, settings)
    listening = listen(settings.host, settings.port)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    at_once = asyncio.Event()

    def end() -> None:
        """The first signal ends it in good order, the next one at once."""
        if ended.is_set():
            at_once.set()
        service.draining = True
        ended.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    reloads = Reloads(service)
    loop.add_signal_handler(signal.SIGHUP, reloads.ask)
    serving = asyncio.ensure_future(server.serve([listening]))
    loading = asyncio.ensure_future(load_all(service, settings, listening.getsockname()[1]))
    waiting = asyncio.ensure_future(ended.wait())
    try:
        await asyncio.wait([loading, waiting, serving], return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
            await asyncio.wait([waiting, serving], return_when=asyncio.FIRST_COMPLETED)
        say("ending: no new connections, what is here is answered")
    finally:
        loading.cancel()
        reloads.end()
        server.should_exit = True
        hurry = asyncio.ensure_future(at_once.wait())
        limits = settings.limits
        seconds = limits.slow + limits.seconds + MARGIN
        await asyncio.wait([serving, hurry], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        models = service.models.values()
        await asyncio.gather(*(model.close(not serving.done()) for model in models))
        await drop_connections(server, serving)
        for task in (waiting, hurry, loading):
            task.cancel()
        await asyncio.gather(waiting, hurry, loading, return_exceptions=True)
    if not ended.is_set():
        serving.result()  # what ended uvicorn
    return 0


def make_server(service: Service, settings: ServeSettings) -> Server:
    config = uvicorn.Config(
        make_app(service),
        http=connection_class(settings.limits, service.metrics),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # what is no HTTP is counted, not told
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=int(IDLE),
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    config.load()
    return Server(config)


def listen(host: str, port: int) -> socket.socket:
    """A socket at which clients can connect from now on; UserError where that cannot be."""
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(BACKLOG)
    except OSError as error:
        found.close()
        reason = (error.strerror or str(error)).lower()
        text = f"--port {port} on {host}: cannot be listened on ({reason})"
        raise UserError(f"{text}; give another one, or end what has it") from None
    return found


async def drop_connections(server: Server, serving: "asyncio.Future[None]") -> None:
    """End what is still connected after all that time, for uvicorn waits for it."""
    server.force_exit = True
    for connection in list(server.server_state.connections):
        transport = getattr(connection, "transport", None)
        if transport and not serving.done():
            transport.abort()
    await asyncio.wait([serving], timeout=MARGIN)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


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


class Reloads:
    """What SIGHUP asks for: a new version of each model, from its folder, and a new access log."""

    def __init__(self, service: Service):
        self.service = service
        self.task: asyncio.Task[None] | None = None
        self.again = False

    def ask(self) -> None:
        """Begin, or where one is under way, once more behind it, however often it is asked."""
        if self.service.access_log:
            self.service.access_log.reopen()
        if self.task and not self.task.done():
            self.again = True
        elif not self.service.draining:
            self.task = asyncio.ensure_future(self.run())

    async def run(self) -> None:
        self.again = True
        while self.again:
            self.again = False
            for model in self.service.models.values():
                try:
                    await self.service.load(model)
                except ProblemError:  # it is said
                    pass
                except Exception as error:
                    say(f"error: {model.name}: {guard.gist(error)} ({guard.kept(error)})")

    def end(self) -> None:
        if self.task:
            self.task.cancel()
