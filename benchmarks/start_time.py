"""The package and its command line, each in a process of its own, into the seconds until they are there.

    python benchmarks/start_time.py        # on a quiet machine; half a minute

Seconds are of the clock, the median of several starts; the first, which reads the files from the disk, does not count.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from provenance import provenance
from record_file import write_record

RESULT = Path(__file__).parent / "results" / "start_time.json"
JOBS = {
    "python, nothing else": ["-c", "pass"],
    "import variseq": ["-c", "import variseq"],
    "variseq --help": ["-c", "import sys; from variseq.cli import main; sys.argv = ['variseq', '--help']; main()"],
}
"""The second and third hold the first."""


def seconds_of(words: list[str], repeats: int) -> list[float]:
    """Of each start but the first. Raises CalledProcessError for one that fails."""
    taken = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - begun)
    return taken[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    rows = []
    for name, words in JOBS.items():
        taken = seconds_of(words, arguments.repeats)
        row = {"job": name, "seconds": statistics.median(taken), "fastest": min(taken), "slowest": max(taken)}
        print(f"{name:24} {row['seconds']:.3f} s ({row['fastest']:.3f} to {row['slowest']:.3f})")
        rows.append(row)
    write_record(arguments.out, {**provenance(), "rows": rows})


if __name__ == "__main__":
    main()
