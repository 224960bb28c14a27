"""The count of FLOPs, the made-up logs, and the profile that the share of the peak rests on."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks import exploration_path  # noqa: F401
from variseq.model import losses
from variseq.model.network import Network, NetworkConfig, Weights
from variseq.sequences.batches import make_batch, query_windows
from variseq.sequences.histories import Histories
from variseq.training.settings import TrainingConfig
from variseq.training.trainer import Trainer, TrainingData

from step_profile import ORDER, profiled_seconds  # isort: skip
from training_share import PARTS, SHAPES, epoch_flops, training_flops  # isort: skip

HISTORIES = Histories.of_items([[1, 2, 3, 4, 5, 6, 7], [7, 6, 5, 4, 3, 2, 1]])


def network(**changes: object) -> Network:
    small = {"num_items": 9, "hidden_size": 8, "latent_dim": 6, "attention_dim": 4, "num_layers": 2, "num_heads": 2}
    return Network(NetworkConfig.model_validate(small | {"dropout": 0.0} | changes))


def test_formula_counts_what_torch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    # Torch counts no product inside the chunked forms: their plain twins do the same ones in the open.
    monkeypatch.setattr(losses, "softmax_loss", losses.softmax_loss_plain)
    model = network(attention="dot")
    windows = query_windows(HISTORIES, 8)
    batch = make_batch(HISTORIES, windows, np.arange(2), 9)
    with FlopCounterMode(display=False) as counter:
        model.objective(batch, Weights(beta=1.0)).loss.backward()
    # Rectangles without empty slots; torch's forms work out the future too, before it is masked.
    all_pairs = 2 * 8 * 8
    assert counter.get_total_flops() == sum(training_flops(model.config, 16, all_pairs, num_scored=9).values())


def test_only_the_past_and_real_positions_count() -> None:
    config, training = network().config, TrainingConfig()
    counted = epoch_flops(config, training, [3, 1])
    assert counted == training_flops(config, num_tokens=4, num_pairs=3 * 4 // 2 + 1, num_scored=9)
    assert tuple(counted) == PARTS


def test_only_the_negatives_count_where_items_are_sampled() -> None:
    config, training = network().config, TrainingConfig(full_softmax_max_items=8, num_negatives=5)
    assert epoch_flops(config, training, [1]) == training_flops(config, num_tokens=1, num_pairs=1, num_scored=5)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_made_up_log_has_the_lengths_of_the_real_one(shape: object) -> None:
    made = shape.histories(shape.num_events)  # type: ignore[attr-defined]
    assert made.lengths.mean() == pytest.approx(shape.mean_length, rel=0.05)  # type: ignore[attr-defined]
    assert made.num_events == pytest.approx(shape.num_events, rel=0.01)  # type: ignore[attr-defined]
    assert all(one <= other for one, other in pairwise(shape.lengths))  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:Profiler clears events")
def test_profile_holds_the_whole_epoch_and_every_part(capfd: pytest.CaptureFixture[str]) -> None:
    training = TrainingConfig(max_epochs=2, batch_tokens=16, deterministic_fraction=0.0, kl_anneal_fraction=0.0)
    trainer = Trainer(network(), TrainingData(HISTORIES, None), training)
    seconds = profiled_seconds(trainer)
    assert tuple(seconds) == ORDER
    assert all(part > 0 for part in seconds.values())
    assert sum(seconds.values()) < trainer.progress.total_seconds
    assert torch.isfinite(trainer.network.item_bias).all()
    capfd.readouterr()  # the profiler speaks of its start and end
