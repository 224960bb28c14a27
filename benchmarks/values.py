"""Forecasts of ratings: root mean squared error of variseq, of its baselines and of matrix factorization.

    python -m benchmarks.values ml-100k DATA
    python -m benchmarks.values ml-1m-by-time DATA --splits time --models variseq

The logs are MovieLens-100K, and the users of MovieLens-1M whose times are exact. All learn from the training and the
validation part. What the record file has for a data set, split, model and seed is not measured again.

- splits: time (the last 10 % of all events), user-time (the last 10 % of each user), leave-one-out (the last event),
  random (10 % of all events, as if time did not matter; not for variseq, whose histories have an order).
- models: variseq, with the baselines of every evaluation; svd (biased matrix factorization) and svdpp of
  scikit-surprise with its defaults, which know nothing of what the user did after training; rrn and
  rrn-weekly, a recurrent recommender network (`benchmarks.rrn`) with steps of a user of a minute or of a week, which
  knows the ratings of earlier steps.

Warm targets have a user and an item with training events.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from benchmarks.rrn import Ratings, RrnOptions, fit_rrn
from measurement.datasets import LoadedDataset, load_dataset
from measurement.records import (
    Record,
    append_records,
    check_writable,
    command_parser,
    exit_code,
    read_records,
    record_of,
)
from variseq import VariationalAttention
from variseq.errors import InputError
from variseq.evaluation.splits import trained_on
from variseq.evaluation.value_forecasts import ValueForecasts
from variseq.events.table import MICROSECONDS_PER_SECOND
from variseq.recommend.values import forecast_values

RANDOM = "random"
SPLITS = {"time": "all", "user-time": "all", "leave-one-out": "last", RANDOM: "all"}
RRN = {"rrn": RrnOptions(user_step_days=1 / 1440), "rrn-weekly": RrnOptions()}
MODELS = ("variseq", "svd", "svdpp", *RRN)
TRAINING = {"max_epochs": 15, "patience": 15}


def variseq_forecasts(dataset: LoadedDataset, split: str, seed: int) -> ValueForecasts:
    """Those of a refitted run, with the baselines. Nobody looks at the ranking, so the encoder is tiny."""
    train, valid, test = dataset.log.split(split)
    model = VariationalAttention(size="tiny", seed=seed, device="cpu", training=TRAINING).fit(train, valid)
    assert model.checkpoint is not None
    part = trained_on(test.part, test.part.history(), "training and validation")
    found = forecast_values(model.checkpoint.network, part, test.part.history(), SPLITS[split])
    if found is None:
        raise InputError("The log has no values. Give a log of ratings.")
    return found


@dataclass(frozen=True, eq=False)
class SplitRatings:
    """The ratings of a log, and the part of each: 0 for training, 1 for validation, 2 for test."""

    ratings: Ratings
    part: Int[np.ndarray, " rating"]
    is_random: bool

    @classmethod
    def of(cls, dataset: LoadedDataset, split: str) -> SplitRatings:
        _, valid, test = (one.part for one in dataset.log.split("time" if split == RANDOM else split))
        log = test.histories
        user, position = np.repeat(np.arange(len(log)), log.lengths), np.arange(log.num_events)
        if split == RANDOM:
            part = np.digitize(np.random.default_rng(0).random(len(position)), [0.8, 0.9])
        else:
            part = sum((position >= end[user]).astype(np.int64) for end in (valid.history_end, test.history_end))
        item, value = log.item.astype(np.int64), log.value.astype(np.float64)
        seconds = log.timestamp / MICROSECONDS_PER_SECOND
        return cls(Ratings(user, item, seconds, value, len(log), test.num_items), part, split == RANDOM)

    def forecasts(self, mean: Float[np.ndarray, " target"]) -> ValueForecasts:
        """Forecasts of the test part with what came, and whether user and item have earlier parts."""
        ratings, is_test = self.ratings, self.part == 2
        counts = [
            np.bincount(of_rating[~is_test], minlength=size)[of_rating[is_test]]
            for of_rating, size in ((ratings.user, ratings.num_users), (ratings.item, ratings.num_items))
        ]
        return ValueForecasts(mean, None, ratings.value[is_test], np.minimum(*counts) > 0, {})


def surprise_forecasts(split: SplitRatings, name: str, seed: int) -> ValueForecasts:
    """Those of an algorithm of scikit-surprise."""
    import surprise

    ratings, is_known = split.ratings, split.part < 2
    known = {name: getattr(ratings, name)[is_known] for name in ("user", "item", "value")}
    scale = surprise.Reader(rating_scale=(float(known["value"].min()), float(known["value"].max())))
    algorithm = {"svd": surprise.SVD, "svdpp": surprise.SVDpp}[name](random_state=seed)
    algorithm.fit(surprise.Dataset.load_from_df(pd.DataFrame(known), scale).build_full_trainset())
    pairs = zip(ratings.user[~is_known].tolist(), ratings.item[~is_known].tolist(), strict=True)
    return split.forecasts(np.array([algorithm.predict(*pair).est for pair in pairs]))


def rrn_forecasts(split: SplitRatings, options: RrnOptions, seed: int) -> ValueForecasts:
    """Those of a recurrent recommender network.

    It knows all ratings of earlier steps, those of the test part too, as a live system would. With a random split it
    knows those that are not in test.
    """
    part = split.part
    model, error = fit_rrn(split.ratings, part == 0, part == 1, options, seed)
    print(f"on validation: {error:.4f}", flush=True)
    return split.forecasts(model.forecasts(np.flatnonzero(part == 2), part < (2 if split.is_random else 3)))


def records_of(dataset: LoadedDataset, split: str, model: str, seed: int) -> list[Record]:
    """The record of a model, and those of the baselines with that of variseq."""
    settings: dict[str, Any] = {}
    if model == "variseq":
        found, settings = variseq_forecasts(dataset, split, seed), {"size": "tiny", **TRAINING}
    elif model in RRN:
        found, settings = rrn_forecasts(SplitRatings.of(dataset, split), RRN[model], seed), asdict(RRN[model])
    else:
        found = surprise_forecasts(SplitRatings.of(dataset, split), model, seed)
    of_baselines = [replace(found, mean=mean, standard_deviation=None) for mean in found.baselines.values()]
    named = zip([model, *found.baselines], [found, *of_baselines], strict=True)
    records = []
    for name, forecasts in named:
        metrics = {key: one for key, one in forecasts.summary().items() if key != "value_baselines"}
        case = {"data": dataset.description["name"], "split": split, "model": name}
        used = {"seed": seed, "settings": settings} if name == model else {}
        records.append(record_of("values", case, metrics, data=dataset.description, **used))
        print(f"{split}, {name}: {metrics['value_rmse']:.4f}", flush=True)
    return records


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "values")
    parser.add_argument("name", choices=("ml-100k", "ml-1m-by-time"), metavar="NAME", help="a data set of the recipes")
    parser.add_argument("data", type=Path, metavar="DATA", help="its folder")
    parser.add_argument("--splits", nargs="+", choices=tuple(SPLITS), default=list(SPLITS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(words)

    def work() -> None:
        check_writable(given.out)
        done = {
            (one["case"]["data"], one["case"]["split"], one["case"]["model"], one["seed"])
            for one in read_records(given.out)
        }
        dataset = load_dataset(given.name, given.data)
        for split in given.splits:
            for model in given.models:
                is_possible = split != RANDOM or model != "variseq"
                if is_possible and (given.name, split, model, given.seed) not in done:
                    append_records(given.out, records_of(dataset, split, model, given.seed))

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
