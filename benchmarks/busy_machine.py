"""Training beside busy processes, with the usual and with our way for threads to wait, into positions a second.

    python benchmarks/busy_machine.py        # on a quiet machine; under four minutes

The same simulated log is trained on by a process of its own for some seconds, beside 0, 1, 2 and 4 processes that only
count. The settings take turns, so that what else the machine does falls on all of them. "before" is what libgomp, the
OpenMP of torch's builds for Linux, does by itself: a thread that waits for the others spins for about three
milliseconds. "now" is what the package sets (`variseq/threads.py`), "one thread" is --threads 1.

The fair share is that of a scheduler which gives each of the threads and busy processes the same part of the cores: of
T threads beside B busy processes on C cores each gets min(1, C / (T + B)) of a core, on a quiet machine min(1, C / T).
So the fair speed is the quiet speed of the same setting times the ratio of the two.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# Before torch, which reads what the package sets.
from variseq.threads import available_cores

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "busy_machine.json"
BUSY = (0, 1, 2, 4)
SPINNING = "300000"
"""What libgomp takes where nothing is set: https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html"""
SETTINGS: dict[str, dict[str, str]] = {
    "before": {"GOMP_SPINCOUNT": SPINNING},
    "now": {},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
OF_OPENMP = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
WARM_UP_SECONDS = 1.0


class Enough(Exception):
    """The time for a measurement is over."""


def train_for(seconds: float) -> dict[str, float]:
    """Positions a second after a warm-up, and the threads used; in this process."""
    import torch

    from variseq.estimator import VariationalAttention
    from variseq.events.simulate import SimulationOptions, simulate
    from variseq.log import read
    from variseq.training.display import Display

    class Stopwatch(Display):
        """Where training stood at the end of the warm-up and at the latest step."""

        begun = time.perf_counter()
        first: tuple[float, float] | None = None
        latest = (0.0, 0.0)

        def advance(self, epoch: int, done: float, positions_per_second: float, seconds_left: float) -> None:
            self.latest = (time.perf_counter(), epoch + done)
            if self.first is None and self.latest[0] - self.begun > WARM_UP_SECONDS:
                self.first = self.latest
            if self.first is not None and self.latest[0] - self.first[0] >= seconds:
                raise Enough

    shoppers = simulate(SimulationOptions(num_users=2000, num_items=500, mean_events=30, seed=0))
    train, valid, _ = read(shoppers.events()).split("leave-one-out")
    stopwatch = Stopwatch(quiet=True)
    stopwatch.begun = time.perf_counter()
    model = VariationalAttention(size="small", training={"max_epochs": 1000})
    with contextlib.suppress(Enough):
        model.fit(train, valid, display=stopwatch)
    assert stopwatch.first is not None
    (begun, first), (ended, last) = stopwatch.first, stopwatch.latest
    positions = (last - first) * train.part.known().num_events
    return {"positions_per_second": positions / (ended - begun), "threads": torch.get_num_threads()}


def count(seconds: float) -> None:
    """Keep a core busy; a limit in case nobody ends this process."""
    ended = time.perf_counter() + seconds
    while time.perf_counter() < ended:
        pass


def measured(setting: str, num_busy: int, seconds: float) -> dict[str, Any]:
    """One measurement in a process of its own, beside busy ones. Raises CalledProcessError where training fails."""
    environment = {name: value for name, value in os.environ.items() if name not in OF_OPENMP}
    environment |= SETTINGS[setting] | {"PYTHONPATH": str(ROOT)}
    spawn = multiprocessing.get_context("spawn")
    busy = [spawn.Process(target=count, args=(60 + 10 * seconds,), daemon=True) for _ in range(num_busy)]
    for process in busy:
        process.start()
    try:
        words = [sys.executable, __file__, "--train", str(seconds)]
        done = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
    finally:
        for process in busy:
            process.terminate()
            process.join()
    return {"setting": setting, "busy": num_busy, **json.loads(done.stdout.splitlines()[-1])}


def fair_share(cores: int, threads: int, busy: int) -> float:
    """What a fair scheduler leaves of the quiet speed: each thread's part of a core beside busy processes and without.

    >>> fair_share(cores=2, threads=2, busy=2)
    0.5
    >>> fair_share(cores=2, threads=1, busy=1)
    1.0
    """
    return min(1.0, cores / (threads + busy)) / min(1.0, cores / threads)


def summary(runs: list[dict[str, Any]], cores: int) -> list[dict[str, Any]]:
    """A row for each setting and number of busy processes: the median speed, and its part of the fair speed."""
    rows = []
    for setting in SETTINGS:
        speeds = {
            busy: [one for one in runs if (one["setting"], one["busy"]) == (setting, busy)]
            for busy in sorted({one["busy"] for one in runs})
        }
        quiet = statistics.median(one["positions_per_second"] for one in speeds[0])
        for busy, found in speeds.items():
            speed = statistics.median(one["positions_per_second"] for one in found)
            threads = int(found[0]["threads"])
            fair = quiet * fair_share(cores, threads, busy)
            rows.append(
                {"setting": setting, "busy": busy, "threads": threads, "positions_per_second": round(speed),
                 "fair_positions_per_second": round(fair), "share_of_fair": round(speed / fair, 3),
                 "runs": [round(one["positions_per_second"]) for one in found]}
            )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    if options.train is not None:
        print(json.dumps(train_for(options.train)))
        return
    from provenance import provenance
    from record_file import write_record

    runs = []
    for _ in range(options.rounds):
        for busy in BUSY:
            for setting in SETTINGS:
                runs.append(measured(setting, busy, options.seconds))
                print(f"{setting:>10} beside {busy}: {runs[-1]['positions_per_second']:8,.0f} positions/s", flush=True)
    rows = summary(runs, available_cores())
    print(f"\n{'setting':>10} {'busy':>5} {'threads':>8} {'positions/s':>12} {'of the fair share':>18}")
    for row in rows:
        shown = (row["setting"], row["busy"], row["threads"], row["positions_per_second"], row["share_of_fair"])
        print("{:>10} {:>5} {:>8} {:>12,} {:>18.0%}".format(*shown))
    write_record(options.out, {**provenance(), "cores": available_cores(), "seconds": options.seconds, "rows": rows})


if __name__ == "__main__":
    main()
