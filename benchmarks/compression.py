"""What `variseq export --compress` saves and costs: bytes, NDCG and NLL beside the whole export, and time to answer.

    python -m benchmarks.compression ml-100k RUN            # on validation
    python -m benchmarks.compression ml-100k RUN --part test

RUN is a finished run on that data set, fitted with training.refit_fraction=0 so that validation is new to it. Each form
is exported, and its engine without torch is evaluated on the same queries; differences are paired by user.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from measurement.records import Record, append_records, check_writable, command_parser, exit_code, record_of
from variseq.artifacts.checkpoint import Checkpoint, load_checkpoint
from variseq.estimator import split_of
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.evaluation import Evaluation
from variseq.evaluation.significance import compare
from variseq.export import export
from variseq.inference.engine import load_engine
from variseq.ranking.engine import Engine, Request
from variseq.ranking.item_codes import COMPRESSIONS
from variseq.ranking.options import RecommendOptions
from variseq.recommend.network_model import ModelRecommender

PARTS = {"valid": 1, "test": 2}
BATCH, ROUNDS = 64, 8


def table_bytes(engine: Engine) -> int:
    """Bytes of memory of the item vectors: the table, and the blocks of the softmax where they are copies."""
    vectors = engine.model.tables.vectors
    blocks = [block.vectors for block in engine.model.everything.blocks]
    return vectors.nbytes + sum(one.nbytes for one in blocks if isinstance(one, np.ndarray))


def times_of(engine: Engine, checkpoint: Checkpoint) -> dict[str, float]:
    """Microseconds of CPU for one answer (median), and answers a CPU second in batches (the best of some)."""
    rows = np.random.default_rng(0).permutation(len(checkpoint.histories))[:BATCH].tolist()
    items = [checkpoint.vocabulary.item_ids(checkpoint.histories.history(row).item) for row in rows]
    asked = [(engine.given(one), Request(RecommendOptions(k=10))) for one in items]

    def seconds(batch: list[tuple[object, Request]]) -> float:
        begun = time.process_time()
        engine.answer(batch)  # type: ignore[arg-type]
        return time.process_time() - begun

    alone = [seconds([one]) for _ in range(ROUNDS // 2) for one in asked]
    together = [seconds([*asked]) for _ in range(ROUNDS)]
    return {"microseconds": 1e6 * float(np.median(alone)), "answers_per_second": BATCH / min(together)}


def records_of(name: str, run: Path, part: str) -> list[Record]:
    """A record for each form; the differences are to the whole export."""
    checkpoint, records = load_checkpoint(run), []
    excludes, repeats = bool(checkpoint.manifest["exclude_seen"]), checkpoint.calibrated.repeat_share
    options = EvaluationOptions(exclude_seen=excludes, repeat_share=repeats)
    whole: Evaluation | None = None
    for form in COMPRESSIONS:
        with tempfile.TemporaryDirectory() as folder:
            bundle = export(run, Path(folder) / "bundle", form)
            size = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
            engine = load_engine(bundle)
        found = evaluate(ModelRecommender(engine.model, form), split_of(checkpoint)[PARTS[part]], options)
        whole = whole or found
        metrics = {
            "bundle_bytes": size,
            "table_bytes": table_bytes(engine),
            "ndcg@10": float(found.metric("ndcg").mean()),
        }
        for metric, scale in (("ndcg", 100 / whole.metric("ndcg").mean()), ("nll", 1.0)):
            change = compare(found, whole, metric)
            metrics[f"{metric}_change"] = float(change.difference * scale)
            metrics[f"{metric}_change_interval"] = [float(end * scale) for end in change.interval]
        metrics |= times_of(engine, checkpoint)
        records.append(record_of("compression", {"data": name, "part": part, "compress": form}, metrics, threads=1))
        print(f"{form}: {metrics}", flush=True)
    return records


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "compression")
    parser.add_argument("name", metavar="NAME", help="the data set of the run, as it is called in the table")
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run on it")
    parser.add_argument("--part", choices=tuple(PARTS), default="valid")
    given = parser.parse_args(words)

    def work() -> None:
        check_writable(given.out)
        append_records(given.out, records_of(given.name, given.run, given.part))

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
