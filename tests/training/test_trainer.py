from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.some_runs import OnEpoch, are_equal, every_step, trainer_for, weights_of, without_times
from variseq.errors import TrainingDivergedError
from variseq.log import LogPart
from variseq.model.network import Network
from variseq.training.config import TrainingConfig
from variseq.training.trainer import Trainer, build_optimizer, epoch_plan, gradient_step

pytestmark = pytest.mark.slow

Parts = tuple[LogPart, LogPart, LogPart]


def run(parts: Parts, **training: Any) -> Trainer:
    trainer = trainer_for(parts, **training)
    trainer.run()
    return trainer


def test_same_seed_gives_the_same_bits_and_another_seed_others(shop_parts: Parts) -> None:
    first, again, other = (run(shop_parts, seed=seed, max_epochs=2) for seed in (4, 4, 5))
    assert are_equal(weights_of(first.network), weights_of(again.network))
    assert without_times(first.records) == without_times(again.records)
    assert not are_equal(weights_of(first.network), weights_of(other.network))
    assert [record["epoch"] for record in first.records] == [0, 1]


def test_training_learns(shop_parts: Parts) -> None:
    records = run(shop_parts).records
    assert records[-1]["nll"] < records[0]["nll"] - 0.3
    uniform = float(torch.tensor(float(shop_parts[1].part.num_items)).log())
    assert records[-1]["validation_nll"] < uniform - 0.3


def test_weights_of_the_best_epoch_are_returned(shop_parts: Parts) -> None:
    trainer = trainer_for(shop_parts, learning_rate=0.03)
    seen: list[tuple[dict[str, Any], dict[str, Tensor]]] = []
    trainer.run([OnEpoch(lambda record: seen.append((record, weights_of(trainer.averaged))))])
    best = max(range(len(seen)), key=lambda epoch: (seen[epoch][0]["noise"] >= 1, seen[epoch][0]["validation_ndcg"]))
    assert trainer.progress.best_epoch == best
    assert [record["epoch"] for record, _ in seen if record["is_best"]][-1] == best
    assert are_equal(weights_of(trainer.network), seen[best][1])
    score = trainer.validation.score(trainer.network)
    assert score["validation_ndcg"] == seen[best][0]["validation_ndcg"]


def test_validation_chooses_between_epochs_without_noise_and_with_it(shop_parts: Parts) -> None:
    late = {"max_epochs": 6, "deterministic_fraction": 0.6, "kl_anneal_fraction": 0.3, "noise_learning_rate": 0.001}
    trainer = run(shop_parts, patience=1, **late)
    records = trainer.records
    assert [record["noise"] in (0, 1) for record in records] == [True, True, True, False, False, True]
    may_be = [record["validation_ndcg"] if record["noise"] in (0, 1) else -1.0 for record in records]
    assert trainer.progress.best_epoch == may_be.index(max(may_be))
    rates = [record["learning_rate"] for record in records]
    assert rates[2] < rates[1]
    assert rates[-1] < 0.001


def test_epoch_without_full_noise_is_never_chosen(shop_parts: Parts) -> None:
    records = run(shop_parts, deterministic_fraction=0.5, kl_anneal_fraction=0.05).records
    assert [record["noise"] >= 1 for record in records] == [False, False, True, True, True]
    assert not any(record["is_best"] for record in records[:2])
    assert records[2]["is_best"]


@pytest.mark.parametrize(("deterministic", "anneal"), [(0.9, 0.1), (0.95, 0.5), (1.0, 0.0)])
def test_network_that_is_returned_is_always_a_trained_one(
    shop_parts: Parts, deterministic: float, anneal: float
) -> None:
    trainer = trainer_for(shop_parts, max_epochs=2, deterministic_fraction=deterministic, kl_anneal_fraction=anneal)
    untrained = weights_of(trainer.network)
    trainer.run()
    assert trainer.progress.best_epoch >= 0
    assert not are_equal(weights_of(trainer.network), untrained)
    if deterministic == 1.0:
        assert {(record["noise"], record["beta"]) for record in trainer.records} == {(0.0, 0.0)}


def test_run_stops_when_patience_is_over(shop_parts: Parts) -> None:
    # At a learning rate this small every epoch ranks alike, so the first one stays the best.
    small = {"learning_rate": 1e-12, "deterministic_fraction": 0.0, "kl_anneal_fraction": 0.0}
    trainer = run(shop_parts, max_epochs=20, patience=2, **small)
    assert len(trainer.records) == trainer.progress.best_epoch + 1 + 2 < 20


@pytest.mark.parametrize("patience", [1, 4])
def test_patience_begins_with_the_first_epoch_of_full_noise(shop_parts: Parts, patience: int) -> None:
    # Full noise from 0.7 of the run on: of 14 epochs the last 5 can be chosen, which leaves 4 to wait for a better one.
    late = {"learning_rate": 1e-12, "deterministic_fraction": 0.6, "kl_anneal_fraction": 0.1}
    trainer = run(shop_parts, max_epochs=14, patience=patience, **late)
    records = trainer.records
    assert 9 <= trainer.progress.best_epoch == max(record["epoch"] for record in records if record["is_best"])
    assert len(records) == min(14, trainer.progress.best_epoch + 1 + patience)
    assert (len(records) < 14) == (patience == 1)


