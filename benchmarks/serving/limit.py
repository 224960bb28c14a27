"""The limit of a server: the bare model and its top k, called in a loop in one process, without HTTP and store.

    python benchmarks/serving/limit.py MODEL AT_ONCE SECONDS [--no-because] [--exact]

Prints one line of JSON: calls a second, milliseconds a call and memory, of batches of AT_ONCE histories of 50 events.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from variseq.inference.engine import Engine, KnownHistory
from variseq.inference.question import Question

NUM_HISTORIES, NUM_EVENTS = 512, 50


def some_items(engine: Engine, num_histories: int = NUM_HISTORIES) -> list[list[object]]:
    """Histories as lists of ids; the same in every process."""
    generator = np.random.default_rng(7)
    chosen = generator.integers(0, engine.vocabulary.num_items, (num_histories, NUM_EVENTS))
    return [[engine.catalog.ids[item] for item in row] for row in chosen.tolist()]


def main(folder: Path, at_once: int, seconds: float, flags: set[str]) -> dict[str, object]:
    engine = Engine.load(folder, exact="--exact" in flags)
    question = Question(k=10, because="--no-because" not in flags)
    histories: list[KnownHistory] = [engine.given(items) for items in some_items(engine)]
    batches = [histories[first : first + at_once] for first in range(0, NUM_HISTORIES, at_once)]
    engine.answer([(history, question) for history in batches[0]])
    took: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        engine.answer([(history, question) for history in batches[len(took) % len(batches)]])
        took.append(time.perf_counter() - begin)
    return {
        "at_once": at_once,
        "calls": len(took) * at_once,
        "calls_per_second": round(len(took) * at_once / sum(took), 2),
        "p50_ms": round(1000 * float(np.median(took)), 3),
        "p99_ms": round(1000 * float(np.quantile(took, 0.99)), 3),
        "memory_megabytes": memory_megabytes(),
    }


def memory_megabytes() -> float | None:
    """The memory that this process holds now; None where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return round(int(fields["VmRSS"].split()[0]) / 1024, 1)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), set(sys.argv[4:]))))
