"""What the encoder of 8-bit weights loses and gains beside that of 32, on runs that were really trained.

    python benchmarks/serving/small_encoder.py RUN [RUN ...] [--users 2000]

The last event of each user is hidden and looked for in the list (runs split leave-one-out have not learned from it).
Both encoders answer the same users in turns. Writes benchmarks/results/serving_small_encoder.json.
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
from variseq.inference.question import Answer, Question
from variseq.model.checkpoint import load_checkpoint

RESULT = Path(__file__).parents[1] / "results" / "serving_small_encoder.json"
AT_ONCE, K = 32, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    rows = [measured(run, arguments.users) for run in arguments.runs]
    write_record(arguments.out, {**provenance(), "k": K, "rows": rows})
    for row in rows:
        print(json.dumps(row))


def measured(run: Path, num_users: int) -> dict[str, object]:
    """NDCG@10 of both, how many lists are the same, and the ratio of encoding times."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Engine.load(export(run, Path(folder) / "plain"), exact=True)
        small = Engine.load(export(run, Path(folder) / "small", small=True), exact=True)
        sizes = [engine.bundle.encoder.stat().st_size for engine in (plain, small)]
        facts = plain.bundle.facts
        asked, targets = queries(run, plain, num_users)
        gains, same, first, seconds = in_turns((plain, small), asked, targets)
    difference = gains[1] - gains[0]
    error = 1.96 * float(difference.std() / np.sqrt(len(difference)))
    return {
        "run": facts.health["protocol"].get("split_hash", "")[:12],
        "items": plain.vocabulary.num_items,
        "users": len(targets),
        "ndcg_at_10": round(float(gains[0].mean()), 5),
        "ndcg_at_10_small": round(float(gains[1].mean()), 5),
        "difference": [round(float(difference.mean()), 5), round(error, 5)],
        "shared_of_the_list": round(same, 4),
        "same_first_item": round(first, 4),
        "encoding_time_small_over_plain": round(seconds[1] / seconds[0], 3),
        "bytes": sizes,
    }


def queries(run: Path, engine: Engine, num_users: int) -> tuple[list[KnownHistory], list[object]]:
    """Histories without their last event, and the item of that event."""
    checkpoint = load_checkpoint(run)
    assert checkpoint.histories is not None
    chosen = np.unique(np.linspace(0, len(checkpoint.histories) - 1, num_users).astype(int))
    ids = engine.catalog.ids
    items = [[ids[item] for item in checkpoint.histories.history(int(user)).item] for user in chosen]
    return [engine.given(one[:-1]) for one in items], [one[-1] for one in items]


def in_turns(
    engines: tuple[Engine, Engine], asked: list[KnownHistory], targets: list[object]
) -> tuple[list[np.ndarray], float, float, list[float]]:
    """NDCG of each user by each engine, shares of equal lists and first items, and seconds of encoding alone."""
    gains: list[list[float]] = [[], []]
    shared, first, seconds = [], [], [0.0, 0.0]
    for turn, begin in enumerate(range(0, len(asked), AT_ONCE)):
        some, wanted = asked[begin : begin + AT_ONCE], targets[begin : begin + AT_ONCE]
        lists: list[list[list[object]]] = [[], []]
        for which in (0, 1) if turn % 2 else (1, 0):
            engine = engines[which]
            answers = engine.answer([(history, Question(k=K, because=False)) for history in some])
            lists[which] = [
                [one.item_id for one in answer.recommendations] for answer in answers if isinstance(answer, Answer)
            ]
            start = time.process_time()
            for history in some:
                engine.lists.encoder.encode(history.histories, engine.lists._noise)
            seconds[which] += time.process_time() - start
            gains[which] += [gain(of_user, target) for of_user, target in zip(lists[which], wanted, strict=True)]
        shared += [len(set(a) & set(b)) / max(1, len(a)) for a, b in zip(*lists, strict=True)]
        first += [a[:1] == b[:1] for a, b in zip(*lists, strict=True)]
    return [np.array(one) for one in gains], float(np.mean(shared)), float(np.mean(first)), seconds


def gain(listed: list[object], target: object) -> float:
    return 1 / float(np.log2(listed.index(target) + 2)) if target in listed else 0.0


if __name__ == "__main__":
    main()
