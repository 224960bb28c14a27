"""How long and how much memory `read` takes for a large log, beside a bare DuckDB sort of the same file.

    python benchmarks/events_larger_than_memory.py --events 50000000

makes a Parquet file of simulated events (or takes the one that is there), runs both in processes of their own, prints
one table and writes it to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import duckdb
from record_file import write_record

SEED = 7
RESULTS = Path(__file__).parent / "results"


def make_log(path: Path, num_events: int) -> None:
    """Users and items with a heavy tail, times over a year in whole seconds, three behaviors, rows in order of time.

    All of it follows from a hash of the row number, so that the same arguments give the same file.
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


def run_read(path: Path, scratch: Path, memory_limit: str) -> dict[str, object]:
    from variseq.events.options import ReadOptions
    from variseq.events.read import read

    events = read(path, options=ReadOptions(memory_limit=memory_limit, temporary_folder=scratch))
    return {"num_events": len(events.table), "rejected": events.report.rejected}


def run_bare_sort(path: Path, scratch: Path, memory_limit: str) -> dict[str, object]:
    connection = duckdb.connect(config={"memory_limit": memory_limit, "temp_directory": str(scratch / "spill")})
    target = scratch / "sorted.parquet"
    connection.read_parquet(str(path)).order("user_id, timestamp").write_parquet(str(target))
    target.unlink()
    return {}


JOBS = {"variseq read": run_read, "bare DuckDB sort to Parquet": run_bare_sort}


def measure(job: str, path: Path, scratch: Path, memory_limit: str) -> dict[str, object]:
    """One job in a process of its own, so that its peak memory is its own."""
    command = [
        sys.executable,
        __file__,
        "--job",
        job,
        "--file",
        str(path),
        "--scratch",
        str(scratch),
        "--memory",
        memory_limit,
    ]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {"job": job, **json.loads(output.splitlines()[-1])}


def run_job(arguments: argparse.Namespace) -> None:
    start = time.perf_counter()
    outcome = JOBS[arguments.job](arguments.file, arguments.scratch, arguments.memory)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    outcome |= {
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_megabytes": usage.ru_maxrss // 1024,
    }
    print(json.dumps(outcome))


def circumstances(arguments: argparse.Namespace) -> dict[str, object]:
    here = Path(__file__).parent
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip() if commit.returncode == 0 else "unknown",
        "versions": {name: version(name) for name in ("variseq", "duckdb", "pyarrow", "numpy")}
        | {"python": platform.python_version()},
        "hardware": {"cores": os.cpu_count(), "machine": platform.machine(), "system": platform.system()},
        "num_events": arguments.events,
        "memory_limit": arguments.memory,
        "seed": SEED,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=50_000_000)
    parser.add_argument("--memory", default="1GB", help="memory limit of the database, for both jobs")
    parser.add_argument("--file", type=Path, help="the log: made if it is not there, and then kept")
    parser.add_argument("--scratch", type=Path, help="an existing folder on a disk with room")
    parser.add_argument("--job", choices=list(JOBS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        run_job(arguments)
        return
    with tempfile.TemporaryDirectory(prefix="variseq-benchmark-", dir=arguments.scratch) as scratch:
        path = arguments.file or Path(scratch) / "log.parquet"
        if not path.exists():
            make_log(path, arguments.events)
        rows = [measure(job, path, Path(scratch), arguments.memory) for job in JOBS]
    print(f"{'job':30} {'seconds':>9} {'CPU s':>9} {'peak MB':>9}")
    for row in rows:
        print(f"{row['job']:30} {row['seconds']:>9} {row['cpu_seconds']:>9} {row['peak_megabytes']:>9}")
    target = RESULTS / f"events_larger_than_memory_{arguments.events}.json"
    write_record(target, circumstances(arguments) | {"rows": rows})
    print(f"written to {target}")


if __name__ == "__main__":
    main()
