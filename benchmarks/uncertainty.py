"""Calibration, uncertainty, reasons and diversity of a finished run, by the package's public functions.

    python -m benchmarks.uncertainty amazon-beauty DATA --run runs/beauty --compare-with runs/beauty-det

RUN is a run of the recipe of that name (leave-one-out). Every record is about the test part; what reasons and diversity
ask is the history before the last event of a sample of users.

- calibration: likelihood, Brier score, calibration errors with their noise floor, conformal coverage, selective gain,
  of the run, of the run it is compared with (such as its deterministic ablation), of MC dropout and of popularity.
- significance: paired differences of the two runs by user.
- reasons: how far the log-probability of a recommended item falls when its reasons are removed from the history,
  compared with as many random events and with the latest ones (a deletion test).
- diversity: NDCG@10 and spread of the lists by the option `diversity`, and of lists from samples of the posterior.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from measurement.datasets import dataset_spec, load_dataset
from measurement.records import Record, append_records, command_parser, exit_code, record_of
from variseq import VariationalAttention, load
from variseq.errors import InputError
from variseq.evaluation.significance import mean_interval

K = 10
OF_ROWS = (
    f"ndcg@{K}", "nll", "brier", "entropy", "ece_top1", f"ece_top{K}", "ece_top1_noise_floor",
    f"ece_top{K}_noise_floor", "conformal_coverage_90", "selective_ndcg_gain", "risk_coverage_area",
)  # fmt: skip
DIVERSITIES = tuple(round(0.1 * step, 1) for step in range(11))
ITEMS_WITH_REASONS = 3


@dataclass(frozen=True)
class Queries:
    """Histories before the last event of some users, and that event."""

    histories: list[list[Any]]
    targets: list[Any]

    @classmethod
    def of(cls, name: str, folder: Path, num_users: int) -> Queries:
        """A random sample of users. Raises InputError for a data set that is not split leave-one-out."""
        if dataset_spec(name).settings["split.by"] != "leave-one-out":
            raise InputError(f"{name} is split by time. Give a data set that is split leave-one-out.")
        log = load_dataset(name, folder).log
        rows = np.random.default_rng(0).permutation(len(log.histories))[:num_users]
        of_users = [log.vocabulary.item_ids(log.histories.history(int(row)).item) for row in rows]
        return cls([items[:-1] for items in of_users], [items[-1] for items in of_users])


def calibration_records(name: str, run: Path, compared: Path | None) -> list[Record]:
    """A record a model, and one a paired comparison."""
    model = load(run)
    others = {} if compared is None else {compared.name: load(compared)}
    table = model.evaluate(compare_with=others, mc_dropout=True).table
    records = []
    for row in table["rows"]:
        metrics = {key: row[key] for metric in OF_ROWS for key in (metric, f"{metric}_interval") if key in row}
        label = run.name if row["model"] == "variseq" else row["model"]
        records.append(record_of("calibration", {"data": name, "model": label}, metrics, seed=model.seed))
    for one in table["comparisons"]:
        metrics = {key: one[key] for key in ("difference", "interval", "p_value", "p_value_holm")}
        case = {"data": name, "model": run.name, "compared_with": one["compared_with"], "metric": one["metric"]}
        records.append(record_of("significance", case, metrics, seed=model.seed))
    return records


def reason_record(name: str, model: VariationalAttention, queries: Queries) -> Record:
    """The deletion test; falls are in nats, intervals over users."""
    generator = np.random.default_rng(0)
    falls: dict[str, list[float]] = {"reasons": [], "random": [], "latest": []}
    for history in queries.histories:
        of_user: dict[str, list[float]] = {way: [] for way in falls}
        for item, reasons, before in _recommended(model, history, ITEMS_WITH_REASONS):
            others = [one for one in dict.fromkeys(history) if one not in reasons] or reasons
            random = [others[place] for place in generator.permutation(len(others))[: len(reasons)]]
            removed = {
                "reasons": reasons,
                "random": random,
                "latest": list(dict.fromkeys(history[::-1]))[: len(reasons)],
            }
            for way, items in removed.items():
                kept = [one for one in history if one not in items]
                if kept:
                    of_user[way].append(before - _log_probability(model, kept, item))
        if all(of_user.values()):
            for way, values in of_user.items():
                falls[way].append(float(np.mean(values)))
    users = np.arange(len(falls["reasons"]))
    metrics: dict[str, Any] = {"num_users": len(users)}
    for way, values in falls.items():
        metrics |= {way: float(np.mean(values)), f"{way}_interval": list(mean_interval(users, np.array(values)))}
        if way != "reasons":
            difference = np.array(falls["reasons"]) - np.array(values)
            metrics[f"over_{way}"] = float(difference.mean())
            metrics[f"over_{way}_interval"] = list(mean_interval(users, difference))
    return record_of("reasons", {"data": name}, metrics, seed=model.seed)


def _recommended(model: VariationalAttention, history: list[Any], k: int) -> list[tuple[Any, list[Any], float]]:
    """Item, its reasons and its log-probability, for the best items that have reasons."""
    table = model.recommend(history=history, k=k, exclude_seen=True).to_pandas()
    rows = zip(table["item_id"], table["reasons"], table["probability"], strict=True)
    return [(item, list(reasons), float(np.log(probability))) for item, reasons, probability in rows if len(reasons)]


def _log_probability(model: VariationalAttention, history: list[Any], item: Any) -> float:
    table = model.recommend(history=history, k=1, candidates=[item], exclude_seen=False).to_pandas()
    return float(np.log(table["probability"].iloc[0]))


def diversity_records(name: str, model: VariationalAttention, queries: Queries) -> list[Record]:
    """One record for each diversity, and one for lists of a sample of the posterior."""
    vectors = model.item_vectors()
    ids = {item: row for row, item in enumerate(vectors["item_id"].to_pylist())}
    table = np.stack(vectors["vector"].to_numpy())
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    options: list[dict[str, Any]] = [{"diversity": value} for value in DIVERSITIES]
    ways = [*options, {"strategy": "thompson", "seed": 0}] if _can_explore(model) else options
    records = []
    for way in ways:
        begun = time.process_time()
        lists = [list(model.recommend(history=one, k=K, **way).to_pandas()["item_id"]) for one in queries.histories]
        milliseconds = 1e3 * (time.process_time() - begun) / len(lists)
        ndcg = np.array([_ndcg(items, target) for items, target in zip(lists, queries.targets, strict=True)])
        distance = [_mean_distance(unit[[ids[item] for item in items]]) for items in lists]
        metrics = {
            f"ndcg@{K}": float(ndcg.mean()), f"ndcg@{K}_interval": list(mean_interval(np.arange(len(ndcg)), ndcg)),
            "cosine_distance": float(np.mean(distance)), "milliseconds_per_user": milliseconds,
            "catalog_coverage": len({item for items in lists for item in items}) / len(ids),
        }  # fmt: skip
        case = {"data": name, "lists": ", ".join(f"{key}={value}" for key, value in way.items())}
        records.append(record_of("diversity", case, metrics, seed=model.seed))
        print(f"{case['lists']}: NDCG@10 {metrics[f'ndcg@{K}']:.4f}, distance {np.mean(distance):.3f}", flush=True)
    return records


def _can_explore(model: VariationalAttention) -> bool:
    assert model.checkpoint is not None
    return bool(model.checkpoint.config["training"]["deterministic_fraction"] < 1)


def _ndcg(items: list[Any], target: Any) -> float:
    return float(1 / np.log2(2 + items.index(target))) if target in items else 0.0


def _mean_distance(unit: np.ndarray) -> float:
    """1 − cosine, a mean over pairs: with unit vectors all pairs, twice, and each with itself add up to |sum|²."""
    count = len(unit)
    return float(1 - (np.square(unit.sum(axis=0)).sum() - count) / (count * (count - 1)))


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "uncertainty")
    parser.add_argument("name", metavar="NAME", help="a data set of the recipes")
    parser.add_argument("data", type=Path, metavar="DATA", help="its folder")
    parser.add_argument("--run", type=Path, required=True, help="a finished run on it")
    parser.add_argument(
        "--compare-with", type=Path, metavar="RUN", help="another run on it, such as a deterministic one"
    )
    parser.add_argument("--users", type=int, default=500, help="of the sample for reasons and diversity")
    parser.add_argument("--parts", nargs="+", default=["calibration", "reasons", "diversity"])
    given = parser.parse_args(words)

    def work() -> None:
        model = load(given.run, device="cpu")
        queries = Queries.of(given.name, given.data, given.users)
        parts: dict[str, Callable[[], list[Record]]] = {
            "calibration": lambda: calibration_records(given.name, given.run, given.compare_with),
            "reasons": lambda: [reason_record(given.name, model, queries)],
            "diversity": lambda: diversity_records(given.name, model, queries),
        }
        if unknown := [part for part in given.parts if part not in parts]:
            raise InputError(f"There is no part {unknown[0]!r}. There are: {', '.join(parts)}.")
        for part in given.parts:
            append_records(given.out, parts[part]())

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
