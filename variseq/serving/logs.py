"""Log records and finished requests into JSON lines on stderr, written by a thread so that no request waits for it."""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from datetime import UTC, datetime
from queue import SimpleQueue
from time import time

MAX_WAITING = 20_000


class LogLines:
    """Takes lines at once and writes them soon. When the reader of stderr stops, lines are dropped and counted."""

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
        """A finished request; every word here is ours or was checked to be letters and digits."""
        self.put(
            f'{{"time":"{_iso(time())}","level":"info","request_id":"{request_id}","method":"{method}",'
            f'"route":"{route}","status":{status},"milliseconds":{seconds * 1e3:.3f}}}\n'
        )

    def close(self) -> None:
        """Write what waits."""
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
    """Records of the `logging` module as lines."""

    def __init__(self, lines: LogLines) -> None:
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
    """Where an error came from: places and kinds of errors, but not their words, which may name a user."""
    parts: list[str] = []
    while error is not None:
        parts.insert(0, "".join(traceback.format_tb(error.__traceback__)) + type(error).__qualname__)
        error = error.__cause__ or error.__context__
    return "\n".join(parts)


def log_as_json(lines: LogLines) -> None:
    """Send everything that is logged in this process to the lines."""
    root = logging.getLogger()
    root.handlers = [JsonHandler(lines)]
    root.setLevel(logging.WARNING)
    logging.getLogger("variseq").setLevel(logging.INFO)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
