"""Off-policy estimators where the truth is known, and on the Open Bandit data.

    python -m benchmarks.off_policy simulated --lists 20000 --replications 200
    python -m benchmarks.off_policy cascade --lists 20000 --replications 200
    python -m benchmarks.off_policy obd FOLDER       # a folder with POLICY/CAMPAIGN/CAMPAIGN.csv.gz

In the simulated shop 60 items are on offer, and each person wants one item at each visit. A list of five is drawn from
a softmax; the reward is 1 where it has the wanted item. So rewards of items add up, and the value of each policy is
known exactly. People come several times, and are what the bootstrap resamples. In `cascade`, people look at a list from
the top, take an item with a probability of their own, and stop at the first that they take. So an item earns the less,
the better those above it are, and the value of each policy is the mean over many of its lists.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from measurement.records import Record, append_records, command_parser, exit_code, record_of, sha256_of
from variseq.errors import InputError
from variseq.exposures.table import Exposures
from variseq.off_policy.estimators import IPS, RIPS, WHOLE_LIST
from variseq.off_policy.evaluation import OffPolicyEvaluation, evaluate_policies
from variseq.off_policy.logged import LoggedLists
from variseq.off_policy.policies import TargetProbabilities, UniformPolicy
from variseq.ranking.plackett_luce import at_rank, in_list, softmax_weights

NUM_ITEMS, LENGTH, NUM_TASTES, VISITS = 60, 5, 400, 4
UNIFORM_SHARE = 0.05
MOST_TAKEN, LISTS_OF_TRUTH = 0.5, 20_000
"""The probability that a person takes the item of the shop that they like best, and lists a taste for true values."""
LOGGING, POPULARITY = "softmax 1", "popularity"
NEAR = {"softmax 1.5": 1.5, "softmax 2": 2.0}
"""Policies by the forecasts of the logging policy, at other temperatures."""
CAMPAIGNS = [(policy, campaign) for policy in ("bts", "random") for campaign in ("all", "men", "women")]


def policy_weights(score: np.ndarray, temperature: float) -> np.ndarray:
    """What strategy="softmax" draws lists by, among all items."""
    order = np.argsort(-score, axis=1)
    weight, length = np.empty(score.shape), np.full(len(score), LENGTH)
    ranked = softmax_weights(np.take_along_axis(score, order, axis=1), temperature, UNIFORM_SHARE, length)
    np.put_along_axis(weight, order, ranked, axis=1)
    return weight


@dataclass(frozen=True, eq=False)
class Shop:
    """Tastes: what people of each want, and the weights by which each policy draws their lists."""

    wanted: np.ndarray
    weight: dict[str, np.ndarray]
    is_cascade: bool = False

    @classmethod
    def of(cls, seed: int, is_cascade: bool = False) -> Shop:
        random = np.random.default_rng(seed)
        popularity = random.normal(0, 1, NUM_ITEMS)
        taste = popularity + random.normal(0, 1.2, (NUM_TASTES, NUM_ITEMS))
        forecast = taste + random.normal(0, 0.7, taste.shape)
        flat = np.broadcast_to(popularity, taste.shape)
        weight = {
            LOGGING: policy_weights(forecast, 1.0),
            **{name: policy_weights(forecast, temperature) for name, temperature in NEAR.items()},
            POPULARITY: policy_weights(flat, 0.5),
        }
        wanted = np.exp(taste)
        return cls(wanted / wanted.sum(axis=1, keepdims=True), weight, is_cascade)

    @cached_property
    def in_list(self) -> dict[str, np.ndarray]:
        """The probability of each item to be in a list, by policy and taste."""
        everything = np.tile(np.arange(NUM_ITEMS), (NUM_TASTES, 1))
        lengths = np.full(NUM_TASTES, LENGTH)
        return {name: in_list(weight, everything, lengths) for name, weight in self.weight.items()}

    @cached_property
    def taken(self) -> np.ndarray:
        """The probability that people of each taste take an item that they look at, where they stop at the first."""
        return np.asarray(MOST_TAKEN * np.sqrt(self.wanted / self.wanted.max(axis=1, keepdims=True)))

    def value(self, policy: str) -> float:
        """The probability that something of a list is taken."""
        if self.is_cascade:
            random, found = np.random.default_rng(0), []
            for weight, taken in zip(self.weight[policy], self.taken, strict=True):
                time = random.exponential(size=(LISTS_OF_TRUTH, NUM_ITEMS)) / weight
                found.append(1 - (1 - taken[np.argpartition(time, LENGTH, axis=1)[:, :LENGTH]]).prod(axis=1).mean())
            return float(np.mean(found))
        return float((self.wanted * self.in_list[policy]).sum(axis=1).mean())

    def serve(self, num_lists: int, seed: int) -> tuple[Exposures, np.ndarray]:
        """Exposures by the logging policy, and the taste of each."""
        random = np.random.default_rng(seed)
        user = np.repeat(np.arange(num_lists // VISITS), VISITS)
        taste = random.integers(NUM_TASTES, size=num_lists // VISITS)[user]
        weight = self.weight[LOGGING][taste]
        item = np.argsort(random.exponential(size=weight.shape) / weight, axis=1)[:, :LENGTH]
        if self.is_cascade:
            would_take = random.random(item.shape) < np.take_along_axis(self.taken[taste], item, axis=1)
            reward = would_take & (np.cumsum(would_take, axis=1) == 1)
        else:
            at = (np.cumsum(self.wanted[taste], axis=1) < random.random(len(taste))[:, None]).sum(axis=1)
            reward = item == at[:, None]
        exposures = Exposures(
            offsets=np.arange(0, item.size + 1, LENGTH),
            exposure_id=[str(one) for one in range(len(taste))],
            user=[str(one) for one in user.tolist()],
            time=np.arange(len(taste)),
            context=None,
            item=item.ravel(),
            item_ids=list(range(NUM_ITEMS)),
            rank=np.tile(np.arange(1, LENGTH + 1), len(taste)),
            propensity_at_rank=at_rank(weight, item).ravel(),
            propensity_in_list=np.take_along_axis(self.in_list[LOGGING][taste], item, axis=1).ravel(),
            is_pinned=np.zeros(item.size, dtype=bool),
            reward=reward.astype(float).ravel(),
        )
        return exposures, taste


@dataclass(frozen=True, eq=False)
class ShopPolicy:
    """A policy of the shop at exposures whose tastes are known."""

    name: str
    shop: Shop
    taste: np.ndarray

    def probabilities(self, lists: LoggedLists) -> TargetProbabilities:
        listed = self.shop.in_list[self.name][self.taste]
        item, weight = lists.exposures.item.reshape(-1, LENGTH), self.shop.weight[self.name][self.taste]

        def expected_next(predicted: np.ndarray, index: int) -> np.ndarray:
            left = weight.copy()
            np.put_along_axis(left, item[:, :index], 0.0, axis=1)
            return np.asarray(left @ predicted.T / left.sum(axis=1, keepdims=True))

        return TargetProbabilities(
            at_rank(weight, item).ravel(),
            np.take_along_axis(listed, item, axis=1).ravel(),
            lambda predicted, fold: (listed * predicted[fold]).sum(axis=1),
            expected_next,
        )


def simulated(num_lists: int, replications: int, is_cascade: bool = False, shop_seed: int = 1) -> Iterator[Record]:
    """One record for each policy and estimator, over all replications."""
    shop = Shop.of(shop_seed, is_cascade)
    names = (*NEAR, POPULARITY)
    found: dict[tuple[str, str], list[list[float]]] = {}
    for seed in range(replications):
        exposures, taste = shop.serve(num_lists, seed)
        result = evaluate_policies(
            exposures, [ShopPolicy(name, shop, taste) for name in names], show_refused=True, seed=seed
        )
        for name, of_policy in zip(names, result.policies, strict=True):
            for one in of_policy.estimates:
                assert one.value is not None
                low, high = one.interval or (np.nan, np.nan)
                row = [one.value, low, high, one.refusal is not None]
                found.setdefault((name, one.estimator), []).append(row)
        if not (seed + 1) % 10:
            print(f"{num_lists} lists, replication {seed + 1}", file=sys.stderr, flush=True)
    data = {"name": "simulated shop", "num_items": NUM_ITEMS, "length": LENGTH, "visits": VISITS}
    settings = {"replications": replications}
    truth = {name: shop.value(name) for name in names}
    metrics = {case: summary(np.array(rows), truth[case[0]]) for case, rows in found.items()}
    for (policy, estimator), of_case in metrics.items():
        for other in (IPS, RIPS, WHOLE_LIST):
            of_other = metrics[policy, other.name]["rmse_percent"]
            of_case[f"rmse_over_{other.name}"] = of_case["rmse_percent"] / of_other
        case = {"num_lists": num_lists, "policy": policy, "estimator": estimator}
        benchmark = "off_policy_cascade" if is_cascade else "off_policy"
        yield record_of(benchmark, case, of_case, settings=settings, data=data, threads=1)


def summary(rows: np.ndarray, truth: float) -> dict[str, float]:
    """Bias and error in percent of the true value, and how often intervals hold it."""
    error = rows[:, 0] - truth
    metrics = {
        "truth": truth,
        "bias_percent": 100 * error.mean() / truth,
        "bias_standard_errors": error.mean() / (error.std(ddof=1) / np.sqrt(len(error))),
        "rmse_percent": 100 * float(np.sqrt((error**2).mean())) / truth,
        "refused": rows[:, 3].mean(),
    }
    if not np.isnan(rows[:, 1]).any():
        metrics["coverage"] = float(((rows[:, 1] <= truth) & (truth <= rows[:, 2])).mean())
    return metrics


def open_bandit(folder: Path) -> Iterator[Record]:
    """One record for each policy and campaign: its own mean, and what a uniform policy would have earned."""
    for policy, campaign in CAMPAIGNS:
        path = folder / policy / campaign / f"{campaign}.csv.gz"
        if not path.is_file():
            raise InputError(f"{path} is missing. Give the folder of the small Open Bandit data.")
        result = evaluate_policies(impressions(pd.read_csv(path)), [UniformPolicy()], show_refused=True)
        metrics = metrics_of(result)
        case = {"data": f"{policy}/{campaign}", "policy": "uniform"}
        yield record_of("open_bandit", case, metrics, data={"name": "obd-small", "sha256": sha256_of(path)}, threads=1)


def impressions(table: pd.DataFrame) -> Exposures:
    """A row of the Open Bandit data is an exposure of one item. Its people are not named."""
    item, item_ids = pd.factorize(table["item_id"])
    propensity = table["propensity_score"].to_numpy(dtype=float)
    return Exposures(
        offsets=np.arange(len(table) + 1),
        exposure_id=[str(one) for one in range(len(table))],
        user=[None] * len(table),
        time=pd.to_datetime(table["timestamp"], utc=True, format="ISO8601")
        .to_numpy(dtype="datetime64[us]")
        .astype(np.int64),
        context=None,
        item=item.astype(np.int64),
        item_ids=[int(one) for one in item_ids],
        rank=table["position"].to_numpy(dtype=np.int64),
        propensity_at_rank=propensity,
        propensity_in_list=propensity,
        is_pinned=np.zeros(len(table), dtype=bool),
        reward=table["click"].to_numpy(dtype=float),
    )


def metrics_of(result: OffPolicyEvaluation) -> dict[str, Any]:
    """Estimates with intervals, and the diagnostics of the item weights."""
    found, of_items = result.policies[0], result.policies[0].diagnostics[0]
    metrics: dict[str, Any] = {"mean_weight": of_items.mean, "effective_sample": of_items.effective_sample}
    metrics |= {"largest_share": of_items.largest_share, "refused": of_items.refusal is not None}
    for one in (result.on_policy, *found.estimates[:3]):
        name = one.estimator.lower().replace(" ", "_")
        metrics |= {name: one.value, f"{name}_interval": list(one.interval or ())}
    return metrics


def main(words: Sequence[str] | None = None) -> int:
    parser: argparse.ArgumentParser = command_parser(__doc__, "off_policy")
    parser.add_argument("name", choices=["simulated", "cascade", "obd"])
    parser.add_argument("folder", nargs="?", type=Path, help="the folder of the Open Bandit data")
    parser.add_argument("--lists", type=int, nargs="+", default=[2_000, 20_000])
    parser.add_argument("--replications", type=int, default=200)
    given = parser.parse_args(words)

    def run() -> None:
        if given.name == "obd" and given.folder is None:
            raise InputError("Give the folder of the Open Bandit data.")
        parts = [open_bandit(given.folder)] if given.name == "obd" else []
        else_of = [] if given.name == "obd" else given.lists
        parts += [simulated(one, given.replications, given.name == "cascade") for one in else_of]
        for part in parts:
            for one in part:
                append_records(given.out, [one])
                print(one["case"], one["metrics"], flush=True)

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
