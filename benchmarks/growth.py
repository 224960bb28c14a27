"""How time and memory grow with events and items, for every stage in the life of a model.

    python -m benchmarks.growth --events 100000 1000000 5000000 --items 10000 100000 1000000
    python -m benchmarks.growth --cells 5000000x100000 2000000x1000000        # these alone
    python -m benchmarks.growth --draw                                        # docs/pictures/growth.svg

A cell is a number of events and a number of items. Its log is simulated once: Zipf items, histories of 20 events on
average, and two events in five that follow from the one before. Pairs with fewer than two events per item are left out
unless --cells names them.

Each stage is a process of its own. Seconds, CPU seconds and peak memory are those of the whole process; the parts of a
stage are measured inside it. A cell ends after --max-minutes, and what was measured until then is recorded. A cell is
skipped where the file has it with the same commit and settings.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.growth_results import PICTURE, draw
from measurement.records import (
    ROOT,
    THREAD_VARIABLES,
    Record,
    append_records,
    check_writable,
    command_parser,
    commit,
    exit_code,
    read_records,
    record_of,
)
from variseq.errors import InputError
from variseq.ranking.index import EXACT_ITEMS

SEED = 0
EVENTS, ITEMS = (100_000, 1_000_000, 5_000_000), (10_000, 100_000, 1_000_000)
EVENTS_PER_ITEM = 2
AN_EPOCH = ("fit_epoch", "fit_validation")
"""Parts that come once an epoch, of which the mean is recorded."""
OUT_OF_TIME = "out of time"
CLI = "from variseq.cli import main; main()"
Metrics = dict[str, Any]


@dataclass(frozen=True, order=True)
class Cell:
    """The size of a log."""

    events: int
    items: int

    @classmethod
    def of(cls, text: str) -> Cell:
        """The cell of a text such as 5000000x100000."""
        events, _, items = text.partition("x")
        if not (events.isdigit() and items.isdigit() and int(events) >= 100 and int(items) >= 10):
            raise InputError(f"--cells {text!r} is no cell. Give events and items, as in 5000000x100000.")
        return cls(int(events), int(items))


def cells_of(events: Sequence[int] | None, items: Sequence[int] | None, named: Sequence[str]) -> list[Cell]:
    """All pairs with enough events, and the named cells; the named ones alone where no numbers are given.

    >>> cells_of([100_000], [10_000, 100_000], ["1000x900"])
    [Cell(events=1000, items=900), Cell(events=100000, items=10000)]
    """
    found = {Cell.of(text) for text in named}
    if not named or events or items:
        pairs = (Cell(*pair) for pair in product(events or EVENTS, items or ITEMS))
        found |= {cell for cell in pairs if cell.events >= EVENTS_PER_ITEM * cell.items}
    return sorted(found, key=lambda cell: (cell.events * cell.items, cell))


@dataclass(frozen=True)
class Settings:
    """What else decides the figures of a cell."""

    size: str
    threads: int
    max_epochs: int | None

    def to_json(self) -> Metrics:
        return {"threads": self.threads, "max_epochs": self.max_epochs}


class Stopped(Exception):
    """A stage has failed, or the minutes of its cell are over: its name, and why."""


@dataclass(frozen=True)
class Processes:
    """Runs stages one after the other, and stops them when the minutes are over."""

    folder: Path
    threads: int
    ends: float
    """Moment of `time.perf_counter`."""

    def run(self, stage: str, words: Sequence[str], metrics: Metrics) -> None:
        """Adds seconds, CPU seconds and peak memory of a process, and of its parts, to the metrics.

        Raises Stopped where the process did not end well. Its metrics then end in `_at_least`.
        """
        errors, parts = self.folder / f"{stage}.txt", self.folder / f"{stage}.jsonl"
        own = [] if words[0] == "-c" else ["--parts", str(parts)]
        threads = dict.fromkeys(THREAD_VARIABLES, str(self.threads))
        with errors.open("wb") as file:
            begun = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, *words, *own], stdout=subprocess.DEVNULL, stderr=file, cwd=ROOT,
                env={**os.environ, **threads, "PYTHONPATH": str(ROOT)}, start_new_session=True,
            )  # fmt: skip
            timer = threading.Timer(max(0.0, self.ends - begun), _end, (process.pid,))
            timer.start()
            try:
                _, status, usage = os.wait4(process.pid, 0)
            except BaseException:
                _end(process.pid)
                process.wait()
                raise
            finally:
                timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - begun
        suffix = "_at_least" if process.returncode else ""
        metrics |= {
            f"{stage}_seconds{suffix}": seconds,
            f"{stage}_cpu_seconds{suffix}": usage.ru_utime + usage.ru_stime,
            f"{stage}_peak_megabytes{suffix}": usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10),
            **part_metrics(stage, parts),
        }
        if process.returncode:
            if time.perf_counter() >= self.ends:
                raise Stopped(stage, OUT_OF_TIME)
            print(errors.read_text(errors="replace"), end="", file=sys.stderr)
            raise Stopped(stage, f"exit code {process.returncode}")


def _end(process: int) -> None:
    """Kill a process and those it has started, which are in its group."""
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)


def part_metrics(stage: str, path: Path) -> Metrics:
    """The sums of the parts that a stage has written; means for what comes once an epoch, and the number of epochs.

    The sum of refits that were stopped ends in `_at_least`.
    """
    found: dict[str, list[Metrics]] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        row = json.loads(line)
        found.setdefault(f"{stage}_{row['part']}", []).append(row)
    metrics: Metrics = {}
    for name, rows in found.items():
        count = len(rows) if name in AN_EPOCH else 1
        suffix = "_at_least" if name == "fit_refit" and "fit_calibration" not in found else ""
        metrics[f"{name}_seconds{suffix}"] = sum(row["seconds"] for row in rows) / count
        # What writes the parts of the server is its client.
        if stage != "serve":
            metrics[f"{name}_cpu_seconds{suffix}"] = sum(row["cpu_seconds"] for row in rows) / count
            metrics[f"{name}_peak_megabytes{suffix}"] = max(row["peak_megabytes"] for row in rows)
    if stage == "fit":
        metrics["epochs"] = len(found.get("fit_validation", []))
    return metrics


def stages_of(cell: Cell, settings: Settings, log: Path, run: Path) -> Iterator[tuple[str, list[str]]]:
    """The stages of a cell with the words of their processes; those that may take longest come last."""
    of_log = ["--log", str(log), "--size", settings.size]
    if not log.exists():
        numbers = ["--events", str(cell.events), "--items", str(cell.items)]
        yield "simulate", [*_stage("simulate"), "--log", str(log), *numbers]
    epochs = [] if settings.max_epochs is None else ["--max-epochs", str(settings.max_epochs)]
    yield "read", [*_stage("read"), *of_log]
    yield "fit", [*_stage("fit"), *of_log, "--run", str(run), *epochs]
    yield "export", ["-c", CLI, "export", str(run)]
    yield "serve", [*_stage("serve"), "--run", str(run)]
    lists = str(run.with_name("lists.parquet"))
    recommend = ["-c", CLI, "recommend", str(run), "--all-users", "--out", lists, "--ranks-only"]
    if cell.items > EXACT_ITEMS:
        yield "recommend_index", [*recommend, "--approximate", "--workers", str(settings.threads)]
    yield "evaluate", ["-c", CLI, "evaluate", str(run)]
    yield "recommend", recommend


def _stage(name: str) -> list[str]:
    return ["-m", "benchmarks.growth_stages", name]


def measure(cell: Cell, settings: Settings, cache: Path, max_minutes: float) -> Record:
    """The record of a cell."""
    log = cache / f"growth-{cell.events}x{cell.items}.parquet"
    metrics: Metrics = {}
    stopped: Metrics = {"stopped_in": None}
    with tempfile.TemporaryDirectory(prefix="growth-", dir=cache) as folder:
        processes = Processes(Path(folder), settings.threads, time.perf_counter() + 60 * max_minutes)
        try:
            for stage, words in stages_of(cell, settings, log, Path(folder) / "run"):
                processes.run(stage, words, metrics)
                print(f"  {stage:16} {metrics[f'{stage}_seconds']:9.1f} s {metrics[f'{stage}_cpu_seconds']:9.1f} CPU s "
                      f"{metrics[f'{stage}_peak_megabytes']:7.0f} MB", flush=True)  # fmt: skip
        except Stopped as error:
            stopped = dict(zip(("stopped_in", "why"), error.args, strict=True))
            print(f"  stopped in {': '.join(error.args)}", flush=True)
    case = {"events": cell.events, "items": cell.items, "size": settings.size}
    of_cell = settings.to_json() | {"max_minutes": max_minutes} | stopped
    return record_of("growth", case, metrics, seed=SEED, settings=of_cell, threads=settings.threads)


def is_measured(cell: Cell, settings: Settings, max_minutes: float, records: Sequence[Record]) -> bool:
    """Whether a record of this commit has the cell, as a whole or until it was out of at least as many minutes."""
    now = commit()
    case = {"events": cell.events, "items": cell.items, "size": settings.size}

    def has_it(record: Record) -> bool:
        known = record["settings"]
        is_same = settings.to_json().items() <= known.items() and all(record[key] == now[key] for key in now)
        was_out_of_time = known.get("why") == OUT_OF_TIME and known["max_minutes"] >= max_minutes
        return record["case"] == case and is_same and (known["stopped_in"] is None or was_out_of_time)

    return any(record["benchmark"] == "growth" and has_it(record) for record in records)


def run(cells: Sequence[Cell], settings: Settings, cache: Path, max_minutes: float, out: Path) -> None:
    """A record for each cell that has none."""
    check_writable(out)
    cache.mkdir(parents=True, exist_ok=True)
    for cell in cells:
        print(f"{cell.events:,} events x {cell.items:,} items", flush=True)
        if is_measured(cell, settings, max_minutes, read_records(out)):
            print("  is measured already", flush=True)
        else:
            append_records(out, [measure(cell, settings, cache, max_minutes)])


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "growth")
    parser.add_argument("--events", type=int, nargs="+", help=f"by default {' '.join(map(str, EVENTS))}")
    parser.add_argument("--items", type=int, nargs="+", help=f"by default {' '.join(map(str, ITEMS))}")
    parser.add_argument("--cells", nargs="+", default=[], metavar="EVENTSxITEMS", help="cells by name")
    parser.add_argument("--size", default="tiny", choices=("tiny", "small", "medium", "large"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-epochs", type=int, help="to try it; such cells are in no table")
    parser.add_argument("--max-minutes", type=float, default=60.0, help="of a cell")
    parser.add_argument("--cache", type=Path, help="folder where the logs stay; a temporary one otherwise")
    parser.add_argument("--draw", action="store_true", help=f"draw {PICTURE.relative_to(ROOT)} from --out alone")
    given = parser.parse_args(words)

    def work() -> None:
        if given.draw:
            draw(read_records(given.out), PICTURE)
            return
        cells = cells_of(given.events, given.items, given.cells)
        with tempfile.TemporaryDirectory(prefix="variseq-growth-") as folder:
            settings = Settings(given.size, given.threads, given.max_epochs)
            run(cells, settings, given.cache or Path(folder), given.max_minutes, given.out)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
