"""The short training that takes in the validation events, after everything has been chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.some_runs import are_equal, settings_for, weights_of, workplace_in
from tests.training.test_resume import InterruptedStep
from variseq.log import LogPart
from variseq.sequences.batches import training_windows
from variseq.training import run as room
from variseq.training.display import Display
from variseq.training.run import Trained, train_network
from variseq.training.trainer import Trainer

Parts = tuple[LogPart, LogPart, LogPart]

pytestmark = pytest.mark.filterwarnings("ignore::variseq.errors.PosteriorCollapseWarning")


def train(parts: Parts, folder: Path | None = None, resume: bool = False, **training: object) -> Trained:
    settings = settings_for(parts[0].part, max_epochs=4, **training)
    return train_network(parts[0].part, parts[1].part, settings, workplace_in(folder, resume))


def positions_of(part: LogPart) -> int:
    histories = part.part.known()
    return int(training_windows(histories, 200, np.random.default_rng(0)).lengths.sum())


def test_refit_goes_on_from_the_chosen_network_and_leaves_that_as_it_was(shop_parts: Parts) -> None:
    without = train(shop_parts, refit_fraction=0.0)
    with_refit = train(shop_parts, refit_fraction=0.5)
    assert without.chosen is without.network
    assert are_equal(weights_of(with_refit.chosen), weights_of(without.chosen))
    assert not are_equal(weights_of(with_refit.network), weights_of(with_refit.chosen))
    assert with_refit.metrics[0]["validation_ndcg"] == without.metrics[0]["validation_ndcg"]


def test_refit_learns_from_the_validation_events_and_never_from_test(
    shop_parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[np.ndarray] = []
    plan = Trainer._plan

    def watched(trainer: Trainer, epoch: int) -> object:
        learned.append(trainer.data.histories.item)
        return plan(trainer, epoch)

    monkeypatch.setattr(Trainer, "_plan", watched)
    train(shop_parts, refit_fraction=0.5)
    before, after = shop_parts[0].part.known(), shop_parts[2].part.known()
    assert [len(items) for items in learned] == [before.num_events] * 4 + [after.num_events] * 2 * 2
    np.testing.assert_array_equal(learned[-1], after.item)


def test_answer_is_the_mean_of_refits_that_begin_alike_and_go_apart(
    shop_parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[dict[str, torch.Tensor]] = []
    ended: list[dict[str, torch.Tensor]] = []
    trainer_run = Trainer.run

    def watched(trainer: Trainer, *recorders: object, **settings: object) -> None:
        if trainer.data.validation is None:
            begun.append(weights_of(trainer.network))
        trainer_run(trainer, *recorders, **settings)  # type: ignore[arg-type]
        if trainer.data.validation is None:
            ended.append(weights_of(trainer.network))

    monkeypatch.setattr(Trainer, "run", watched)
    network = train(shop_parts, refit_fraction=0.5, num_refits=3).network
    assert len(ended) == 3
    assert are_equal(begun[0], begun[1])
    assert are_equal(begun[0], begun[2])
    assert not are_equal(ended[0], ended[1])
    assert not are_equal(ended[1], ended[2])
    for name, tensor in weights_of(network).items():
        wanted = sum(one[name] for one in ended) / 3 if tensor.is_floating_point() else ended[0][name]
        torch.testing.assert_close(tensor, wanted, msg=name)


def test_one_refit_of_several_is_the_only_one_of_one(shop_parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    once = weights_of(train(shop_parts, refit_fraction=0.5, num_refits=1).network)
    ended: list[dict[str, torch.Tensor]] = []
    trainer_run = Trainer.run

    def watched(trainer: Trainer, *recorders: object, **settings: object) -> None:
        trainer_run(trainer, *recorders, **settings)  # type: ignore[arg-type]
        ended.append(weights_of(trainer.network))

    monkeypatch.setattr(Trainer, "run", watched)
    train(shop_parts, refit_fraction=0.5, num_refits=2)
    assert are_equal(ended[1], once)


def test_item_vectors_decay_in_the_refit_as_many_times_more_as_wanted(
    shop_parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    decays: list[tuple[bool, float]] = []
    trainer_run = Trainer.run

    def watched(trainer: Trainer, *recorders: object, **settings: object) -> None:
        decays.extend((trainer.data.validation is None, group["weight_decay"]) for group in groups_of(trainer))
        trainer_run(trainer, *recorders, **settings)  # type: ignore[arg-type]

    def groups_of(trainer: Trainer) -> list[dict[str, float]]:
        return [one for one in trainer.optimizer.param_groups if trainer.network.embedding.item in set(one["params"])]

    monkeypatch.setattr(Trainer, "run", watched)
    train(shop_parts, refit_fraction=0.5, num_refits=2, item_weight_decay=0.25, refit_weight_decay_multiplier=2.0)
    assert decays == [(False, 0.25), (True, 0.5), (True, 0.5)]


def test_time_left_is_that_of_all_refits_too(shop_parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    epochs_left: list[int] = []
    batches_left: list[float] = []

    def epoch(display: Display, record: dict[str, float]) -> None:
        epochs_left.append(round(record["seconds_left"] / record["seconds"]))

    def advance(display: Display, epoch: int, done: float, positions_per_second: float, seconds_left: float) -> None:
        batches_left.append(seconds_left * positions_per_second)

    monkeypatch.setattr(Display, "epoch", epoch)
    monkeypatch.setattr(Display, "advance", advance)
    train(shop_parts, refit_fraction=0.5, num_refits=2)
    assert epochs_left == [7, 6, 5, 4, 3, 2, 1, 0]
    # The bar tells the same: after the last batch of the first of eight epochs there are seven left.
    in_an_epoch = len(batches_left) // 8
    assert batches_left[in_an_epoch - 1] == pytest.approx(7 * positions_of(shop_parts[0]), rel=0.01)
    assert batches_left[-1] == 0


@pytest.mark.parametrize("number", [0, 1])
def test_run_broken_off_in_one_of_its_refits_resumes_to_the_same_result(
    number: int, shop_parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(shop_parts, tmp_path / "whole", refit_fraction=0.5)
    trainer_run = Trainer.run

    def interrupted_refit(trainer: Trainer, *recorders: object, **settings: object) -> None:
        if trainer.folder is not None and trainer.folder.name == str(number):
            settings["step"] = InterruptedStep(at=7)
        trainer_run(trainer, *recorders, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "run", interrupted_refit)
    with pytest.raises(KeyboardInterrupt):
        train(shop_parts, tmp_path / "broken", refit_fraction=0.5)
    monkeypatch.setattr(Trainer, "run", trainer_run)
    resumed = train(shop_parts, tmp_path / "broken", resume=True, refit_fraction=0.5)
    assert are_equal(weights_of(resumed.network), weights_of(whole.network))
    assert resumed.seconds > 0


def test_refit_is_under_noise_from_its_first_step_and_a_twin_stays_without(
    shop_parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    objective = room.Network.objective

    def watched(network: room.Network, batch: object, weights: object, negatives: object = None) -> object:
        seen.append(weights.noise)  # type: ignore[attr-defined]
        return objective(network, batch, weights, negatives)  # type: ignore[arg-type]

    monkeypatch.setattr(room.Network, "objective", watched)
    train(shop_parts, refit_fraction=0.5, deterministic_fraction=1.0)
    assert set(seen) == {0.0}
    seen.clear()
    train(shop_parts, refit_fraction=0.25)
    assert seen[0] == 0.0
    assert set(seen[-(len(seen) // 5) :]) == {1.0}
    assert torch.is_grad_enabled()
