"""What a server does into Prometheus metrics; with several workers they are summed over all of them."""

from __future__ import annotations

import os
import resource

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
LATENCIES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The metrics of one process. Labels are routes, never paths: no user id comes near them."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        own = self.registry
        self._requests = Counter("variseq_requests", "Requests answered.", ("method", "route", "status"), registry=own)
        self._seconds = Histogram(
            "variseq_request_seconds", "Time from the head of a request to its answer.", ("route",),
            buckets=LATENCIES, registry=own,
        )  # fmt: skip
        self._batch = Histogram("variseq_batch_size", "Requests in one pass.", buckets=BATCH_SIZES, registry=own)
        self._waiting = self._gauge("variseq_queue_length", "Requests that wait for the model.")
        self._cache = self._gauge("variseq_cache_bytes", "Decoded histories in memory.")
        self._memory = self._gauge("variseq_resident_memory_bytes", "Memory of the server's processes.")
        self._model = Gauge(
            "variseq_model_info", "1 for the model that answers.", ("version",),
            multiprocess_mode="livemax", registry=own,
        )  # fmt: skip
        self.store_errors = Counter("variseq_store_errors", "Calls that the store could not serve.", registry=own)
        self.events = Counter("variseq_events", "Events by what became of them.", ("outcome",), registry=own)
        self.refused_models = Counter("variseq_refused_models", "Models that could not be loaded.", registry=own)
        self._model_versions: set[str] = set()
        self._children: dict[tuple[str, str, int], Counter] = {}
        self._timers: dict[str, Histogram] = {}

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        key = (method, route, status)
        counter = self._children.get(key)
        if counter is None:
            counter = self._children[key] = self._requests.labels(method, route, str(status))
        counter.inc()
        timer = self._timers.get(route)
        if timer is None:
            timer = self._timers[route] = self._seconds.labels(route)
        timer.observe(seconds)

    def batch(self, size: int) -> None:
        """Note how many requests were answered in one pass."""
        self._batch.observe(size)

    def model(self, version: str) -> None:
        """Note which model answers."""
        for before in self._model_versions:
            self._model.labels(before).set(0)
        self._model_versions.add(version)
        self._model.labels(version).set(1)

    def text(self) -> bytes:
        """All of it, of all workers, as Prometheus reads it."""
        if DIRECTORY_VARIABLE not in os.environ:
            return generate_latest(self.registry)
        everybody = CollectorRegistry()
        MultiProcessCollector(everybody)  # type: ignore[no-untyped-call]
        return generate_latest(everybody)

    def level(self, num_waiting: int, cache_bytes: int) -> None:
        """Note what rises and falls."""
        self._waiting.set(num_waiting)
        self._cache.set(cache_bytes)
        self._memory.set(resident_bytes())

    def _gauge(self, name: str, about: str) -> Gauge:
        return Gauge(name, about, multiprocess_mode="livesum", registry=self.registry)


def resident_bytes() -> int:
    """Memory of this process now; its peak where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:
            return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
