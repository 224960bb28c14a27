"""The simulated log of `benchmarks.growth`, and the stages that it runs in processes of their own.

    python -m benchmarks.growth_stages fit --log LOG --run RUN --parts PARTS --size tiny

does what `variseq fit` does and adds a line to PARTS, a JSON-lines file, whenever a part of the stage ends. So the
parts of a process that was stopped are known too.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from measurement.records import peak_megabytes
from variseq.atomic import atomic_write
from variseq.training.callbacks import TrainingCallback

SEED = 0
MEAN_LENGTH, LENGTH_SPREAD, LENGTHS = 20.0, 1.0, (3, 1_000)
"""Lengths of histories are log-normal with this mean and standard deviation of the logarithm, within these limits."""
ZIPF_OFFSET = 10
FOLLOW_SHARE, NUM_SUCCESSORS = 0.4, 3
FIRST_SECOND, YEAR_SECONDS = 1_700_000_000, 365 * 86_400
NUM_RANKED = 10


def simulated_events(num_events: int, num_items: int) -> dict[str, np.ndarray]:
    """The columns user, item and second of a log in which each item occurs, in the order of time.

    A share `FOLLOW_SHARE` of the events is a successor of the event before. The others are drawn by popularity (Zipf),
    except one for each item. In a log with fewer than two events per item, some items may have no event.
    """
    random = np.random.default_rng(SEED)
    mean = np.log(MEAN_LENGTH) - LENGTH_SPREAD**2 / 2
    drawn = random.lognormal(mean, LENGTH_SPREAD, int(2 * num_events / MEAN_LENGTH) + 10)
    lengths = np.clip(np.rint(drawn), *LENGTHS).astype(np.int64)
    end = np.minimum(np.cumsum(lengths), num_events)
    end = end[: int(np.searchsorted(end, num_events)) + 1]
    user = np.repeat(np.arange(len(end)), np.diff(end, prepend=0))
    follows = random.random(num_events) < FOLLOW_SHARE
    follows[0] = False
    follows[end[:-1]] = False

    fresh = np.flatnonzero(~follows)
    share = np.cumsum(1 / (ZIPF_OFFSET + np.arange(num_items)))
    by_popularity = random.permutation(num_items)
    item = np.empty(num_events, dtype=np.int64)
    item[fresh] = by_popularity[np.searchsorted(share, random.random(len(fresh)) * share[-1])]
    once = random.permutation(num_items)[: len(fresh)]
    item[random.choice(fresh, len(once), replace=False)] = once

    successor = np.stack([random.permutation(num_items) for _ in range(NUM_SUCCESSORS)])
    chosen = random.integers(0, NUM_SUCCESSORS, num_events)
    event = np.arange(num_events)
    steps = event - np.maximum.accumulate(np.where(follows, 0, event))
    for step in range(1, int(steps.max()) + 1):
        at = np.flatnonzero(steps == step)
        item[at] = successor[chosen[at], item[at - 1]]

    second = FIRST_SECOND + random.integers(0, YEAR_SECONDS, num_events)
    second = second[np.lexsort((second, user))]
    in_time = np.argsort(second, kind="stable")
    return {"user": user[in_time], "item": item[in_time], "second": second[in_time]}


def user_id(user: int) -> str:
    """The id of a simulated user."""
    return f"u{user:07}"


def write_log(path: Path, num_events: int, num_items: int) -> None:
    """The simulated log as Parquet, with ids that are text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    events = simulated_events(num_events, num_items)
    users = pa.array([user_id(user) for user in range(int(events["user"].max()) + 1)])
    items = pa.array([f"i{item:06}" for item in range(num_items)])
    columns = {
        "user_id": users.take(pa.array(events["user"])),
        "item_id": items.take(pa.array(events["item"])),
        "timestamp": pa.array(events["second"]),
    }
    with atomic_write(path) as unfinished:
        pq.write_table(pa.table(columns), unfinished)


