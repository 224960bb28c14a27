"""Prometheus metrics and JSON logs of a server."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import resource
import sys
import threading
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from queue import Full, Queue
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Float
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
LATENCIES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
MAX_WAITING = 20_000


class Metrics:
    """The metrics of one process. Labels are routes, never paths: they contain no user id."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = own = CollectorRegistry()
        self._requests = Counter("variseq_requests", "Requests answered.", ("method", "route", "status"), registry=own)
        about = "Time from the head of a request to its answer."
        self._seconds = Histogram("variseq_request_seconds", about, ("route",), buckets=LATENCIES, registry=own)
        self.batch_size = Histogram("variseq_batch_size", "Requests in one pass.", buckets=BATCH_SIZES, registry=own)
        self._waiting, self._cache, self._memory = (
            Gauge(name, about, multiprocess_mode="livesum", registry=own)
            for name, about in (
                ("variseq_queue_length", "Requests that wait for the model."),
                ("variseq_cache_bytes", "Decoded histories in memory."),
                ("variseq_resident_memory_bytes", "Memory of the server's processes."),
            )
        )
        about = "1 for the model that answers."
        self._model = Gauge("variseq_model_info", about, ("version",), multiprocess_mode="livemax", registry=own)
        self._model_versions: set[str] = set()
        self.store_errors = Counter("variseq_store_errors", "Calls that the store could not serve.", registry=own)
        self.events = Counter("variseq_events", "Events by outcome.", ("outcome",), registry=own)
        about = "Records of exposures by kind and outcome."
        self._exposures = Counter("variseq_exposures", about, ("kind", "outcome"), registry=own)
        about = "Sum of 1 / propensity in the list over items that were drawn."
        self._inverse = Counter("variseq_inverse_propensities", about, registry=own)
        about = "Sum of the squares of these; the effective number of items is the sum's square over it."
        self._inverse_squares = Counter("variseq_inverse_propensity_squares", about, registry=own)
        self.rejected_models = Counter("variseq_rejected_models", "Models that could not be loaded.", registry=own)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def propensities(self, in_list: Float[np.ndarray, " row"]) -> None:
        """Add the propensities of a list that was drawn."""
        inverse = 1 / in_list
        self._inverse.inc(float(inverse.sum()))
        self._inverse_squares.inc(float(np.square(inverse).sum()))

    def exposure(self, kind: str, outcome: str) -> None:
        """Count one record of exposures."""
        self._exposures.labels(kind, outcome).inc()

    def model(self, version: str) -> None:
        """Set which model answers."""
        self._model_versions.add(version)
        for known in self._model_versions:
            self._model.labels(known).set(known == version)

    def text(self) -> bytes:
        """All metrics of all workers in the text format of Prometheus."""
        if DIRECTORY_VARIABLE not in os.environ:
            return generate_latest(self.registry)
        all_workers = CollectorRegistry()
        MultiProcessCollector(all_workers)  # type: ignore[no-untyped-call]
        return generate_latest(all_workers)

    def gauges(self, num_waiting: int, cache_bytes: int) -> None:
        """Set the queue length and the memory use."""
        self._waiting.set(num_waiting)
        self._cache.set(cache_bytes)
        self._memory.set(resident_bytes())


def resident_bytes() -> int:
    """Memory of this process now; its peak where the system does not give it."""
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:
            return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class JsonLog(logging.Handler):
    """Log records as JSON lines, written by a thread; they are dropped and counted when nobody reads stderr."""

    def __init__(self, stream: io.TextIOBase | None = None) -> None:
        super().__init__()
        self.num_dropped = 0
        self.lines: Queue[str | None] = Queue(MAX_WAITING)
        self._stream = stream or sys.stderr
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the message, or the `fields` of a record that has some."""
        entry = {"time": _iso(record.created), "level": record.levelname.lower()}
        entry |= record.__dict__.get("fields") or {"message": record.getMessage()}
        if request_id := record.__dict__.get("request_id"):
            entry["request_id"] = request_id
        if record.exc_info:
            entry["trace"] = _trace(record.exc_info[1])
        try:
            self.lines.put_nowait(_line(entry))
        except Full:
            self.num_dropped += 1

    def close(self) -> None:
        """Write the lines that wait."""
        with contextlib.suppress(Full):
            self.lines.put(None, timeout=1.0)
        self._thread.join(timeout=5.0)
        super().close()

    def _write(self) -> None:
        while (line := self.lines.get()) is not None:
            if self.num_dropped:
                now = datetime.now(UTC).timestamp()
                line += _line({"time": _iso(now), "level": "warning", "dropped": self.num_dropped})
                self.num_dropped = 0
            try:
                self._stream.write(line)
                self._stream.flush()
            except OSError:  # A full disk or a closed pipe: the server goes on without its log.
                self.num_dropped += 1


@contextlib.contextmanager
def json_logging() -> Iterator[None]:
    """Send every log record of this process to stderr as JSON."""
    handler, root = JsonLog(), logging.getLogger()
    before, root.handlers = root.handlers, [handler]
    logging.getLogger("variseq").setLevel(logging.INFO)
    try:
        yield
    finally:
        root.handlers = before
        handler.close()


def _trace(error: BaseException | None) -> str:
    """Where an error came from: lines and types, but not messages, which may name a user."""
    parts: list[str] = []
    while error is not None:
        parts.insert(0, "".join(traceback.format_tb(error.__traceback__)) + type(error).__qualname__)
        error = error.__cause__ or error.__context__
    return "\n".join(parts)


def _line(entry: dict[str, Any]) -> str:
    return msgspec.json.encode(entry).decode() + "\n"


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
