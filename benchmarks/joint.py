"""The next three events, forecast at once: what the latent and other beliefs about a person are worth.

    python -m benchmarks.joint ml-100k DATA --seeds 0 1

The last three events of each user with at least six are cut off the log. Each network learns from the rest by the
defaults, without a refit, and forecasts the three from the history alone, in one pass. Each form has its own
calibration.

- deterministic: trained without noise; the three events are independent given the history.
- gaussian: the default latent. The probability of the three is the mean over posterior samples of their product, so a
  sample explains all three.
- dropout: the deterministic network under eight dropout masks (MC dropout), in the same way.
- chain: the deterministic network by the chain rule, in three passes that each know the events before.

`joint` is −log p of the three in nats, `independent` what the same forecasts give without a shared sample, and `next`
that of the first event. Differences are to `deterministic`, paired by user, with 95 % intervals.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from measurement.datasets import LoadedDataset, dataset_spec, load_dataset
from measurement.records import Record, append_records, check_writable, command_parser, exit_code, record_of
from variseq import VariationalAttention
from variseq.comparison import with_mc_dropout
from variseq.evaluation.evaluate import EvaluationOptions
from variseq.evaluation.significance import mean_interval
from variseq.log import Log
from variseq.ranking.calibration import NUM_SAMPLES
from variseq.ranking.mixture import MixtureModel
from variseq.recommend.network_model import ModelRecommender, engine_of
from variseq.sequences.histories import Histories
from variseq.terminal.run_config import run_config

NUM_EVENTS = 3
SHORTEST = 6
"""A user keeps an event to train on, one to validate on and one before them."""
DETERMINISTIC = {"deterministic_fraction": 1.0}


@dataclass(frozen=True)
class CutLog:
    """A log without the last events of its longer histories, and where those of the users that are asked end."""

    log: Log
    whole: Histories
    start: Int[np.ndarray, " user"]
    cut: Int[np.ndarray, " user"]

    @classmethod
    def of(cls, log: Log, max_users: int) -> CutLog:
        """At most `max_users` users are asked; all are cut."""
        histories = log.histories
        start, end = histories.offsets[:-1], histories.offsets[1:]
        cut = np.where(histories.lengths >= SHORTEST, end - NUM_EVENTS, end)
        users = np.flatnonzero(cut < end)
        if len(users) > max_users:
            users = np.sort(np.random.default_rng(0).choice(users, max_users, replace=False))
        return cls(replace(log, histories=histories.select(start, cut)), histories, start[users], cut[users])

    @property
    def target(self) -> Int[np.ndarray, "user event"]:
        """The items of the events that were cut off."""
        return self.whole.item[self.cut[:, None] + np.arange(NUM_EVENTS)].astype(np.int64)

    def histories(self, number: int = 0) -> Histories:
        """The histories, with the first `number` events of those that were cut off."""
        return self.whole.select(self.start, self.cut + number)


def sampled(
    model: MixtureModel, histories: Histories, item: Int[np.ndarray, "user k"]
) -> Float[np.ndarray, "user sample k"]:
    """p of some items for each user under each sample."""
    encoded = model.encode(histories)
    size, found = model.rows_at_once(len(encoded.preference)), []
    for first in range(0, len(histories), size):
        rows = np.arange(first, min(first + size, len(histories)))
        found.append(model.distribution(encoded.rows(rows), histories.rows(rows)).sampled(item[rows]))
    return np.concatenate(found)


def losses(model: MixtureModel, cut: CutLog) -> dict[str, Float[np.ndarray, " user"]]:
    """−log p of the next event, of the three with a sample that they share, and of the three as independent."""
    p = sampled(model, cut.histories(), cut.target)
    alone = -np.log(p.mean(axis=1))
    return {"next": alone[:, 0], "joint": -np.log(p.prod(axis=2).mean(axis=1)), "independent": alone.sum(axis=1)}


def chain(model: MixtureModel, cut: CutLog) -> Float[np.ndarray, " user"]:
    """−log p of the three events, each given those before it."""
    passes = [sampled(model, cut.histories(number), cut.target[:, number : number + 1]) for number in range(NUM_EVENTS)]
    return -np.log(np.concatenate(passes, axis=2).mean(axis=1)).sum(axis=1)


def records_of(dataset: LoadedDataset, name: str, seed: int, max_users: int, changes: dict[str, Any]) -> list[Record]:
    """The record of each form."""
    settings = run_config(None, {**dataset_spec(name).settings, "seed": seed}, ())
    cut = CutLog.of(dataset.log, max_users)
    train, valid, _ = cut.log.split("leave-one-out", "none", targets_of=settings.split.targets_of)
    found: dict[str, dict[str, np.ndarray]] = {}
    seconds: dict[str, float] = {}
    for form, training in (("deterministic", DETERMINISTIC), ("gaussian", {})):
        begun = time.process_time()
        given = {**settings.training, "refit_fraction": 0.0, **training, **changes}
        model = VariationalAttention(settings.size, seed, "cpu", settings.model, given).fit(train, valid, verbose=0)
        seconds[form] = time.process_time() - begun
        checkpoint = model.checkpoint
        assert checkpoint is not None
        forecast = ModelRecommender(engine_of(checkpoint).model)
        found[form] = losses(forecast.model, cut)
        if form == "deterministic":
            found["chain"] = {"joint": chain(forecast.model, cut)}
            config = checkpoint.config["training"]
            options = EvaluationOptions(targets=config["targets"], exclude_seen=config["exclude_seen"])
            dropout = with_mc_dropout(forecast, NUM_SAMPLES, valid.part, options)
            found["dropout"] = losses(dropout.model, cut)
            seconds["dropout"] = seconds["chain"] = seconds[form]
    control = found["deterministic"]
    records = []
    for form, of_form in found.items():
        metrics: dict[str, Any] = {"num_users": len(cut.target), "cpu_seconds": seconds[form]}
        for metric, loss in of_form.items():
            metrics[metric] = float(loss.mean())
            against = control["independent" if metric == "joint" else metric]
            if form != "deterministic":
                metrics[f"{metric}_difference"] = float((loss - against).mean())
                metrics[f"{metric}_difference_interval"] = mean_interval(np.arange(len(loss)), loss - against)
        case = {"data": name, "form": form}
        settled = {"changes": changes}
        records.append(record_of("joint", case, metrics, seed=seed, settings=settled, data=dataset.description))
    return records


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "joint")
    parser.add_argument("name", metavar="NAME", help="a data set of the recipes, without visits")
    parser.add_argument("data", type=Path, metavar="DATA", help="its folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--max-users", type=int, default=3000, help="users that are asked")
    parser.add_argument("--epochs", type=int, help="training epochs; those of the defaults where not given")
    given = parser.parse_args(words)

    def work() -> None:
        check_writable(given.out)
        dataset = load_dataset(given.name, given.data)
        changes = {} if given.epochs is None else {"max_epochs": given.epochs}
        for seed in given.seeds:
            records = records_of(dataset, given.name, seed, given.max_users, changes)
            append_records(given.out, records)
            for one in records:
                shown = {key: value for key, value in one["metrics"].items() if "difference" in key or key == "joint"}
                print(seed, one["case"]["form"], shown, flush=True)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