class Parts:
    """Writes what each part of a stage took since the part before it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds, self.cpu_seconds = time.perf_counter(), time.process_time()

    def end(self, part: str) -> None:
        """A part ends now, and the next one begins."""
        seconds, cpu_seconds = time.perf_counter(), time.process_time()
        line = {
            "part": part,
            "seconds": seconds - self.seconds,
            "cpu_seconds": cpu_seconds - self.cpu_seconds,
            "peak_megabytes": peak_megabytes(),
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.seconds, self.cpu_seconds = seconds, cpu_seconds


class FitParts(TrainingCallback):
    """Ends a part of a fit where the training ends it; the state of an epoch is saved in the part after it."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.is_refit = parts, False

    def on_refit(self, number: int, num_refits: int) -> None:
        self.is_refit = True
        self.parts.end("refit")

    def on_begin(self, num_epochs: int) -> None:
        self.parts.end("refit" if self.is_refit else "preparation")

    def on_batch(self, epoch: int, done: float, tokens_per_second: float, seconds_left: float) -> None:
        if done == 1:
            self.parts.end("refit" if self.is_refit else "epoch")

    def on_epoch(self, record: dict[str, Any]) -> None:
        self.parts.end("refit" if self.is_refit else "validation")


def read_stage(given: argparse.Namespace, parts: Parts) -> None:
    """Read and split the log, and derive the settings from its properties."""
    from variseq import VariationalAttention, read

    parts.end("import")
    log = read(given.log)
    parts.end("log")
    train, _, _ = log.split()
    parts.end("split")
    VariationalAttention(given.size, device="cpu").settings(train)
    parts.end("settings")


def fit_stage(given: argparse.Namespace, parts: Parts) -> None:
    """What `variseq fit` does, with the parts of it."""
    from variseq import VariationalAttention, read

    training = {} if given.max_epochs is None else {"max_epochs": given.max_epochs}
    parts.end("import")
    log = read(given.log)
    print(log.check())
    parts.end("log")
    train, valid, _ = log.split()
    parts.end("split")
    model = VariationalAttention(given.size, device="cpu", training=training)
    model.fit(train, valid, given.run, callback=FitParts(parts))
    parts.end("calibration")
    results = model.evaluate(k=min(NUM_RANKED, model.vocabulary.num_items))
    results.to_json(given.run / "evaluation.json")
    print(results)
    parts.end("evaluation")


def serve_stage(given: argparse.Namespace, parts: Parts) -> None:
    """Start `variseq serve` with an empty store, into which it imports all histories, and answer one request."""
    from benchmarks.serving import HOST, server

    with server(given.run, core=None, start_seconds=given.start_seconds) as port:
        parts.end("start")
        body = json.dumps({"user_id": user_id(0), "k": NUM_RANKED}).encode()
        headers = {"Content-Type": "application/json"}
        asked = urllib.request.Request(f"http://{HOST}:{port}/v1/recommend", body, headers)
        urllib.request.urlopen(asked, timeout=600).close()
        parts.end("answer")


STAGES: dict[str, Callable[[argparse.Namespace, Parts], None]] = {
    "simulate": lambda given, _: write_log(given.log, given.events, given.items),
    "read": read_stage,
    "fit": fit_stage,
    "serve": serve_stage,
}


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=list(STAGES))
    parser.add_argument("--log", type=Path, help="Parquet file of the log")
    parser.add_argument("--run", type=Path, help="folder of the run")
    parser.add_argument("--parts", type=Path, required=True, help="file that the parts are added to")
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--max-epochs", type=int)
    parser.add_argument("--events", type=int, help="of the simulated log")
    parser.add_argument("--items", type=int, help="of the simulated log")
    parser.add_argument("--start-seconds", type=float, default=3600.0, help="for the start of the server")
    given = parser.parse_args(words)
    STAGES[given.stage](given, Parts(given.parts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
