"""What content of items is worth: for items of few events, held out or new, and by its parts.

    python -m benchmarks.content rows amazon-beauty-shuffled DATA --seeds 0 1 2
    python -m benchmarks.content held-out amazon-beauty-shuffled DATA
    python -m benchmarks.content held-out-tenth amazon-beauty-shuffled DATA
    python -m benchmarks.content first-days amazon-beauty-by-time DATA
    python -m benchmarks.content parts simulated --seeds 0 1 2
    python -m benchmarks.content parts ml-1m-posters DATA        # the folder of all data sets
    python -m benchmarks.content unordered tiktok-mm DATA
    python -m benchmarks.content speed amazon-beauty-shuffled DATA

All learn from the training part alone, or as a run by default with --refit.

- rows: nothing, categories, content, and both; compared with categories alone, paired by user. Rare targets have at
  most five training events.
- held-out: 5 % of the items that are test targets have no event but these. Recall of those who ask for one: with all
  items ranked, with one and with three of ten ranks for new items, and among the held-out items alone.
- held-out-tenth: the same of a tenth of all items, which have events in the validation and in the test part; 8 epochs.
- first-days: targets without a training event, in a split by time.
- parts, unordered, speed: see `benchmarks.content_parts`, `benchmarks.content_unordered`, `benchmarks.content_speed`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from benchmarks.content_parts import SOURCES, chosen_rows, compare_parts
from benchmarks.content_queries import K, TestQueries, fitted
from benchmarks.content_speed import measure_speed
from benchmarks.content_unordered import compare_unordered
from measurement.datasets import LoadedDataset, dataset_spec, load_dataset
from measurement.records import (
    Record,
    append_records,
    check_writable,
    command_parser,
    exit_code,
    record_of,
)
from variseq.errors import InputError
from variseq.evaluation.calibration import Reliability, reliability
from variseq.evaluation.splits import Queries
from variseq.log import Log
from variseq.ranking.engine import Engine
from variseq.ranking.options import RecommendOptions
from variseq.recommend.network_model import ModelRecommender, engine_of
from variseq.sequences.histories import Histories
from variseq.terminal.run_config import RunConfig, run_config

ROWS = {
    "categories": {"use_content": False},
    "content and categories": {},
    "content": {"use_categories": False},
    "neither": {"use_content": False, "use_categories": False},
}
RARE = 5
HELD_OUT_SHARE, EPOCHS_OF_TENTH = 0.05, 8
SHARES = {"all items": 0.0, "1 of 10 ranks": 0.1, "3 of 10 ranks": 0.3}


def settings_of(name: str, seed: int, changes: dict[str, Any], refit: bool) -> RunConfig:
    """The settings of the recipe with changes of training."""
    fixed: dict[str, Any] = {"seed": seed} | ({} if refit else {"training.refit_fraction": 0.0})
    of_training = {f"training.{key}": value for key, value in changes.items()}
    return run_config(None, {**dataset_spec(name).settings, **fixed, **of_training}, ())


def compare_rows(
    dataset: LoadedDataset, name: str, seed: int, refit: bool, rows: Sequence[str] = tuple(ROWS)
) -> Iterator[Record]:
    """One record for each row; the others are compared with the first."""
    first = None
    for row in rows:
        settings = settings_of(name, seed, ROWS[row], refit)
        model, seconds = fitted(dataset.log, settings)
        assert model.checkpoint is not None
        forecast = ModelRecommender(engine_of(model.checkpoint).model)
        queries = TestQueries.of(forecast, model.checkpoint, dataset.log, settings)
        is_rare = (queries.count > 0) & (queries.count <= RARE)
        metrics: dict[str, Any] = {**queries.means(queries.count >= 0), **queries.means(is_rare, "_rare")}
        metrics |= {"num_queries": len(is_rare), "num_rare": int(is_rare.sum()), "cpu_seconds": seconds}
        assert model.checkpoint is not None
        chosen = next(epoch for epoch in reversed(model.checkpoint.metrics) if epoch["is_best"])
        metrics |= {key: chosen[key] for key in ("validation_ndcg", "validation_nll")}
        if first is None:
            first = queries
        else:
            metrics |= queries.differences(first, queries.count >= 0)
        yield _record(dataset, {"data": name, "mode": "rows", "row": row}, metrics, settings)


def hold_out(log: Log, seed: int, share: float, num_kept: int) -> tuple[Log, Bool[np.ndarray, " item"]]:
    """The log without most events of some items, and which items these are.

    A share of the items that are a last event is drawn, or of all items where more than these are kept. What is kept of
    them are the last `num_kept` events of each history.
    """
    histories = log.histories
    from_end = np.repeat(histories.offsets[1:], histories.lengths) - np.arange(histories.num_events)
    drawn = np.unique(histories.item[from_end == 1]) if num_kept == 1 else np.arange(log.vocabulary.num_items)
    chosen = np.random.default_rng(seed).choice(drawn, round(share * len(drawn)), replace=False)
    is_out = np.isin(np.arange(log.vocabulary.num_items), chosen)
    return replace(log, histories=histories.kept((from_end <= num_kept) | ~is_out[histories.item])), is_out


def held_out(
    dataset: LoadedDataset, name: str, seed: int, refit: bool, mode: str = "held-out", share: float = HELD_OUT_SHARE
) -> Iterator[Record]:
    """One record: recall of the held-out items, and of all."""
    log, is_out = hold_out(dataset.log, seed, share, 1 if mode == "held-out" else 2)
    settings = settings_of(name, seed, {} if mode == "held-out" else {"max_epochs": EPOCHS_OF_TENTH}, refit)
    model, seconds = fitted(log, settings)
    assert model.checkpoint is not None
    engine = engine_of(model.checkpoint)
    part = log.split(settings.split.by, settings.split.test, settings.split.valid)[2].part
    queries = part.queries("last")
    histories = replace(part.histories_before(queries, False), request_time=None)
    target = part.histories.item[queries.position].astype(np.int64)
    asks = is_out[target]
    metrics: dict[str, Any] = {
        "num_held_out": int(is_out.sum()), "num_queries": len(target), "num_asking": int(asks.sum()),
        "cpu_seconds": seconds, "share_of_new": new.share if (new := engine.model.calibration.new) else 0.0,
    }  # fmt: skip
    for shown, share in SHARES.items():
        found = _recall(engine, histories, target, RecommendOptions(k=K, new_items_share=share, ranks_only=True))
        metrics |= {f"recall of held-out, {shown}": found[asks].mean(), f"recall of all, {shown}": found.mean()}
    ids = [engine.catalog.ids[item] for item in np.flatnonzero(is_out).tolist()]
    among = RecommendOptions(k=K, candidates=ids, ranks_only=True)
    asking = np.flatnonzero(asks)
    metrics["recall among held-out"] = _recall(engine, histories.rows(asking), target[asking], among).mean()
    yield _record(dataset, {"data": name, "mode": mode}, metrics, settings)


def _recall(
    engine: Engine, histories: Histories, target: Int[np.ndarray, " query"], options: RecommendOptions
) -> Float[np.ndarray, " query"]:
    """Whether each target is in the list of its history."""
    found = np.zeros(len(target))
    for first in range(0, len(target), 1024):
        rows = np.arange(first, min(first + 1024, len(target)))
        listed = engine.recommend(histories.rows(rows), rows.tolist(), [None] * len(rows), options)
        item = engine.vocabulary.item_positions(listed.item_id)
        np.logical_or.at(found, np.array(listed.user_id), item == target[np.array(listed.user_id)])
    return found


def first_days(
    dataset: LoadedDataset,
    name: str,
    seed: int,
    refit: bool,
    rows: Sequence[str] = ("content and categories", "neither"),
) -> Iterator[Record]:
    """A record for each row."""
    for row in rows:
        settings = settings_of(name, seed, ROWS[row], refit)
        model, seconds = fitted(dataset.log, settings)
        assert model.checkpoint is not None
        forecast = ModelRecommender(engine_of(model.checkpoint).model)
        queries = TestQueries.of(forecast, model.checkpoint, dataset.log, settings)
        is_new = queries.count == 0
        metrics: dict[str, Any] = {
            **queries.means(is_new >= 0), **queries.means(is_new, "_new"), **queries.means(~is_new, "_known"),
            "num_queries": len(is_new), "num_new": int(is_new.sum()), "cpu_seconds": seconds,
        }  # fmt: skip
        assert model.checkpoint is not None
        new = model.checkpoint.calibrated.calibration.new
        metrics["share_of_new"] = None if new is None else new.share
        metrics |= calibration_of_new(forecast, dataset.log, settings)
        yield _record(dataset, {"data": name, "mode": "first-days", "row": row}, metrics, settings)


def calibration_of_new(forecast: ModelRecommender, log: Log, settings: RunConfig) -> dict[str, float]:
    """ECE of the probability of the likeliest new item of each query, and of the best ten of them."""
    part = log.split(settings.split.by, settings.split.test, settings.split.valid)[2].part
    queries, new = part.queries("last"), np.flatnonzero(forecast.model.tables.is_new)
    target, probability, is_hit = part.histories.item[queries.position], [], []
    for first in range(0, len(queries), 256):
        rows = slice(first, first + 256)
        some = Queries(queries.user[rows], queries.position[rows])
        p = np.exp(forecast.scores(part.histories_before(some, False)).numpy()[:, new])
        best = np.argsort(-p, axis=1, kind="stable")[:, :K]
        probability.append(np.take_along_axis(p, best, axis=1))
        is_hit.append(new[best] == target[rows, None])
    p, hit = np.concatenate(probability), np.concatenate(is_hit)
    return {
        "ece_new_top1": _calibration_error(reliability(p[:, 0], hit[:, 0])),
        "ece_new_top10": _calibration_error(reliability(p.ravel(), hit.ravel())),
    }


def _calibration_error(bins: Reliability) -> float:
    """The mean over forecasts of |mean probability − frequency| of their bin."""
    return float(np.average(np.abs(bins.mean_probability - bins.frequency), weights=bins.num_forecasts))


def _record(dataset: LoadedDataset, case: dict[str, Any], metrics: dict[str, Any], settings: RunConfig) -> Record:
    resolved = {"model": settings.model, "training": settings.training, "split": settings.split.by}
    plain = {key: value if isinstance(value, list | int | None) else float(value) for key, value in metrics.items()}
    return record_of("content", case, plain, seed=settings.seed, settings=resolved, data=dataset.description)


MODES: dict[str, Callable[..., Iterator[Record]]] = {
    "rows": compare_rows,
    "held-out": held_out,
    "held-out-tenth": partial(held_out, mode="held-out-tenth", share=0.1),
    "first-days": first_days,
}


def records(given: Any, seed: int) -> Iterator[Record]:
    """Those of a mode and seed."""
    if given.data is None and given.name != "simulated":
        raise InputError(f"{given.name} is read from a folder. Give it after the name.")
    if given.mode == "parts":
        if given.name not in SOURCES:
            raise InputError(f"There are no parts of {given.name!r}. There are those of: {', '.join(SOURCES)}.")
        return compare_parts(given.name, given.data, seed, given.rows)
    if given.mode == "speed":
        return measure_speed(load_dataset(given.name, given.data), given.name)
    if given.mode == "unordered":
        return compare_unordered(given.data, seed)
    more = {"rows": chosen_rows(given.rows, ROWS)} if given.rows else {}
    return MODES[given.mode](load_dataset(given.name, given.data), given.name, seed, given.refit, **more)


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "content")
    parser.add_argument("mode", choices=sorted([*MODES, "parts", "speed", "unordered"]))
    parser.add_argument("name", metavar="NAME", help="a data set of the recipes, or of the modes parts and unordered")
    parser.add_argument("data", type=Path, metavar="DATA", nargs="?", help="its folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", nargs="+", help=f"of the modes rows and first-days: {', '.join(ROWS)}; or of parts")
    parser.add_argument("--refit", action="store_true", help="with the validation events, as a run by default")
    given = parser.parse_args(words)

    def work() -> None:
        check_writable(given.out)
        for seed in given.seeds:
            for record in records(given, seed):
                append_records(given.out, [record])
                print(seed, record["case"], record["metrics"], flush=True)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
