"""The short training that adds the validation events, after everything has been chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.some_runs import are_equal, context_in, every_step, settings_for, weights_of
from tests.training.test_resume import InterruptedStep
from variseq.log import LogPart
from variseq.model.network import Network
from variseq.sequences.batches import training_windows
from variseq.training.callbacks import TrainingCallback
from variseq.training.run import Trained, train_network
from variseq.training.trainer import Trainer

Parts = tuple[LogPart, LogPart, LogPart]
Weights = dict[str, torch.Tensor]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::variseq.errors.PosteriorCollapseWarning")]

REFITS = {"refit_fraction": 0.5, "num_refits": 2, "item_weight_decay": 0.25, "refit_weight_decay_multiplier": 2.0}


def train(
    parts: Parts,
    folder: Path | None = None,
    resume: bool = False,
    callback: TrainingCallback | None = None,
    **training: object,
) -> Trained:
    settings = settings_for(parts[0].part, max_epochs=4, **training)
    context = context_in(folder, resume)
    context = context if callback is None else replace(context, callback=callback)
    return train_network(parts[0].part, parts[1].part, settings, context)


@dataclass
class TrainerRun:
    """What one trainer did: the first of a run is the training, the others are refits."""

    items: np.ndarray
    item_decay: float
    begun: Weights
    ended: Weights = field(default_factory=dict)
    noise: list[float] = field(default_factory=list)


class Clock(TrainingCallback):
    """Notes the time left in epochs, and in tokens."""

    def __init__(self) -> None:
        self.epochs_left: list[int] = []
        self.tokens_left: list[float] = []

    def on_epoch(self, record: dict[str, Any]) -> None:
        self.epochs_left.append(round(record["seconds_left"] / record["seconds"]))

    def on_batch(self, epoch: int, done: float, tokens_per_second: float, seconds_left: float) -> None:
        self.tokens_left.append(seconds_left * tokens_per_second)


@dataclass
class Observed:
    trained: Trained
    runs: list[TrainerRun]
    clock: Clock


def observe(parts: Parts, **training: object) -> Observed:
    runs: list[TrainerRun] = []
    trainer_run, objective = Trainer.run, Network.objective

    def observed_run(trainer: Trainer, callbacks: Sequence[TrainingCallback] = ()) -> None:
        item_vectors = trainer.network.embedding.item
        (group,) = [group for group in trainer.optimizer.param_groups if item_vectors in set(group["params"])]
        runs.append(TrainerRun(trainer.histories.item, group["weight_decay"], weights_of(trainer.network)))
        trainer_run(trainer, callbacks)
        runs[-1].ended = weights_of(trainer.network)

    def observed_objective(network: Network, batch: Any, weights: Any, *more: Any) -> Any:
        runs[-1].noise.append(weights.noise)
        return objective(network, batch, weights, *more)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Trainer, "run", observed_run)
        patched.setattr(Network, "objective", observed_objective)
        clock = Clock()
        return Observed(train(parts, callback=clock, **training), runs, clock)


@pytest.fixture(scope="module")
def observed(shop_parts: Parts) -> Observed:
    return observe(shop_parts, **REFITS)


def test_refit_goes_on_from_the_chosen_network_and_leaves_that_as_it_was(shop_parts: Parts, observed: Observed) -> None:
    without, trained = train(shop_parts, **REFITS | {"refit_fraction": 0.0}), observed.trained
    assert without.chosen is without.network
    assert are_equal(weights_of(trained.chosen), weights_of(without.chosen))
    assert not are_equal(weights_of(trained.network), weights_of(trained.chosen))
    assert trained.metrics[0]["validation_ndcg"] == without.metrics[0]["validation_ndcg"]


def test_refit_learns_from_the_validation_events_and_never_from_test(shop_parts: Parts, observed: Observed) -> None:
    before, after = shop_parts[0].part.history(), shop_parts[2].part.history()
    for run, expected in zip(observed.runs, (before, after, after), strict=True):
        np.testing.assert_array_equal(run.items, expected.item)


def test_result_is_the_mean_of_refits_that_begin_alike_and_go_apart(observed: Observed) -> None:
    _, first, second = observed.runs
    assert are_equal(first.begun, second.begun)
    assert not are_equal(first.ended, second.ended)
    for name, tensor in weights_of(observed.trained.network).items():
        is_float = tensor.is_floating_point()
        expected = (first.ended[name] + second.ended[name]) / 2 if is_float else first.ended[name]
        torch.testing.assert_close(tensor, expected, msg=name)


def test_item_vectors_decay_in_the_refit_by_the_multiplier_more(observed: Observed) -> None:
    assert [run.item_decay for run in observed.runs] == [0.25, 0.5, 0.5]


def test_time_left_is_that_of_all_refits_too(shop_parts: Parts, observed: Observed) -> None:
    clock, histories = observed.clock, shop_parts[0].part.history()
    assert clock.epochs_left == [7, 6, 5, 4, 3, 2, 1, 0]
    # After the last batch of the first of eight epochs there are seven left.
    tokens = int(training_windows(histories, 200, np.random.default_rng(0)).lengths.sum())
    assert clock.tokens_left[len(clock.tokens_left) // 8 - 1] == pytest.approx(7 * tokens, rel=0.01)
    assert clock.tokens_left[-1] == 0


def test_refit_is_under_noise_from_its_first_step_and_a_deterministic_run_stays_without(
    shop_parts: Parts, observed: Observed
) -> None:
    assert observed.runs[0].noise[0] == 0.0
    assert {noise for run in observed.runs[1:] for noise in run.noise} == {1.0}
    deterministic = observe(shop_parts, **REFITS, deterministic_fraction=1.0)
    assert {noise for run in deterministic.runs for noise in run.noise} == {0.0}


def test_run_interrupted_in_its_second_refit_resumes_to_the_same_result(
    shop_parts: Parts, observed: Observed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer_run = Trainer.run

    def interrupted_refit(trainer: Trainer, callbacks: Sequence[TrainingCallback] = ()) -> None:
        if trainer.folder is not None and trainer.folder.name == "1":
            with every_step(InterruptedStep(at=7)):
                trainer_run(trainer, callbacks)
        trainer_run(trainer, callbacks)

    monkeypatch.setattr(Trainer, "run", interrupted_refit)
    with pytest.raises(KeyboardInterrupt):
        train(shop_parts, tmp_path / "run", **REFITS)
    monkeypatch.setattr(Trainer, "run", trainer_run)
    resumed = train(shop_parts, tmp_path / "run", resume=True, **REFITS)
    assert are_equal(weights_of(resumed.network), weights_of(observed.trained.network))
    assert resumed.seconds > 0
