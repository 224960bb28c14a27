"""How near an index comes to looking at the whole catalog, on vectors that were really trained, and what it saves.

    python benchmarks/serving/index.py RUN [RUN ...] [--users 500]

For each run: an index as exports of large catalogs get it, whatever the size of this one; users are answered with and
without it, in turns. Recall is the share of the exact list that is in the other; errors are of log p of items in both.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from provenance import provenance
from record_file import write_record

from variseq.export import export
from variseq.inference.engine import Engine, KnownHistory
from variseq.inference.index import NUM_CANDIDATES, NUM_SAMPLED, PROBED_LISTS, ItemIndex, build_index
from variseq.inference.question import Answer, Question
from variseq.model.checkpoint import load_checkpoint

RESULT = Path(__file__).parents[1] / "results" / "serving_index.json"
K = 10
AT_ONCE = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    rows = [measured(run, arguments.users) for run in arguments.runs]
    facts = {"candidates": NUM_CANDIDATES, "sampled": NUM_SAMPLED, "probed_lists": PROBED_LISTS, "k": K}
    write_record(arguments.out, {**provenance(), **facts, "rows": rows})
    for row in rows:
        print(json.dumps(row))


def measured(run: Path, num_users: int) -> dict[str, object]:
    """One row: how much of the exact lists is found, how far probabilities are off, and the ratio of times."""
    with tempfile.TemporaryDirectory() as folder:
        exact = Engine.load(export(run, Path(folder) / "model"), exact=True)
        near = Engine.load(Path(folder) / "model", exact=True)
        vectors = near.lists.forecast.vectors
        build_index(vectors, Path(folder) / "index.faiss")
        near.lists.index = ItemIndex(Path(folder) / "index.faiss", vectors)
        histories = some_histories(run, exact, num_users)
        pairs, seconds = in_turns(exact, near, histories)
    recall = [len(ids(one) & ids(other)) / max(1, len(ids(one))) for one, other in pairs]
    first = [one.recommendations[0].item_id == other.recommendations[0].item_id for one, other in pairs]
    error = np.array([gap for one, other in pairs for gap in log_gaps(one, other)])
    entropy = np.array([abs(one.total - other.total) for one, other in pairs])
    return {
        "run": exact.bundle.facts.health["protocol"].get("split_hash", "")[:12],
        "items": len(vectors),
        "users": len(pairs),
        "recall_at_10": round(float(np.mean(recall)), 4),
        "same_first_item": round(float(np.mean(first)), 4),
        "median_error_of_log_p": round(float(np.median(np.abs(error))), 5),
        "99th_error_of_log_p": round(float(np.quantile(np.abs(error), 0.99)), 4),
        "bias_of_log_p": round(float(error.mean()), 5),
        "median_error_of_entropy": round(float(np.median(entropy)), 4),
        "cpu_time_exact_over_index": round(seconds[0] / seconds[1], 2),
    }


def some_histories(run: Path, engine: Engine, num_users: int) -> list[KnownHistory]:
    """The histories of users spread over the run."""
    checkpoint = load_checkpoint(run)
    assert checkpoint.histories is not None
    chosen = np.unique(np.linspace(0, len(checkpoint.histories) - 1, num_users).astype(int))
    ids = engine.catalog.ids
    return [engine.given([ids[item] for item in checkpoint.histories.history(int(u)).item]) for u in chosen]


def in_turns(
    exact: Engine, near: Engine, histories: list[KnownHistory]
) -> tuple[list[tuple[Answer, Answer]], list[float]]:
    """Both engines' answers, some users at a time, now the one first and now the other; CPU seconds of each."""
    pairs: list[tuple[Answer, Answer]] = []
    seconds = [0.0, 0.0]
    for turn, begin in enumerate(range(0, len(histories), AT_ONCE)):
        asked = [(history, Question(k=K)) for history in histories[begin : begin + AT_ONCE]]
        found: list[list[Answer]] = [[], []]
        for which in (0, 1) if turn % 2 else (1, 0):
            start = time.process_time()
            answers = (exact, near)[which].answer(asked)
            seconds[which] += time.process_time() - start
            found[which] = [answer for answer in answers if isinstance(answer, Answer)]
        pairs += zip(*found, strict=True)
    return pairs, seconds


def ids(answer: Answer) -> set[object]:
    return {one.item_id for one in answer.recommendations}


def log_gaps(one: Answer, other: Answer) -> list[float]:
    """log p of the index less that of the whole, of items in both lists."""
    there = {r.item_id: r.probability for r in other.recommendations}
    return [float(np.log(there[r.item_id] / r.probability)) for r in one.recommendations if r.item_id in there]


if __name__ == "__main__":
    main()
