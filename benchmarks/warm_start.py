"""A fit that goes on from an earlier run beside one from nothing, on the same newer log: seconds and test figures.

    python benchmarks/warm_start.py LOG --name ml-100k --seeds 0,1,2 --size tiny --set training.max_epochs=20
    python benchmarks/warm_start.py --table      # only prints the table of the last result

LOG is one file of events with times. The earlier run learns from all of the first events (--share of them, by time).
The whole log is then split by time (80, 10 and 10 %), and two models are fitted on it: one goes on from the earlier run
with 0.3 of the epochs, one begins from nothing. Both are judged on every event of the same test part (a mean for each
user first), which the earlier run has never seen, and paired by user. Seconds are those of training alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from provenance import provenance
from record_file import Record, exit_code, write_record

from variseq.errors import InputError
from variseq.estimator import VariationalAttention
from variseq.log import Log, read
from variseq.terminal.run_config import RunConfig, run_config
from variseq.training.display import Display
from variseq.training.warm_start import EPOCHS_SHARE

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "recipes"))
from data_files import sha256_of  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "warm_start.json"
QUIET = Display(quiet=True)
WARM, NOTHING = "from the earlier run", "from nothing"


def first_events(log: Log, share: float) -> pa.Table:
    """The events before the time that a share of them lies before."""
    histories, vocabulary = log.histories, log.vocabulary
    time = histories.timestamp
    cut = np.sort(time)[round(share * len(time))]
    user = np.repeat(np.arange(len(histories)), histories.lengths)
    earlier = time < cut
    columns = {
        "user_id": vocabulary.users.take(pa.array(user[earlier])),
        "item_id": vocabulary.items.take(pa.array(histories.item[earlier])),
        "timestamp": pa.array(time[earlier]),
        "value": pa.array(histories.value[earlier]),
        "event": pa.array(np.array(vocabulary.behaviors)[histories.behavior[earlier]]),
    }
    if not np.isfinite(histories.value).any():
        del columns["value"]
    return pa.table(columns)


def measured(log: Log, earlier_log: Log, config: RunConfig, seed: int) -> Record:
    """The figures of both models for one seed."""

    def model(training: dict[str, Any] = config.training) -> VariationalAttention:
        return VariationalAttention(config.size, seed, "cpu", config.model, training)

    old_train, old_valid, _ = earlier_log.split("time", test="none")
    earlier = model().fit(old_train, old_valid, display=QUIET)
    train, valid, test = log.split("time")
    fewer = (
        {"max_epochs": round(EPOCHS_SHARE * config.training["max_epochs"])} if "max_epochs" in config.training else {}
    )
    warm = model(config.training | fewer).fit(train, valid, display=QUIET, start=earlier)
    cold = model().fit(train, valid, display=QUIET)
    # All events of the test part: with the last ones alone its few users would say little.
    results = warm.evaluate(test, targets="successive", beside={NOTHING: cold})
    rows = {WARM: results.row("variseq"), NOTHING: results.row(NOTHING)}
    return {
        "seed": seed,
        "seconds": {WARM: _seconds(warm), NOTHING: _seconds(cold), "the earlier run": _seconds(earlier)},
        "epochs": {WARM: _epochs(warm), NOTHING: _epochs(cold)},
        **{name: {row: round(rows[row][name], 5) for row in rows} for name in ("ndcg@10", "nll")},
        "differences": [
            {name: one[name] for name in ("metric", "difference", "interval", "p_value", "num_users")}
            for one in results.table["comparisons"]
        ],
    }


def table(record: Record) -> str:
    """Means over seeds, as Markdown."""
    lines = ["| | seconds | NDCG@10 | NLL |", "|---|---:|---:|---:|"]
    for name in (NOTHING, WARM):
        seconds, ndcg, nll = (
            statistics.mean(one[key][name] for one in record["seeds"]) for key in ("seconds", "ndcg@10", "nll")
        )
        lines.append(f"| {name} | {seconds:.0f} | {ndcg:.4f} | {nll:.3f} |")
    return "\n".join(lines)


def _seconds(model: VariationalAttention) -> float:
    assert model.checkpoint is not None
    seconds: float = model.checkpoint.manifest["seconds"]
    return seconds


def _epochs(model: VariationalAttention) -> int:
    assert model.checkpoint is not None
    return len(model.checkpoint.metrics)


def _record(asked: Any) -> Record:
    config = run_config(None, {"size": asked.size}, asked.settings)
    log = read(asked.log, options=config.read)
    earlier_log = read(first_events(log, asked.share))
    record: Record = {
        "data": {
            "name": asked.name or asked.log.name,
            "sha256": sha256_of(asked.log),
            "num_events": log.report.num_events,
            "num_earlier_events": earlier_log.report.num_events,
            "num_new_users": log.report.num_users - earlier_log.report.num_users,
            "num_new_items": log.report.num_items - earlier_log.report.num_items,
        },
        "settings": {"size": config.size, "model": config.model, "training": config.training, "share": asked.share},
        **provenance(),
        "seeds": [],
    }
    for seed in asked.seeds:
        record["seeds"].append(measured(log, earlier_log, config, seed))
        print(record["seeds"][-1], flush=True)
        write_record(asked.out, record)
    return record


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path, nargs="?", metavar="LOG")
    parser.add_argument("--name", help="the data set, as the record names it")
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[0])
    parser.add_argument("--share", type=float, default=0.7, help="of the events, those of the earlier run")
    parser.add_argument("--size", default="small")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--table", action="store_true", help="only print the table")
    asked = parser.parse_args(words)
    torch.set_num_threads(1)

    def work() -> None:
        if asked.table:
            print(table(json.loads(asked.out.read_text(encoding="utf-8"))))
            return
        if asked.log is None or not 0 < asked.share < 0.8:
            raise InputError("Give a LOG, and a --share above 0 and below 0.8 (what is left is validation and test).")
        print(table(_record(asked)))

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
