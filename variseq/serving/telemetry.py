"""Prometheus metrics and JSON logs of a server."""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import threading
import traceback
from datetime import UTC, datetime
from queue import SimpleQueue
from time import time

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
    """The metrics of one process. Labels are routes, never paths: they contain no user id."""

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
        self.events = Counter("variseq_events", "Events by outcome.", ("outcome",), registry=own)
        self.rejected_models = Counter("variseq_rejected_models", "Models that could not be loaded.", registry=own)
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
        """Count the requests of one pass."""
        self._batch.observe(size)

    def model(self, version: str) -> None:
        """Set which model answers."""
        for before in self._model_versions:
            self._model.labels(before).set(0)
        self._model_versions.add(version)
        self._model.labels(version).set(1)

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

    def _gauge(self, name: str, about: str) -> Gauge:
        return Gauge(name, about, multiprocess_mode="livesum", registry=self.registry)


def resident_bytes() -> int:
    """Memory of this process now; its peak where the system does not give it."""
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:
            return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


MAX_WAITING = 20_000


class LogWriter:
    """JSON lines on stderr, written by a thread; lines are dropped and counted when the reader of stderr stops."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[str | None] = SimpleQueue()
        self._num_dropped = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        if self._queue.qsize() >= MAX_WAITING:
            self._num_dropped += 1
        else:
            self._queue.put(line)

    def request(self, request_id: str, method: str, route: str, status: int, seconds: float) -> None:
        """A finished request. Nothing needs escaping: ids were checked to be letters and digits."""
        self.put(
            f'{{"time":"{_iso(time())}","level":"info","request_id":"{request_id}","method":"{method}",'
            f'"route":"{route}","status":{status},"milliseconds":{seconds * 1e3:.3f}}}\n'
        )

    def close(self) -> None:
        """Write the lines that wait."""
        self._queue.put(None)
        self._thread.join(timeout=5.0)

    def _write(self) -> None:
        while (line := self._queue.get()) is not None:
            lines = [line]
            while len(lines) < 1000 and not self._queue.empty():
                following = self._queue.get()
                if following is None:
                    self._queue.put(None)
                    break
                lines.append(following)
            if self._num_dropped:
                lines.append(
                    json.dumps({"time": _iso(time()), "level": "warning", "dropped": self._num_dropped}) + "\n"
                )
                self._num_dropped = 0
            try:
                sys.stderr.write("".join(lines))
                sys.stderr.flush()
            except OSError:  # A full disk or a closed pipe: the server goes on without its log.
                self._num_dropped += len(lines)


class JsonHandler(logging.Handler):
    """Records of the `logging` module as JSON lines."""

    def __init__(self, lines: LogWriter) -> None:
        super().__init__()
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        entry = {"time": _iso(record.created), "level": record.levelname.lower(), "message": record.getMessage()}
        request_id = record.__dict__.get("request_id")
        if request_id is not None:
            entry["request_id"] = request_id
        if record.exc_info:
            entry["trace"] = _trace(record.exc_info[1])
        self.lines.put(json.dumps(entry, ensure_ascii=False) + "\n")


def _trace(error: BaseException | None) -> str:
    """Where an error came from: lines and types, but not messages, which may name a user."""
    parts: list[str] = []
    while error is not None:
        parts.insert(0, "".join(traceback.format_tb(error.__traceback__)) + type(error).__qualname__)
        error = error.__cause__ or error.__context__
    return "\n".join(parts)


def log_as_json(lines: LogWriter) -> None:
    """Send every log record of this process to the writer."""
    root = logging.getLogger()
    root.handlers = [JsonHandler(lines)]
    root.setLevel(logging.WARNING)
    logging.getLogger("variseq").setLevel(logging.INFO)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
