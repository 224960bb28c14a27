"""A split log into trainers that finish in about a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.conftest import SHORT_TRAINING, SMALL_NETWORK
from variseq.evaluation.splits import Part
from variseq.log import LogPart
from variseq.model.network import Network, NetworkConfig
from variseq.training.display import Display
from variseq.training.run import Settings, Workplace
from variseq.training.settings import TrainingConfig
from variseq.training.trainer import Trainer, TrainingData
from variseq.training.validation import Validation

TIMES = ("seconds", "seconds_left", "positions_per_second")
QUIET = Display(quiet=True)


def settings_for(part: Part, network: dict[str, Any] | None = None, **training: Any) -> Settings:
    """Small settings for the items of a part."""
    shape = {**SMALL_NETWORK, "num_items": part.num_items, "num_behaviors": 3, "has_gaps": True, **(network or {})}
    return Settings(NetworkConfig(**shape), TrainingConfig(**{**SHORT_TRAINING, **training}))


def trainer_for(
    parts: tuple[LogPart, LogPart, LogPart],
    folder: Path | None = None,
    network: dict[str, Any] | None = None,
    **training: Any,
) -> Trainer:
    """A trainer whose network starts as its seed says."""
    train, valid = parts[0].part, parts[1].part
    settings = settings_for(train, network, **training)
    torch.manual_seed(settings.training.seed)
    built = Network(settings.network)
    validation = Validation(valid, settings.training)
    return Trainer(built, TrainingData(train.known(), validation), settings.training, folder)


def workplace_in(folder: Path | None, resume: bool = False, tensorboard: bool = False) -> Workplace:
    return Workplace(torch.device("cpu"), QUIET, folder, resume, tensorboard)


def without_times(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records without what depends on the clock."""
    return [{key: value for key, value in record.items() if key not in TIMES} for record in records]


def weights_of(network: Network) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def are_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Equal to the last bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
