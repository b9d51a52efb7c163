"""What a service is told on its command line."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Beyond which a request is refused, or ended.

    Attributes:
        body: bytes of a request's body.
        pixels: of an image, as its file says before it is decoded.
        images: of a request.
        queue: images that wait or are being predicted, of each model.
        bytes: of all bodies that are being received or wait for an answer.
        seconds: from a whole request to its answer.
        slow: seconds that a request's head may take to come, and in each of which periods a body
            has to get on.
        header: bytes of a request's head.
        connections: open at a time.
    """

    body: int = 32 * MB
    pixels: int = 64_000_000
    images: int = 64
    queue: int = 512
    bytes: int = 512 * MB
    seconds: float = 30.0
    slow: float = 20.0
    header: int = 64 << 10
    connections: int = 20_000


@dataclass(frozen=True)
class ServeSettings:
    """Where and how to serve; what each model is opened with stands in `options`.

    Attributes:
        models: (name, folder); None as name: the folder's.
        workers: processes of each model.
        batch: images a batch at most; None: measured.
        delay: seconds that a batch waits for images on their way; None: measured.
        hang: seconds after which a worker that does not get on is replaced.
        keys: file of keys; None: no key is needed, and models cannot be changed over HTTP.
        cors: origins whose pages may call the service.
        urls: whether images may be given by their address.
        record: folder for a share of the images; None: none is kept.
        access_log: file for a line of each request, "-": standard output; None: none.
        options: arguments of `Predictor`.
        drift: images of a window that is held against those of the calibration; 0: none.
        drift_false_alarms: the share of windows that raise an alarm though nothing has changed.
        use: modules whose engines `options` may name.
    """

    models: tuple[tuple[str | None, Path], ...]
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    batch: int | None = None
    delay: float | None = None
    hang: float = 20.0
    limits: Limits = field(default_factory=Limits)
    keys: Path | None = None
    cors: tuple[str, ...] = ()
    urls: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    record: Path | None = None
    share: float = 0.01
    record_most: int = 10_000
    access_log: str | None = "-"
    drift: int = 500
    drift_false_alarms: float = 0.01
    options: dict[str, Any] = field(default_factory=dict)
    use: tuple[str, ...] = ()
