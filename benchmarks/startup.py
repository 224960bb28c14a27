"""Seconds until the package and its command line are there, and the megabytes that are installed.

    python -m benchmarks.startup        # on a quiet machine; half a minute

Seconds are of the clock, the median of several starts; the first, which reads the files from the disk, does not count.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from measurement.records import ROOT, Record, append_records, command_parser, exit_code, record_of

HELP = "import sys; from variseq.cli import main; sys.argv = ['variseq', '--help']; main()"
JOBS = {"python, nothing else": "pass", "import variseq": "import variseq", "variseq --help": HELP}
"""The second and third include the first."""
PACKAGES = ("torch", "numpy", "scipy", "duckdb", "pyarrow", "pandas", "onnxruntime")


def start_records(repeats: int) -> list[Record]:
    """A record for each job."""
    records = []
    for name, program in JOBS.items():
        taken = []
        for _ in range(repeats + 1):
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
            taken.append(time.perf_counter() - begun)
        metrics = {"seconds": statistics.median(taken[1:]), "seconds_interval": [min(taken[1:]), max(taken[1:])]}
        print(f"{name:24} {metrics['seconds']:.3f} s")
        records.append(record_of("startup", {"what": name}, metrics))
    return records


def size_records() -> list[Record]:
    """The size on disk of the package's own files, and of the largest of its requirements that are installed."""
    own = sum(path.stat().st_size for path in (ROOT / "variseq").rglob("*") if "__pycache__" not in path.parts)
    sizes = {"variseq": own}
    for package in PACKAGES:
        try:
            paths = [Path(str(file.locate())) for file in files(package) or []]
        except PackageNotFoundError:
            continue
        sizes[package] = sum(path.stat().st_size for path in paths if path.is_file())
    return [record_of("installed_size", {"package": name}, {"megabytes": size / 1e6}) for name, size in sizes.items()]


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "startup")
    parser.add_argument("--repeats", type=int, default=15)
    given = parser.parse_args(words)
    return exit_code(lambda: append_records(given.out, [*start_records(given.repeats), *size_records()]))


if __name__ == "__main__":
    sys.exit(main())
