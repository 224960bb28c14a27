"""What lists that were shown are worth: how a run ranks held-out impressions of MIND, and the whole catalog.

    python -m benchmarks.shown_lists DATA --split users time

One run is fitted for each split, or taken from the folder of runs. It ranks with offsets that are learned from lists,
and without them. All news of a history or an impression are the catalog. Validation chooses strength and factor.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from measurement.datasets import dataset_spec, impressions, load_dataset, news
from measurement.files import find_files
from measurement.records import Record, append_records, command_parser, exit_code, record_of, rounded
from variseq import VariationalAttention, load
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.log import LogPart
from variseq.pipeline import joined_exposures, list_offsets, split_of
from variseq.ranking.mixture import SCORE_OFFSET
from variseq.recommend.list_offsets import OffsetRecommender
from variseq.recommend.network_model import ModelRecommender, engine_of
from variseq.terminal.evaluate_lists import table_of_lists
from variseq.training.config import TrainingConfig
from variseq.training.defaults import Size
from variseq.training.trainer import Validation

SPLITS: dict[str, tuple[Any, Any]] = {"users": (0.2, 0.2), "time": ("1d", "1d")}
"""Test and validation part of each: shares of the users, or the last days."""
KEPT = (
    *("ndcg@10", "ndcg@10_interval", "ndcg@5", "mrr", "auc", "auc_interval"),
    *("ndcg@10_difference", "ndcg@10_difference_interval"),
)
RUN, PLAIN = "offsets from lists", "offsets from lists, without offsets"


def exposures_of(path: Path) -> pa.Table:
    """A row for each item of each impression."""
    shown = [
        (str(number), user, one[:-2], second, int(one.endswith("-1")))
        for number, (user, second, _, items) in enumerate(impressions(path))
        for one in items
    ]
    names = ("exposure_id", "user_id", "item_id", "timestamp", "reward")
    columns = {name: list(column) for name, column in zip(names, zip(*shown, strict=True), strict=True)}
    return pa.table(columns)


def catalog_of(paths: Sequence[Path]) -> pa.Table:
    """All news of histories and impressions, with title and category where they are known."""
    ids = {one for _, _, history, shown in impressions(paths[0]) for one in [*history, *(row[:-2] for row in shown)]}
    known = {row["item_id"]: row for row in news(paths[1]).to_pylist()}
    rows = [known.get(one, {"item_id": one, "title": None, "category": None}) for one in sorted(ids)]
    return pa.Table.from_pylist(rows, schema=news(paths[1]).schema)


def fitted_run(folder: Path, parts: tuple[LogPart, LogPart, LogPart], size: Size, seed: int) -> VariationalAttention:
    """The run in a folder; it is fitted the first time, on training events alone."""
    if not folder.exists():
        settings = {"max_epochs": dataset_spec("mind").settings["training.max_epochs"], "refit_fraction": 0.0}
        VariationalAttention(size, seed, "cpu", training=settings).fit(*parts[:2]).save(folder)
    return load(folder, "cpu")


def record_of_split(folder: Path, by: Any, runs: Path, size: Size, seed: int) -> Record:
    """The record of a split, with a row for each way of ranking its test lists."""
    paths = find_files(folder, *dataset_spec("mind").files)
    loaded, exposures = load_dataset("mind", folder), exposures_of(paths[0])
    train, valid, test = loaded.log.on_catalog(catalog_of(paths)).split(by, *SPLITS[by])
    model = fitted_run(runs / f"mind-{by}-{size}-{seed}", (train, valid, test), size, seed)
    plain = model.checkpoint
    assert plain is not None
    begun = time.process_time()
    shown = joined_exposures(exposures, train.part.histories, train.vocabulary)
    validation = Validation(valid.part, TrainingConfig(**plain.config["training"]))
    chosen, offset = list_offsets(engine_of(plain).model, train, valid, train.part.history(), shown, validation)
    seconds = time.process_time() - begun
    print(chosen, flush=True)
    run = plain if offset is None else replace(plain, counts=plain.counts | {SCORE_OFFSET: offset})
    found = table_of_lists({RUN: run}, exposures)
    print(found["lists"], flush=True)
    mixture, part = engine_of(run).model, split_of(run)[2]
    options = EvaluationOptions(exclude_seen=run.config["training"]["exclude_seen"])
    of_catalog = evaluate(ModelRecommender(mixture), part, options)
    catalog = {PLAIN: float(of_catalog.metric("ndcg").mean()), RUN: float(of_catalog.metric("ndcg").mean())}
    if offset is not None:
        moved = OffsetRecommender(mixture, RUN, mixture.tables.score_offset)
        catalog[RUN] = float(evaluate(moved, part, options).metric("ndcg").mean())
    rows: dict[str, dict[str, Any]] = {}
    for row in found["rows"]:
        name = {RUN: "variseq" if offset is None else "variseq, offsets", PLAIN: "variseq"}.get(
            row["model"], row["model"]
        )
        rows[name] = {key: value for key, value in row.items() if key in KEPT}
        if row["model"] in catalog:
            rows[name]["catalog_ndcg@10"] = catalog[row["model"]]
            rows[name]["catalog_nll"] = float(of_catalog.metric("nll").mean())
        print(name, rows[name], flush=True)
    if chosen.chosen is not None:
        of_choice = {"strength": chosen.chosen.strength, "factor": chosen.chosen.factor, "cpu_seconds": seconds}
        rows["variseq, offsets"] |= of_choice
    settings = {"size": size, "lists": found["lists"]}
    case = {"data": "mind", "split": by}
    record = record_of("shown_lists", case, {}, seed=seed, settings=settings, data=loaded.description)
    return record | {"rows": rounded(rows)}


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "shown_lists")
    parser.add_argument("data", type=Path, metavar="DATA", help="the folder with the files of MIND")
    parser.add_argument("--split", nargs="+", choices=list(SPLITS), default=list(SPLITS))
    parser.add_argument("--runs", type=Path, default=Path(".runs"), help="folder that fitted runs are kept in")
    parser.add_argument("--size", default="tiny", help="of the network")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(words)

    def work() -> None:
        for by in given.split:
            append_records(given.out, [record_of_split(given.data, by, given.runs, given.size, given.seed)])

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
