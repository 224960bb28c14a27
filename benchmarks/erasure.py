"""Whether people are recognized in a run, before and after they are erased.

    python -m benchmarks.erasure ml-100k DATA

People who do not exist are added to a log, with random items each; as many more are drawn and not added. Two attacks
tell the two apart, by all events that the run has learned from:

- forecast: the mean −log p of the events, as `recommend` forecasts them.
- counts: the share of transitions that the run has counted.

A true-positive rate is that at a false-positive rate of 5 %. Chance gives 0.05, and an AUC of 0.5 with a standard error
of 0.026 for 250 people.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from measurement.datasets import LoadedDataset, load_dataset
from measurement.records import Record, append_records, check_writable, command_parser, exit_code, record_of
from variseq import VariationalAttention, read
from variseq.artifacts.checkpoint import Checkpoint
from variseq.erasure import fit_again, without_users
from variseq.evaluation.splits import Queries, split_at
from variseq.output.progress import ProgressPrinter
from variseq.recommend.network_model import ModelRecommender, mixture_model
from variseq.sequences.histories import Histories
from variseq.training.run import RunContext

NUM_EVENTS = 20
FIRST_ID = 10_000_000
FALSE_POSITIVES = 0.05
TRAINING = {"max_epochs": 6, "patience": 6}


def people(num_people: int, num_items: int, span: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Items, all different, and ascending times of people who do not exist."""
    generator = np.random.default_rng(seed)
    items = np.stack([generator.permutation(num_items)[:NUM_EVENTS] for _ in range(num_people)])
    return items, np.sort(generator.integers(*span, size=items.shape), axis=1)


def log_with(dataset: LoadedDataset, items: np.ndarray, times: np.ndarray) -> pa.Table:
    """The events of a log, and those of more people."""
    histories, vocabulary = dataset.log.histories, dataset.log.vocabulary
    users = np.repeat(vocabulary.users.to_numpy(), histories.lengths)
    added = np.repeat(FIRST_ID + np.arange(len(items)), NUM_EVENTS)
    return pa.table(
        {
            "user_id": np.concatenate([users, added]),
            "item_id": np.array(vocabulary.item_ids(np.concatenate([histories.item, items.ravel()]))),
            "timestamp": np.concatenate([histories.timestamp, times.ravel()]) // 1_000_000,
        }
    )


def scores(checkpoint: Checkpoint, items: np.ndarray, times: np.ndarray) -> dict[str, np.ndarray]:
    """How much each person looks like one that the run has learned from; the last event is that of the test part."""
    known = items[:, :-1]
    histories = Histories.of_items(known.tolist())
    histories = Histories(histories.offsets, histories.item, histories.behavior, times[:, :-1].ravel(), histories.value)
    ends = histories.offsets[1:]
    part = split_at(histories, histories.offsets[:-1] + 1, ends, checkpoint.vocabulary.num_items, {})[1]
    queries: Queries = part.queries("all")
    model = mixture_model(checkpoint.network, checkpoint.counts, checkpoint.calibrated.calibration)
    log_p = ModelRecommender(model).scores(part.histories_before(queries))
    target = torch.from_numpy(histories.item[queries.position].astype(np.int64))
    of_target = log_p[torch.arange(len(target)), target].numpy().reshape(len(items), -1)
    offsets, follower = checkpoint.counts["offsets"].numpy(), checkpoint.counts["item"].numpy()
    num_items = len(offsets) - 1
    cells = np.repeat(np.arange(num_items), np.diff(offsets)) * num_items + follower
    pairs = known[:, :-1] * num_items + known[:, 1:]
    return {"forecast": of_target.mean(axis=1), "counts": np.isin(pairs, cells).mean(axis=1)}


def attack(inside: np.ndarray, outside: np.ndarray) -> dict[str, float]:
    """AUC, and the true-positive rate where `FALSE_POSITIVES` of those outside score higher."""
    above = inside[:, None] > outside
    equal = inside[:, None] == outside
    threshold = np.quantile(outside, 1 - FALSE_POSITIVES, method="higher")
    return {"auc": float((above + equal / 2).mean()), "true_positives": float((inside > threshold).mean())}


def records_of(dataset: LoadedDataset, num_people: int, seed: int) -> list[Record]:
    """The records of both attacks, before and after the erasure."""
    histories, num_items = dataset.log.histories, dataset.log.vocabulary.num_items
    span = int(histories.timestamp.min()), int(histories.timestamp.max())
    drawn = [people(num_people, num_items, span, 2 * seed + number) for number in (0, 1)]
    train, valid, _ = read(log_with(dataset, *drawn[0])).split("leave-one-out")
    before = VariationalAttention("tiny", seed, "cpu", training=TRAINING).fit(train, valid).checkpoint
    assert before is not None
    users = np.flatnonzero(before.vocabulary.users.to_numpy() >= FIRST_ID)
    counted = without_users(before, users)
    refitted = fit_again(counted, RunContext(torch.device("cpu"), ProgressPrinter(verbose=0)))
    records = []
    for state, checkpoint in (("before", before), ("erased, no refit", counted), ("after the refit", refitted)):
        inside, outside = (scores(checkpoint, *one) for one in drawn)
        for name in inside:
            metrics = attack(inside[name], outside[name])
            case = {"data": dataset.description["name"], "state": state, "attack": name}
            settings = {"size": "tiny", "num_people": num_people, "num_events": NUM_EVENTS, **TRAINING}
            record = record_of("erasure", case, metrics, seed=seed, settings=settings, data=dataset.description)
            records.append(record)
            print(f"{state}, {name}: AUC {metrics['auc']:.3f}, {metrics['true_positives']:.3f}", flush=True)
    return records


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "erasure")
    parser.add_argument("name", metavar="NAME", help="a data set of the recipes")
    parser.add_argument("data", type=Path, metavar="DATA", help="its folder")
    parser.add_argument("--people", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(words)

    def work() -> None:
        check_writable(given.out)
        append_records(given.out, records_of(load_dataset(given.name, given.data), given.people, given.seed))

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
