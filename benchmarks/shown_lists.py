"""What lists that were shown are worth to a fit: how it ranks held-out impressions of MIND, and the whole catalog.

    python -m benchmarks.shown_lists DATA --split users time

One run is fitted for each split, and ranks with the offsets that it learned from lists and without them. All news that
stand in a history or an impression are the catalog. Strength and factor are chosen on validation in the fit itself.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from measurement.datasets import dataset_spec, impressions, load_dataset, news
from measurement.files import find_files
from measurement.records import Record, append_records, command_parser, exit_code, record_of, rounded
from variseq import VariationalAttention
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.pipeline import split_of
from variseq.recommend.list_offsets import OffsetRecommender
from variseq.recommend.network_model import engine_of
from variseq.terminal.evaluate_lists import table_of_lists

SPLITS: dict[str, tuple[Any, Any]] = {"users": (0.2, 0.2), "time": ("1d", "1d")}
"""Test and validation part of each: shares of the users, or the last days."""
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


def record_of_split(folder: Path, by: Any, size: str, seed: int) -> Record:
    """The record of a split, with a row for each way of ranking its test lists."""
    paths = find_files(folder, *dataset_spec("mind").files)
    loaded, exposures = load_dataset("mind", folder), exposures_of(paths[0])
    log = loaded.log.on_catalog(catalog_of(paths))
    train, valid, test = log.split(by, *SPLITS[by])
    epochs = dataset_spec("mind").settings["training.max_epochs"]
    begun = time.process_time()
    model = VariationalAttention(size, seed, "cpu", training={"max_epochs": epochs})
    model.fit(train, valid, exposures=exposures)
    seconds = time.process_time() - begun
    assert model.checkpoint is not None
    found = table_of_lists({RUN: model.checkpoint}, exposures)
    print(found["lists"], flush=True)
    mixture, part = engine_of(model.checkpoint).model, split_of(model.checkpoint)[2]
    options = EvaluationOptions(exclude_seen=model.checkpoint.config["training"]["exclude_seen"])
    catalog = {
        name: float(evaluate(OffsetRecommender(mixture, name, offset), part, options).metric("ndcg").mean())
        for name, offset in ((RUN, mixture.tables.score_offset), (PLAIN, None))
    }
    nll = model.evaluate(test).table["rows"][0]["nll"]
    has_offsets = mixture.tables.score_offset is not None
    rows: dict[str, dict[str, Any]] = {}
    for row in found["rows"]:
        name = {RUN: "variseq, offsets" if has_offsets else "variseq", PLAIN: "variseq"}.get(row["model"], row["model"])
        rows[name] = {key: value for key, value in row.items() if key != "model"}
        if row["model"] in catalog:
            rows[name] |= {"catalog_ndcg@10": catalog[row["model"]], "catalog_nll": nll, "cpu_seconds": seconds}
        print(name, rows[name], flush=True)
    settings = {"size": size, "lists": found["lists"], "chosen": model.checkpoint.manifest.get("improvement")}
    case = {"data": "mind", "split": by}
    record = record_of("shown_lists", case, {}, seed=seed, settings=settings, data=loaded.description)
    return record | {"rows": rounded(rows)}


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "shown_lists")
    parser.add_argument("data", type=Path, metavar="DATA", help="the folder with the files of MIND")
    parser.add_argument("--split", nargs="+", choices=list(SPLITS), default=list(SPLITS))
    parser.add_argument("--size", default="tiny", help="of the network")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(words)

    def work() -> None:
        for by in given.split:
            append_records(given.out, [record_of_split(given.data, by, given.size, given.seed)])

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
