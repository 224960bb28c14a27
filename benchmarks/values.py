"""Forecasts of ratings: root mean squared error of variseq, of its baselines and of matrix factorization.

    python -m benchmarks.values ml-100k DATA
    python -m benchmarks.values ml-1m-by-time DATA --splits time --models variseq

The logs are MovieLens-100K, and the users of MovieLens-1M whose times are exact. All learn from the training and the
validation part. What the record file has for a data set, split, model and seed is not measured again.

- splits: time (the last 10 % of all events), user-time (the last 10 % of each user), leave-one-out (the last event).
- models: variseq, with the baselines of every evaluation; svd (biased matrix factorization) and svdpp of
  scikit-surprise with its defaults, which know nothing of what the user did after training.

Warm targets have a user and an item with training events.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

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
from variseq.evaluation.splits import Part, trained_on
from variseq.evaluation.value_forecasts import ValueForecasts
from variseq.recommend.values import forecast_values

SPLITS = {"time": "all", "user-time": "all", "leave-one-out": "last"}
MODELS = ("variseq", "svd", "svdpp")
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


def surprise_forecasts(dataset: LoadedDataset, split: str, name: str, seed: int) -> ValueForecasts:
    """Those of an algorithm of scikit-surprise."""
    import surprise

    part: Part = dataset.log.split(split)[2].part
    known, queries = part.history(), part.queries(SPLITS[split])
    user, item = queries.user, part.histories.item[queries.position]
    ratings = {"user": np.repeat(np.arange(len(known)), known.lengths), "item": known.item, "value": known.value}
    scale = surprise.Reader(rating_scale=(float(known.value.min()), float(known.value.max())))
    algorithm = {"svd": surprise.SVD, "svdpp": surprise.SVDpp}[name](random_state=seed)
    algorithm.fit(surprise.Dataset.load_from_df(pd.DataFrame(ratings), scale).build_full_trainset())
    mean = np.array([algorithm.predict(*pair).est for pair in zip(user.tolist(), item.tolist(), strict=True)])
    is_warm = (known.lengths[user] > 0) & (np.bincount(known.item, minlength=part.num_items)[item] > 0)
    return ValueForecasts(mean, None, part.histories.value[queries.position].astype(np.float64), is_warm, {})


def records_of(dataset: LoadedDataset, split: str, model: str, seed: int) -> list[Record]:
    """The record of a model, and those of the baselines with that of variseq."""
    is_ours = model == "variseq"
    found = variseq_forecasts(dataset, split, seed) if is_ours else surprise_forecasts(dataset, split, model, seed)
    of_baselines = [replace(found, mean=mean, standard_deviation=None) for mean in found.baselines.values()]
    named = zip([model, *found.baselines], [found, *of_baselines], strict=True)
    records = []
    for name, forecasts in named:
        metrics = {key: one for key, one in forecasts.summary().items() if key != "value_baselines"}
        settings = {"size": "tiny", **TRAINING} if name == "variseq" else {}
        case = {"data": dataset.description["name"], "split": split, "model": name}
        of_seed = seed if name == model else None
        records.append(record_of("values", case, metrics, seed=of_seed, settings=settings, data=dataset.description))
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
                if (given.name, split, model, given.seed) not in done:
                    append_records(given.out, records_of(dataset, split, model, given.seed))

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
