"""A split log into trainers that finish in about a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import SHORT_TRAINING, SMALL_NETWORK
from variseq.evaluation.splits import Part
from variseq.log import LogPart
from variseq.model.network import Network, NetworkConfig
from variseq.training.callbacks import TrainingCallback
from variseq.training.config import TrainingConfig
from variseq.training.run import RunContext, Settings
from variseq.training.trainer import Trainer, Validation


class OnEpoch(TrainingCallback):
    """Calls a function with the record of each epoch."""

    def __init__(self, function: Callable[[dict[str, Any]], object]) -> None:
        self.on_epoch = function  # type: ignore[method-assign,assignment]


TIMES = ("seconds", "seconds_left", "tokens_per_second")


def settings_for(part: Part, network: dict[str, Any] | None = None, **training: Any) -> Settings:
    """Small settings for the items of a part."""
    shape = {**SMALL_NETWORK, "num_items": part.num_items, "num_behaviors": 3, "has_gaps": True, **(network or {})}
    return Settings(NetworkConfig(**shape), TrainingConfig(**{**SHORT_TRAINING, **training}))


@contextmanager
def every_step(step: Callable[..., None]) -> Iterator[None]:
    """Training steps inside are those of `step`, in place of `gradient_step`."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("variseq.training.trainer.gradient_step", step)
        yield


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
    return Trainer(built, train.history(), validation, settings.training, folder)


def context_in(folder: Path | None, resume: bool = False, tensorboard: bool = False) -> RunContext:
    return RunContext(torch.device("cpu"), OnEpoch(lambda _: None), folder, resume, tensorboard)


def without_times(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records without what depends on the clock."""
    return [{key: value for key, value in record.items() if key not in TIMES} for record in records]


def weights_of(network: Network) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def are_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Equal to the last bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
