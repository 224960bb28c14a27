"""Refits: short trainings of the chosen network with the validation events added, whose weights are averaged."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from variseq.model.network import Network
from variseq.sequences.histories import Histories
from variseq.training.callbacks import TrainingCallback
from variseq.training.config import TrainingConfig
from variseq.training.state import load_network, network_tensors
from variseq.training.trainer import STATE, Trainer, TrainingData

SEEDS_APART = 1_000_003
"""Between the seeds of refits, so that no refit has the seed of a run with a neighboring seed."""


def seed_of_refit(config: TrainingConfig, number: int) -> int:
    """The seed of a refit; the first has that of the run.

    >>> seed_of_refit(TrainingConfig(seed=5), 0)
    5
    """
    return config.seed + number * SEEDS_APART


def refit(
    network: Network, histories: Histories, config: TrainingConfig, folder: Path | None, callback: TrainingCallback
) -> float:
    """Train `network` again with the validation events added, `config.num_refits` times; it becomes the mean of them.

    Each refit begins with the chosen network and has its own order of batches. The weights are averaged (Wortsman et
    al. 2022, "Model soups"). Noise is on from the first step, except for a deterministic run; β begins at
    `config.beta`; item vectors decay `config.refit_weight_decay_multiplier` times as much, as no validation shows
    overfitting. What each of these is worth is in docs/ablations.md. With a `folder` each refit keeps its state there
    and resumes from it. Returns the seconds of all refits.
    """
    noise = {"deterministic_fraction": 0.0, "kl_anneal_fraction": 0.0} if config.deterministic_fraction < 1 else {}
    decay = config.refit_weight_decay_multiplier * config.item_weight_decay
    of_refit = {"max_epochs": config.refit_epochs, "item_weight_decay": decay, **noise}
    chosen, refitted, seconds = network_tensors("network", network), [], 0.0
    for number in range(config.num_refits):
        again = config.model_copy(update={"seed": seed_of_refit(config, number), **of_refit})
        load_network("network", network, chosen)
        callback.on_refit(number, config.num_refits)
        state_folder = None if folder is None else folder / str(number)
        later = (config.num_refits - 1 - number) * config.refit_epochs
        trainer = Trainer(network, TrainingData(histories, None), again, state_folder, later)
        seconds += _trained_through(trainer, callback)
        refitted.append(network_tensors("network", network))
    load_network("network", network, mean_of(refitted))
    return seconds


def _trained_through(trainer: Trainer, callback: TrainingCallback) -> float:
    """Train to the end, from the saved state if there is one; the seconds of all epochs."""
    if trainer.folder is not None:
        trainer.folder.mkdir(parents=True, exist_ok=True)
        if (trainer.folder / STATE).exists():
            trainer.resume()
    trainer.run([callback])
    return trainer.progress.total_seconds


def mean_of(networks: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor over networks; of counters, which have no mean, the first.

    >>> mean_of([{"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([1.0, 4.0])}])
    {'w': tensor([0.5000, 3.0000])}
    """
    return {
        name: torch.stack([network[name] for network in networks]).mean(dim=0) if first.is_floating_point() else first
        for name, first in networks[0].items()
    }
