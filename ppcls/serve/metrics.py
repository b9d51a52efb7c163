"""What a service tells of itself at /metrics, in Prometheus's form."""

from contextlib import suppress
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from ppcls.drift import PARTS

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
MODEL = ["model"]


class Metrics:
    """One service's; each has a registry of its own."""

    def __init__(self):
        self.registry = own = CollectorRegistry()
        self.requests = Counter(
            "ppcls_requests", "Requests answered.", ["method", "route", "status"], registry=own
        )
        self.request_seconds = Histogram(
            "ppcls_request_seconds", "From a request's head to its answer.", ["route"],
            buckets=SECONDS, registry=own,
        )  # fmt: skip
        self.images = Counter(
            "ppcls_images", "Images, by what came of them: predicted, broken, late or failed.",
            ["model", "outcome"], registry=own,
        )  # fmt: skip
        self.queue_seconds = self.part("queue", "waited for the engine")
        self.decode_seconds = self.part("decode", "were decoded and preprocessed")
        self.engine_seconds = self.part("engine", "were in the engine")
        self.batch_size = Histogram(
            "ppcls_batch_size", "Largest batch that a request's images ran in.", MODEL,
            buckets=BATCHES, registry=own,
        )  # fmt: skip
        self.queue = Gauge(
            "ppcls_queue_images", "Images that wait or are being predicted.", MODEL, registry=own
        )
        self.queue_share = Gauge(
            "ppcls_queue_share", "The same as a share of what the queue holds.", MODEL,
            registry=own,
        )  # fmt: skip
        self.ready = Gauge("ppcls_model_ready", "1: it answers.", MODEL, registry=own)
        self.model = Info("ppcls_model", "Version, digest and engine.", MODEL, registry=own)
        self.rate = Gauge(
            "ppcls_engine_images_per_second", "What the engine can do, measured at the start.",
            MODEL, registry=own,
        )  # fmt: skip
        self.memory = Gauge(
            "ppcls_worker_memory_bytes", "Of a model's workers.", MODEL, registry=own
        )
        self.restarts = Counter(
            "ppcls_worker_restarts", "Workers that were replaced, by why: died or hung.",
            ["model", "why"], registry=own,
        )  # fmt: skip
        self.reloads = Counter(
            "ppcls_reloads", "New versions, by outcome: taken, refused or taken_back.",
            ["model", "outcome"], registry=own,
        )  # fmt: skip
        self.drift_distance = Gauge(
            "ppcls_drift_distance",
            "How far the last window's images are from the calibration's, in features, scores, "
            "classes and looks, by what chance makes of it.", ["model", "part"], registry=own,
        )  # fmt: skip
        self.drift_p = Gauge(
            "ppcls_drift_p", "The chance that like images are as far away.", MODEL, registry=own
        )
        self.drift_alarm = Gauge(
            "ppcls_drift_alarm", "1: the last window's images have drifted.", MODEL, registry=own
        )
        self.drift_images = Gauge(
            "ppcls_drift_images", "Images in the present window.", MODEL, registry=own
        )
        self.drift_windows = Counter(
            "ppcls_drift_windows", "Windows, by outcome: alike or alarm.",
            ["model", "outcome"], registry=own,
        )  # fmt: skip
        self.refused = Counter(
            "ppcls_refused", "Requests that were not let in, by why.", ["why"], registry=own
        )
        self.hung_up = Counter(
            "ppcls_hung_up", "Requests whose client was gone before the answer.", registry=own
        )
        self.dropped = Gauge(
            "ppcls_log_dropped", "Lines of the access log and samples that were not written.",
            ["log"], registry=own,
        )  # fmt: skip

    def tell_drift(self, model: str, found: dict[str, Any]) -> None:
        """What came of a window of a model's images."""
        for part, distance in found["distances"].items():
            self.drift_distance.labels(model, part).set(distance)
        self.drift_p.labels(model).set(found["p"])
        self.drift_alarm.labels(model).set(found["alarm"])
        self.drift_windows.labels(model, "alarm" if found["alarm"] else "alike").inc()

    def forget_drift(self, model: str) -> None:
        """Of the last window, which was another version's."""
        for part in PARTS:
            with suppress(KeyError):
                self.drift_distance.remove(model, part)
        for gauge in (self.drift_p, self.drift_alarm, self.drift_images):
            with suppress(KeyError):
                gauge.remove(model)

    def part(self, name: str, what: str) -> Histogram:
        text = f"Seconds that a request's images {what}."
        return Histogram(
            f"ppcls_{name}_seconds", text, MODEL, buckets=SECONDS, registry=self.registry
        )
