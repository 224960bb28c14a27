"""The network that validation chose and all events before the test part into the network that answers."""

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
"""Between the seeds of one refit and the next, so that no refit draws what a run of a neighboring seed draws."""


def seed_of_refit(config: TrainingConfig, number: int) -> int:
    """The seed of a refit; the first has that of the run.

    >>> seed_of_refit(TrainingConfig(seed=5), 0)
    5
    """
    return config.seed + number * SEEDS_APART


def refit(
    network: Network, histories: Histories, config: TrainingConfig, folder: Path | None, callback: TrainingCallback
) -> float:
    """Go on from the chosen network with the validation events added, `config.num_refits` times; it becomes their mean.

    Each is a second, shorter run of the learning rate, from the same network and with the batches in another order. All
    choices have been made: nothing is validated, and the noise is on from the first step (steps without it would
    unlearn what it has bought; a twin stays without); `config.beta` is the weight of the KL to begin with. The items'
    own vectors decay `config.refit_weight_decay_multiplier` times as much, as nothing is left to see what is learned by
    heart. A network that has never seen the latest events is out of date by the time it is asked; a refit costs a part
    of the epochs and gives most of what training from the start would. What one refit learns by heart another does not,
    and the mean of their weights keeps what they share (Wortsman et al. 2022, "Model soups"). What each of this is
    worth stands in docs/ablations.md. Returns the seconds it took. With a `folder` each refit has its state in a folder
    there, and goes on from it.
    """
    noise = {"deterministic_fraction": 0.0, "kl_anneal_fraction": 0.0} if config.deterministic_fraction < 1 else {}
    decay = config.refit_weight_decay_multiplier * config.item_weight_decay
    of_refit = {"max_epochs": config.refit_epochs, "item_weight_decay": decay, **noise}
    chosen, refitted, seconds = network_tensors("network", network), [], 0.0
    for number in range(config.num_refits):
        again = config.model_copy(update={"seed": seed_of_refit(config, number), **of_refit})
        load_network("network", network, chosen)
        callback.on_refit(number, config.num_refits)
        place = None if folder is None else folder / str(number)
        later = (config.num_refits - 1 - number) * config.refit_epochs
        trainer = Trainer(network, TrainingData(histories, None), again, place, later)
        seconds += _trained_through(trainer, callback)
        refitted.append(network_tensors("network", network))
    load_network("network", network, mean_of(refitted))
    return seconds


def _trained_through(trainer: Trainer, callback: TrainingCallback) -> float:
    """Trains from the start, or from where it was broken off, to the end; the seconds of all of it."""
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
