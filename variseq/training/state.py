"""The state of an unfinished run in one safetensors file; a run that resumes from it ends with the same bits."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from variseq.atomic import atomic_write
from variseq.errors import CheckpointError, InputError

FORMAT_VERSION = 3


@dataclass
class Progress:
    """The position in a run: `epoch` and `batch` are the next ones; the sums are of the current epoch."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    beta: float = 0.0
    best_metric: float = float("-inf")
    best_epoch: int = -1
    seconds: float = 0.0
    total_seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)


def save_state(path: Path, progress: Progress, tensors: dict[str, Tensor]) -> None:
    """Write tensors and progress to one safetensors file, atomically. Raises InputError when that fails."""
    metadata = {"format": str(FORMAT_VERSION), "progress": json.dumps(asdict(progress))}
    try:
        with atomic_write(path) as unfinished:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, unfinished, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"The state of the run cannot be written to {path}: {error}. Free some room or choose another folder; a "
            "state that was written before is still there to resume from."
        ) from error


def load_state(path: Path) -> tuple[Progress, dict[str, Tensor]]:
    """Read what `save_state` wrote. Raises CheckpointError for a damaged file or one of another version."""
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
        if int(metadata["format"]) != FORMAT_VERSION:
            raise CheckpointError(
                f"{path} was written by another version of variseq. Resume with that version, or remove the folder of "
                "the unfinished run and start again."
            )
        return Progress(**json.loads(metadata["progress"])), tensors
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"The training state {path} cannot be read ({error}). Start the run again without --resume."
        ) from error


def network_tensors(prefix: str, network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of a network under a prefix."""
    return {f"{prefix}.{name}": tensor.detach().clone() for name, tensor in network.state_dict().items()}


def load_network(prefix: str, network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """The inverse of `network_tensors`."""
    start = len(prefix) + 1
    network.load_state_dict({n[start:]: t for n, t in tensors.items() if n.startswith(f"{prefix}.")})


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The moments of the optimizer, parameter by parameter."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{index}.{name}": value.detach().clone() if isinstance(value, Tensor) else torch.tensor(value)
        for index, moments in state.items()
        for name, value in moments.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
