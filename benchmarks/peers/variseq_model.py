"""The project's own model, with the defaults of a size, into an answer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, cast

import torch
from measure import EnoughMeasured, Job, K, LearningCurve, Lists, Settings, measure
from sequences import Sequences
from variseq_log import log_of

from variseq.estimator import VariationalAttention
from variseq.training.defaults import LogProperties, Size, network_config, training_config
from variseq.training.display import Display
from variseq.training.settings import TrainingConfig

NUM_WARM_BATCHES, NUM_BATCHES = 4, 24
EVERYBODY = 10_000_000


class VariseqModel:
    """`variant` is the size. Width, blocks and heads of "small" are those of the rivals; the rest are its defaults.

    The learning rate follows a schedule to the last epoch, so a budget is kept by planning fewer epochs, from the cost
    of a few batches, and not by breaking off.
    """

    def __init__(self, sequences: Sequences, settings: Settings) -> None:
        self.settings = settings
        self.train_part, self.valid, self.test = log_of(sequences).split("leave-one-out")
        self.targets_per_epoch = sequences.num_targets()
        self.model = self._model()
        self.planning_seconds = 0.0

    @property
    def num_parameters(self) -> int | None:
        checkpoint = self.model.checkpoint
        return None if checkpoint is None else sum(p.numel() for p in checkpoint.network.parameters())

    def describe(self) -> dict[str, Any]:
        versions = {"variseq": version("variseq"), "torch": torch.__version__}
        checkpoint = self.model.checkpoint
        if checkpoint is None:
            return {"versions": versions, "own_settings": {}}
        own = {name: checkpoint.config[name] for name in ("size", "model", "training")}
        calibration = checkpoint.manifest["forecast"]["calibration"]
        learned = {"calibration": calibration, "planning_seconds": self.planning_seconds}
        return {"versions": versions, "own_settings": own, **learned}

    def measure_cost(self) -> float:
        """A mean over the epochs of a run: those without noise, and those with it, which cost more."""
        without_noise = self._usual().deterministic_fraction
        costs = [self._epoch_seconds(share) for share in (1.0, 0.0)]
        return without_noise * costs[0] + (1 - without_noise) * costs[1]

    def _epoch_seconds(self, deterministic_fraction: float) -> float:
        clock = BatchClock()
        model = self._model(deterministic_fraction=deterministic_fraction, kl_anneal_fraction=0.0, max_epochs=1)
        with contextlib.suppress(EnoughMeasured):
            model.fit(self.train_part, self.valid, display=clock)
        return clock.epoch_seconds

    def train(self, curve: LearningCurve) -> str:
        usual = self._usual().max_epochs
        begun = time.process_time()
        affordable = int(60 * self.settings.cpu_minutes / self.measure_cost())
        self.planning_seconds = time.process_time() - begun
        planned = max(1, min(usual, affordable))
        self.model = self._model(max_epochs=planned)
        self.model.fit(self.train_part, self.valid, display=CurveDisplay(curve))
        if len(curve.points) < planned:
            return "patience"
        return "schedule" if planned == usual else "budget"

    def recommend_all(self) -> None:
        """The order alone, as the rivals give it: no probabilities, intervals or reasons."""
        self.model.recommend(k=K, ranks_only=True)

    def test_lists(self) -> Lists:
        """From the evaluation: `recommend` knows the test events, as they are in the log."""
        judged = self.model.evaluate(self.test, k=K)["variseq"]
        vocabulary = self.model.vocabulary
        users = vocabulary.user_ids(judged.user)
        return {user: vocabulary.item_ids(row[row >= 0]) for user, row in zip(users, judged.top_item, strict=True)}

    def recommend_one(self, history: list[int]) -> Sequence[Any]:
        return self.model.recommend(history=history, k=K)["item_id"].tolist()

    def _model(self, **training: Any) -> VariationalAttention:
        settings = self.settings
        # No rival trains on validation events in this bench, so neither does this one.
        of_bench = {"patience": settings.patience, "validation_users": EVERYBODY, "refit_fraction": 0.0}
        size, length = cast(Size, settings.variant), {"max_seq_len": settings.max_seq_len}
        return VariationalAttention(size, settings.seed, "cpu", length, of_bench | training)

    def _usual(self) -> TrainingConfig:
        properties = LogProperties.of(self.train_part.part.known(), self.train_part.vocabulary)
        network = network_config(cast(Size, self.settings.variant), properties, {})
        return training_config(properties, network, self.settings.seed, {})


class CurveDisplay(Display):
    """Instead of showing the epochs, notes them; after the last batch of one comes its validation."""

    def __init__(self, curve: LearningCurve) -> None:
        super().__init__(quiet=True)
        self.curve = curve

    def __enter__(self) -> CurveDisplay:
        self.curve.begin_epoch()
        return self

    def advance(self, epoch: int, done: float, positions_per_second: float, seconds_left: float) -> None:
        if done == 1:
            self.curve.end_epoch()

    def epoch(self, record: dict[str, Any]) -> None:
        self.curve.validated(record["validation_ndcg"])
        self.curve.begin_epoch()


class BatchClock(Display):
    """Instead of showing the batches, times some of them."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.times: list[tuple[float, float]] = []

    def advance(self, epoch: int, done: float, positions_per_second: float, seconds_left: float) -> None:
        self.times.append((done, time.process_time()))
        if len(self.times) > NUM_WARM_BATCHES + NUM_BATCHES:
            raise EnoughMeasured

    @property
    def epoch_seconds(self) -> float:
        """CPU seconds a whole epoch takes at the pace of the batches after the first ones."""
        (done, begun), (done_last, ended) = self.times[NUM_WARM_BATCHES], self.times[-1]
        return (ended - begun) / (done_last - done)


if __name__ == "__main__":
    measure(Job.from_command_line(), VariseqModel)