@pytest.mark.slow
def test_kl_is_adapted_to_its_target(shop_parts: Parts) -> None:
    steered = {"max_epochs": 10, "deterministic_fraction": 0.0, "kl_anneal_fraction": 0.0, "patience": 10, "beta": 0.02}
    # The scale of the means keeps the KL above half a nat per dimension, which is 4 nats here.
    records = run(shop_parts, kl_target=7.0, batch_tokens=128, **steered).records
    assert records[-1]["kl"] == pytest.approx(7.0, rel=0.2)


class Poison:
    """A step that breaks a weight at one batch."""

    def __init__(self, network: Network, at: int) -> None:
        self.network, self.at, self.done = network, at, 0

    def __call__(self, *arguments: Any) -> None:
        gradient_step(*arguments)
        self.done += 1
        if self.done == self.at:
            with torch.no_grad():
                self.network.item_bias.fill_(torch.nan)


@pytest.mark.parametrize(
    ("epoch", "batch", "place"),
    [(0, 1, "epoch 1, batch 3"), (1, 0, "epoch 2, batch 2"), (0, -1, "not finite after epoch 1")],
)
def test_run_that_diverges_stops_and_keeps_the_state_before(
    shop_parts: Parts, tmp_path: Path, epoch: int, batch: int, place: str
) -> None:
    """The weights break in a batch; the loss shows it in the next one, and a check at the end of the epoch."""
    trainer = trainer_for(shop_parts, tmp_path)
    num_batches = len(epoch_plan(trainer.histories, trainer.network.config, trainer.config, 0)[1])
    poison = Poison(trainer.network, at=epoch * num_batches + batch % num_batches + 1)
    with pytest.raises(TrainingDivergedError, match=place) as caught, every_step(poison):
        trainer.run()
    assert (str(tmp_path) in str(caught.value)) == (epoch > 0), "the state of an epoch that finished is named"
    if epoch:
        resumed = trainer_for(shop_parts, tmp_path)
        assert resumed.progress.epoch == epoch
        assert bool(resumed.network.item_bias.isfinite().all())


def test_sampled_negatives_serve_a_catalog_that_is_too_large(shop_parts: Parts) -> None:
    full = run(shop_parts, max_epochs=2).records
    sampled = run(shop_parts, max_epochs=2, full_softmax_max_items=10, num_negatives=500).records
    assert sampled[-1]["nll"] == pytest.approx(full[-1]["nll"], abs=0.3)
    assert sampled[-1]["nll"] != full[-1]["nll"]


def test_step_with_negatives_changes_no_more_numbers_than_it_looks_at(shop_parts: Parts) -> None:
    trainer, sizes = trainer_for(shop_parts, max_epochs=1, full_softmax_max_items=10, num_negatives=2), []

    def step(parameters: Any, *more: Any) -> None:
        gradient_step(parameters := list(parameters), *more)
        sizes.append(sum(one.numel() for one in parameters))
        assert trainer.network.embedding.item.grad is None

    with every_step(step):
        trainer.run()
    of_all = sum(one.numel() for one in trainer.network.parameters())
    assert min(sizes) < of_all


def test_averaged_network_is_validated_and_moves_slower_than_the_trained_one(shop_parts: Parts) -> None:
    trainer = trainer_for(shop_parts, max_epochs=1, ema_decay=0.99)
    start, validation = weights_of(trainer.network)["embedding.item"], trainer.validation
    seen = []

    def look(record: dict[str, Any]) -> None:
        nll = [validation.score(network)["validation_nll"] for network in (trainer.averaged, trainer.network)]
        moved = [
            float((weights_of(network)["embedding.item"] - start).norm())
            for network in (trainer.averaged, trainer.network)
        ]
        seen.append((record["validation_nll"], nll, moved))

    trainer.run([OnEpoch(look)])
    [(recorded, (of_averaged, of_trained), (by_average, by_training))] = seen
    assert recorded == pytest.approx(of_averaged, abs=1e-6)
    assert abs(of_trained - of_averaged) > 1e-4
    assert 0 < by_average < by_training


def test_matrices_and_item_vectors_decay_as_set_and_nothing_else_does(shop_parts: Parts) -> None:
    network = trainer_for(shop_parts).network
    optimizer = build_optimizer(network, TrainingConfig(weight_decay=0.3, item_weight_decay=0.7))
    decay = {id(one): group["weight_decay"] for group in optimizer.param_groups for one in group["params"]}
    found = {name: decay[id(one)] for name, one in network.named_parameters()}
    assert found.pop("embedding.item") == 0.7
    assert {found[name] for name in found if name.startswith("embedding.")} == {0.0}
    assert found["encoder.blocks.0.feed_forward.output.weight"] == 0.3
    assert found["item_bias"] == found["encoder.norm.weight"] == 0.0
