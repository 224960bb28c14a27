"""One format for everything that is measured, the files it is kept in, and the code and machine it was measured with.

A record is one line of JSON:

    benchmark   the name of the table it belongs to, such as "accuracy"
    case        what distinguishes its row: {"data": "amazon-beauty", "model": "variseq"}
    seed        seed of the run; null where nothing is random
    metrics     numbers by name; an interval is [low, high] under "<name>_interval"
    settings    what else decides the numbers
    data        name, hash and counts of the data; {} where none are used
    commit, dirty, date, hardware, versions

A record may have `rows` in place of metrics: by model its metrics. It is read as one record a model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from variseq.errors import InputError, VariseqError

Record = dict[str, Any]
ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
CODE = ("variseq", "benchmarks", "recipes", "measurement")
"""Folders whose uncommitted changes mark a record as dirty; benchmarks/results is left out."""
VERSIONS_OF = ("variseq", "torch", "numpy")
DIGITS = 6
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ONE_THREAD = dict.fromkeys(THREAD_VARIABLES, "1")


def record_of(
    benchmark: str,
    case: dict[str, Any],
    metrics: dict[str, Any],
    *,
    seed: int | None = None,
    settings: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    threads: int | None = None,
) -> Record:
    """A record with its provenance; numbers are rounded to six figures, more than any table shows."""
    return {
        "benchmark": benchmark,
        "case": case,
        "seed": seed,
        "metrics": rounded(metrics),
        "settings": settings or {},
        "data": data or {},
        **commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(threads),
        "versions": {name: found for name in VERSIONS_OF if (found := _version(name))}
        | {"python": platform.python_version()},
    }


def read_records(*paths: Path) -> list[Record]:
    """The records of .jsonl files, or of all in a folder; a missing file has none. Raises InputError."""
    records = []
    for path in paths:
        for file in sorted(path.glob("*.jsonl")) if path.is_dir() else [path] if path.exists() else []:
            try:
                found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
                records += [row for one in found for row in rows_of(one)]
            except ValueError as error:
                raise InputError(f"{file} is damaged ({error}). Remove the line that is no JSON.") from error
    return records


def rows_of(record: Record) -> list[Record]:
    """A record for each of the rows; the seed is that of the model and its forms, as nothing else is random."""
    if "rows" not in record:
        return [record]
    shared, rows = {name: one for name, one in record.items() if name != "rows"}, record["rows"].items()
    return [
        shared
        | {"case": record["case"] | {"model": model}, "metrics": metrics}
        | ({} if model.split(", ")[0] == "variseq" else {"seed": None})
        for model, metrics in rows
    ]


def append_records(path: Path, records: Iterable[Record]) -> None:
    """Add records in one write: all or none. Raises InputError when the file cannot be written."""
    lines = "".join(json.dumps(one, ensure_ascii=False, separators=(",", ":")) + "\n" for one in records).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            before = os.fstat(file.fileno()).st_size
            if file.write(lines) != len(lines):
                file.truncate(before)
                raise OSError("the disk is full")
    except OSError as error:
        raise InputError(f"The records cannot be added to {path}: {error}. Give another file.") from error


def check_writable(path: Path) -> None:
    """Raises InputError, before anything is measured, where no records can be added to this file."""
    folder = next(one for one in (path, *path.absolute().parents) if one.exists())
    if path.suffix != ".jsonl" or path.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"--out {path} cannot be written. Give a .jsonl file in a folder that can be written.")


def rounded(value: Any, digits: int = DIGITS) -> Any:
    """Decimal numbers to so many figures, inside lists and dictionaries too.

    >>> rounded({"ndcg": [0.123456789, 1234.56789], "users": 5000000001})
    {'ndcg': [0.123457, 1234.57], 'users': 5000000001}
    """
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {name: rounded(one, digits) for name, one in value.items()}
    return [rounded(one, digits) for one in value] if isinstance(value, list | tuple) else value


def commit() -> dict[str, str | bool | None]:
    """The commit, and whether code that decides results has changed since; None where there is no repository."""
    changed = _git("status", "--porcelain", "--", *CODE, ":!benchmarks/results")
    return {"commit": _git("rev-parse", "HEAD"), "dirty": None if changed is None else bool(changed)}


def hardware(threads: int | None = None) -> dict[str, str | int | None]:
    """Processor, cores and threads; by default the threads that torch uses where it is loaded."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    if threads is None and "torch" in sys.modules:
        threads = sys.modules["torch"].get_num_threads()
    cpu = names[0] if names else platform.processor() or platform.machine()
    return {"cpu": cpu, "cores": os.cpu_count(), "threads": threads, "system": platform.system()}


def peak_megabytes(process: int | None = None) -> float:
    """The most memory that this process has held so far, or (on Linux) another one, in MB."""
    status = Path(f"/proc/{process or 'self'}/status")
    if status.exists():
        # On Linux getrusage of a child includes its parent's peak; this does not.
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def cpu_seconds_of(process: int) -> float:
    """The CPU time of another process and of those that it has waited for (Linux)."""
    # The name of a process ends at the last parenthesis.
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def child(module: str, *words: str, variables: dict[str, str] | None = None) -> Any:
    """The JSON on the last line that `python -m module words` prints, with these environment variables."""
    done = subprocess.run(
        [sys.executable, "-m", module, *words], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(variables or {})},
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def command_parser(text: str | None, name: str) -> argparse.ArgumentParser:
    """A parser of command lines with --out, by default `benchmarks/results/<name>.jsonl`."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.jsonl", help="file that records are appended to")
    return parser


def exit_code(work: Callable[[], object]) -> int:
    """0, or 2 with one message for a user's mistake, or 130 after Ctrl-C."""
    try:
        work()
    except VariseqError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; records that were finished are kept", file=sys.stderr)
        return 130
    return 0


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
