"""The project's own model with its defaults, and its baselines, for the runner of competitors."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from process import EnoughMeasured, Job, K, LearningCurve, Lists, Sequences, Settings, measure

from variseq import ReadOptions, VariationalAttention, read
from variseq.training.callbacks import TrainingCallback
from variseq.training.config import TrainingConfig
from variseq.training.defaults import LogProperties, network_config, training_config

NUM_WARM_BATCHES, NUM_BATCHES = 4, 24
ALL_USERS = 10_000_000
OF_ROWS = (f"ndcg@{K}", f"ndcg@{K}_interval", "num_queries")


class VariseqModel:
    """`variant` is the size; hidden size, layers and heads of "small" are those of the competitors.

    The learning rate follows a schedule to the last epoch, so a budget is kept by planning fewer epochs from the cost
    of a few batches, and not by breaking off.
    """

    def __init__(self, sequences: Sequences, settings: Settings) -> None:
        self.settings = settings
        lengths = [len(history) for history in sequences.histories.values()]
        events = {
            "user_id": np.repeat(list(sequences.histories), lengths),
            "item_id": np.concatenate(list(sequences.histories.values())),
            "timestamp": np.concatenate([np.arange(1, length + 1) for length in lengths]),
        }
        log = read(pa.table(events), options=ReadOptions(time_unit="seconds"))
        self.train_part, self.valid, self.test = log.split("leave-one-out")
        self.targets_per_epoch = sequences.num_targets()
        self.model = self._model()
        self.planning_seconds = 0.0
        self.baselines: dict[str, Any] = {}

    @property
    def num_parameters(self) -> int | None:
        checkpoint = self.model.checkpoint
        return None if checkpoint is None else sum(p.numel() for p in checkpoint.network.parameters())

    def describe(self) -> dict[str, Any]:
        found: dict[str, Any] = {"versions": {"variseq": version("variseq"), "torch": torch.__version__}}
        checkpoint = self.model.checkpoint
        if checkpoint is not None:
            found["own_settings"] = {name: checkpoint.config[name] for name in ("size", "model", "training")}
        return found | {"planning_seconds": self.planning_seconds, "baselines": self.baselines}

    def measure_cost(self) -> float:
        """CPU seconds of an epoch, a mean over those without noise and those with it, which cost more."""
        costs = [self._epoch_seconds(fraction) for fraction in (1.0, 0.0)]
        fraction = self._usual().deterministic_fraction
        return fraction * costs[0] + (1 - fraction) * costs[1]

    def _usual(self) -> TrainingConfig:
        """The training settings that follow from the size and the log."""
        properties = LogProperties.of(self.train_part.part.history(), self.train_part.vocabulary)
        network = network_config(self.settings.variant, properties, {})  # type: ignore[arg-type]
        return training_config(properties, network, self.settings.seed, {})

    def _epoch_seconds(self, deterministic_fraction: float) -> float:
        clock = BatchClock()
        model = self._model(deterministic_fraction=deterministic_fraction, kl_anneal_fraction=0.0, max_epochs=1)
        with contextlib.suppress(EnoughMeasured):
            model.fit(self.train_part, self.valid, callback=clock)
        return clock.epoch_seconds

    def train(self, curve: LearningCurve) -> str:
        usual, begun = self._usual().max_epochs, time.process_time()
        affordable = int(60 * self.settings.cpu_minutes / self.measure_cost())
        self.planning_seconds = time.process_time() - begun
        planned = max(1, min(usual, affordable))
        self.model = self._model(max_epochs=planned)
        self.model.fit(self.train_part, self.valid, callback=CurveCallback(curve))
        if len(curve.points) < planned:
            return "patience"
        return "schedule" if planned == usual else "budget"

    def recommend_all(self) -> None:
        """The order alone, as the competitors give it: no probabilities, intervals or reasons."""
        self.model.recommend(self.model.vocabulary.users.to_pylist(), k=K, ranks_only=True)

    def test_lists(self) -> Lists:
        """From the evaluation: `recommend` knows the test events, as they are in the log."""
        results = self.model.evaluate(self.test, k=K)
        for row in results.table["rows"][1:]:
            self.baselines[row["model"]] = {name: row[name] for name in OF_ROWS} | {f"hit_rate@{K}": row[f"recall@{K}"]}
        found, vocabulary = results["variseq"], self.model.vocabulary
        users = vocabulary.user_ids(found.user)
        return {user: vocabulary.item_ids(row[row >= 0]) for user, row in zip(users, found.top_item, strict=True)}

    def recommend_one(self, history: list[int]) -> Sequence[Any]:
        return list(self.model.recommend(history=history, k=K).item_id)

    def _model(self, **training: Any) -> VariationalAttention:
        settings = self.settings
        # No competitor trains on validation events here, so neither does this model.
        fixed = {"patience": settings.patience, "validation_users": ALL_USERS, "refit_fraction": 0.0}
        length = {"max_seq_len": settings.max_seq_len}
        return VariationalAttention(settings.variant, settings.seed, "cpu", length, fixed | training)  # type: ignore[arg-type]


class CurveCallback(TrainingCallback):
    """Notes the epochs instead of showing them; validation comes after the last batch of one."""

    def __init__(self, curve: LearningCurve) -> None:
        self.curve = curve

    def on_begin(self, num_epochs: int) -> None:
        self.curve.begin_epoch()

    def on_batch(self, epoch: int, done: float, tokens_per_second: float, seconds_left: float) -> None:
        if done == 1:
            self.curve.end_epoch()

    def on_epoch(self, record: dict[str, Any]) -> None:
        self.curve.validated(record["validation_ndcg"])
        self.curve.begin_epoch()


class BatchClock(TrainingCallback):
    """Times some batches instead of showing them."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []

    def on_begin(self, num_epochs: int) -> None:
        self.times.append((0.0, time.process_time()))

    def on_batch(self, epoch: int, done: float, tokens_per_second: float, seconds_left: float) -> None:
        self.times.append((done, time.process_time()))
        if len(self.times) > NUM_WARM_BATCHES + NUM_BATCHES:
            raise EnoughMeasured

    @property
    def epoch_seconds(self) -> float:
        """CPU seconds of a whole epoch at the pace of the batches after the first ones."""
        (done, begun), (done_last, ended) = self.times[min(NUM_WARM_BATCHES, len(self.times) - 2)], self.times[-1]
        return (ended - begun) / (done_last - done)


if __name__ == "__main__":
    measure(Job.from_command_line(), VariseqModel)
