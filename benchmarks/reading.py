"""Seconds and memory of reading a log larger than memory, compared with a bare DuckDB sort of the same file.

    python -m benchmarks.reading --events 50000000 --memory 1GB --folder FOLDER
    python -m benchmarks.reading --events 10000000 --jobs read prepare dataset spark

makes a Parquet file of simulated events (or takes the one in FOLDER) and runs each job in a process of its own. The job
`dataset` reads what `prepare` has written. The job `spark` needs the extra spark: its CPU seconds are of all processes,
its memory is of the largest one.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb

from measurement.records import (
    append_records,
    child,
    command_parser,
    cpu_seconds_of,
    exit_code,
    peak_megabytes,
    record_of,
)

SEED = 7
JOBS = {
    "read": "variseq.read",
    "sort": "bare DuckDB sort to Parquet",
    "prepare": "variseq prepare",
    "dataset": "variseq.read of the dataset",
    "spark": "variseq prepare, Spark",
}


def make_log(path: Path, num_events: int) -> None:
    """Users and items with a heavy tail, times over a year in whole seconds, three behaviors, rows in order of time.

    All of it follows from a hash of the row number, so the same arguments give the same file.
    """
    draw = "(hash(i * 4 + {part} + {seed} * 1000003) / 18446744073709551616.0)"
    user, item, kind, jump = (draw.format(part=part, seed=SEED) for part in range(4))
    num_users, num_items = max(num_events // 50, 1), max(num_events // 500, 1)
    duckdb.connect(config={"memory_limit": "1GB"}).execute(
        f"""
        COPY (
            SELECT
                CAST(floor({num_users} * pow({user}, 1.5)) AS BIGINT) AS user_id,
                CAST(floor({num_items} * pow({item}, 2.5)) AS BIGINT) AS item_id,
                1700000000 + CAST(i * 31536000.0 / {num_events} + 3600 * {jump} AS BIGINT) AS timestamp,
                CASE WHEN {kind} < 0.8 THEN 'view' WHEN {kind} < 0.95 THEN 'cart' ELSE 'purchase' END AS event
            FROM range({num_events}) AS rows(i)
        ) TO '{str(path).replace("'", "''")}' (FORMAT parquet)
        """
    )


def run_job(job: str, path: Path, memory_limit: str) -> dict[str, Any]:
    """One job in this process: seconds, CPU seconds and peak memory."""
    from variseq import ReadOptions, read
    from variseq.events.read import prepare

    begun = time.perf_counter()
    dataset, others = path.with_suffix(".dataset"), (0.0, 0.0)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        options = ReadOptions(memory_limit=memory_limit, temporary_folder=Path(scratch))
        if job == "read":
            read(path, options=options)
        elif job == "prepare":
            shutil.rmtree(dataset, ignore_errors=True)
            prepare(path, dataset, options)
        elif job == "dataset":
            read(dataset)
        elif job == "spark":
            from variseq.events.spark_session import open_spark

            with open_spark() as session:
                prepare(path, Path(scratch) / "dataset", options, session)
                others = descendants()
        else:
            connection = duckdb.connect(config={"memory_limit": memory_limit, "temp_directory": f"{scratch}/spill"})
            connection.read_parquet(str(path)).order("user_id, timestamp").write_parquet(f"{scratch}/sorted.parquet")
    seconds = time.perf_counter() - begun
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu = usage.ru_utime + usage.ru_stime + others[0]
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_megabytes": max(peak_megabytes(), others[1])}


def descendants() -> tuple[float, float]:
    """CPU seconds of all processes that this one has started, and the peak memory of the largest in MB (Linux)."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    cpu, peak, below = 0.0, 0.0, {os.getpid()}
    while below := {process for process, parent in parents.items() if parent in below}:
        for process in below:
            with suppress(OSError):
                cpu += cpu_seconds_of(process)
                peak = max(peak, peak_megabytes(process))
    return cpu, peak


def measure(num_events: int, jobs: Sequence[str], memory_limit: str, folder: Path | None, out: Path) -> None:
    """A record of each job."""
    with tempfile.TemporaryDirectory(prefix="variseq-benchmark-", dir=folder) as scratch:
        path = (folder or Path(scratch)) / f"log-{num_events}.parquet"
        if not path.exists():
            make_log(path, num_events)
        for job in jobs:
            name = JOBS[job]
            metrics = child("benchmarks.reading", "--job", job, "--file", str(path), "--memory", memory_limit)
            case = {"events": num_events, "job": name}
            settings = {"memory_limit": memory_limit}
            append_records(out, [record_of("reading", case, metrics, seed=SEED, settings=settings)])
            print(f"{name:30} {metrics['seconds']:9.1f} s {metrics['peak_megabytes']:9.0f} MB", flush=True)


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "reading")
    parser.add_argument("--events", type=int, default=50_000_000)
    parser.add_argument("--memory", default="1GB", help="memory limit of the database, for both jobs")
    parser.add_argument("--folder", type=Path, help="an existing folder on a disk with room; the file stays there")
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=["read", "sort"], help="in this order")
    parser.add_argument("--job", choices=list(JOBS), help="run one job on --file and print its numbers")
    parser.add_argument("--file", type=Path)
    given = parser.parse_args(words)
    if given.job:
        print(json.dumps(run_job(given.job, given.file, given.memory)))
        return 0
    return exit_code(lambda: measure(given.events, given.jobs, given.memory, given.folder, given.out))


if __name__ == "__main__":
    sys.exit(main())
