"""Finished runs into a deletion test of their reasons: what an item loses without what was named, and without others.

    python benchmarks/reasons.py runs/first [runs/second ...] [--part test] [--users 1000]

The three best items of up to 1,000 users of the part are asked for their reasons; what was named is dropped from the
history, and log p of the item under the whole forecast is compared with before. Controls drop as many items: at random,
and the latest ones. `attention` names what the decoder's attention weighted most, for comparison. Then the first,
second and third reason are each dropped alone. Each run is one line at the end of results/reasons.jsonl.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from provenance import ROOT, provenance
from record_file import append_records

from variseq.estimator import VariationalAttention, load
from variseq.evaluation.splits import Part
from variseq.model.attended import attention_over_events
from variseq.recommend.because import NUM_REASONS, Reasons, reasons
from variseq.recommend.faithfulness import Deletions, NameItems, deletion_test, deletions
from variseq.recommend.forecast import Forecast, log_probability_at_the_mean
from variseq.recommend.recommender import rank_items
from variseq.recommend.wishes import Wish
from variseq.sequences.histories import Histories

NUM_ITEMS_ASKED = 3
NUM_ITEMS_TIMED = 10
SEED = 0
Record = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """A forecast, the histories that it is asked about, and what may be recommended."""

    forecast: Forecast
    histories: Histories
    num_items: int
    exclude_seen: bool

    def best(self, k: int) -> Int[np.ndarray, "history k"]:
        """The k best items of each history."""
        return rank_items(self.forecast, self.histories, Wish(self.num_items, k, self.exclude_seen)).item

    def reasons(self, histories: Histories, items: Int[np.ndarray, "history k"]) -> Reasons:
        """As `recommend` gives them."""
        return reasons(log_probability_at_the_mean(self.forecast), histories, items)

    def most_attention(self, histories: Histories, items: Int[np.ndarray, "history k"]) -> Reasons:
        """The items whose events have the most attention weight: the same for all recommended ones."""
        named = []
        weights = attention_over_events(self.forecast.network, histories)
        for start, weight in zip(histories.offsets[:-1], weights, strict=True):
            order = start + np.argsort(-weight, kind="stable")[: np.count_nonzero(weight)]
            of_history = list(dict.fromkeys(histories.item[order].tolist()))[:NUM_REASONS]
            named.append([of_history] * items.shape[1])
        return named


def asked_of(model: VariationalAttention, part: Part, num_users: int) -> Asked:
    """The history before the last target of each user of the part, of a sample where there are more users."""
    checkpoint = model.checkpoint
    assert checkpoint is not None
    queries = part.queries("last")
    sample = np.sort(np.random.default_rng(SEED).permutation(len(queries))[:num_users])
    user, position = queries.user[sample], queries.position[sample]
    histories = part.histories.select(part.histories.offsets[user], position)
    return Asked(
        model._forecast(), histories, checkpoint.vocabulary.num_items, checkpoint.config["training"]["exclude_seen"]
    )


def tests_of(asked: Asked) -> Record:
    """The deletion test of `because` and of attention; and of each reason alone the fall and how often there is one."""
    items = asked.best(NUM_ITEMS_ASKED)
    named = asked.reasons(asked.histories, items)

    def found(name_items: NameItems) -> Deletions:
        return deletions(asked.forecast, asked.num_items, asked.histories, items, name_items, SEED)

    def alone(rank: int) -> Deletions:
        return found(lambda *_: [[of_item[rank : rank + 1] for of_item in of_items] for of_items in named])

    single = [falls for rank in range(NUM_REASONS) if len((falls := alone(rank)).user)]
    ways = {"because": found(lambda *_: named), "attention": found(asked.most_attention)}
    return {
        "tests": {way: asdict(deletion_test(falls, SEED)) for way, falls in ways.items()},
        "alone": [
            {"fall": float(falls.named.mean()), "share_lowered": float((falls.named > 0).mean())} for falls in single
        ],
    }


def milliseconds_per_user(asked: Asked) -> dict[str, float]:
    """What ranking ten items costs a user, and what their reasons cost on top: time of one core, all users at once."""
    items = asked.best(NUM_ITEMS_TIMED)

    def timed(work: Callable[[], object]) -> float:
        begun = time.process_time()
        work()
        return (time.process_time() - begun) / len(asked.histories) * 1e3

    works: dict[str, Callable[[], object]] = {
        "ranking": lambda: asked.best(NUM_ITEMS_TIMED),
        "reasons": lambda: asked.reasons(asked.histories, items),
    }
    return {name: min(timed(work) for _ in range(3)) for name, work in works.items()}


def record_of(folder: Path, part_name: str, num_users: int) -> Record:
    """What is written down of a run."""
    model = load(folder, device="cpu")
    assert model.checkpoint is not None
    part = {part.name: part for part in model._split()}[part_name]
    asked = asked_of(model, part, num_users)
    return {
        **provenance(),
        "run": folder.name,
        "run_seed": model.seed,
        "protocol": part.protocol,
        "part": part_name,
        "num_users": len(asked.histories),
        "items_per_user": NUM_ITEMS_ASKED,
        "seed": SEED,
        "milliseconds_per_user": milliseconds_per_user(asked),
        **tests_of(asked),
    }


def print_table(record: Record) -> None:
    """A row for each way of naming; falls in nats."""
    cost = record["milliseconds_per_user"]
    print(
        f"{record['run']}, {record['part']}: {record['num_users']} users, {record['items_per_user']} items each; "
        f"ranking {cost['ranking']:.2f} ms a user, reasons {cost['reasons']:.2f} ms"
    )
    print(f"{'':10} {'named':>7} {'random':>7} {'latest':>7}  over random (95 %), p          over latest (95 %), p")
    for way, row in record["tests"].items():
        against = "  ".join(
            f"{found['difference']:+.3f} ({found['interval'][0]:+.3f} to {found['interval'][1]:+.3f}), "
            f"{found['p_value']:.4f}"
            for found in (row["over_random"], row["over_latest"])
        )
        print(
            f"{way:10} {row['named']:+7.3f} {row['random']:+7.3f} {row['latest']:+7.3f}  {against}  "
            f"{row['mean_named']:.2f} named for {row['share_named']:.1%}, lowered {row['share_lowered']:.1%}"
        )
    for rank, row in enumerate(record["alone"], start=1):
        print(f"reason {rank} alone: {row['fall']:+.3f}, lowered {row['share_lowered']:.1%}")


def main() -> None:
    """Test each run, print and write down what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--part", choices=("valid", "test"), default="test")
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "reasons.jsonl")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for folder in chosen.runs:
        record = record_of(folder, chosen.part, chosen.users)
        print_table(record)
        append_records(chosen.out, [record])


if __name__ == "__main__":
    main()
