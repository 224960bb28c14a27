"""Several processes that train one network, started by `torchrun`, and sums over all of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed

from variseq.errors import InputError, TrainingDivergedError

TIMEOUT_SECONDS = 600
"""So long a process waits for the others, which may still read the log or run a validation."""


def num_processes() -> int:
    """How many processes train the network; 1 without `torchrun`."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def process_index() -> int:
    """The number of this process, from 0; the first one writes files and messages."""
    return distributed.get_rank() if num_processes() > 1 else 0


@contextmanager
def connected(device: str) -> Iterator[None]:
    """Connect the processes that `torchrun` has started, through gloo on CPUs and nccl on GPUs; else do nothing.

    Raises:
        InputError: The processes do not find each other.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    is_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if is_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        distributed.init_process_group("nccl" if is_gpu else "gloo", timeout=timedelta(seconds=TIMEOUT_SECONDS))
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"The processes cannot be connected ({error}). Start them with torchrun --nproc-per-node N -m variseq fit …"
        ) from error
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _all_reduce(tensor: Tensor) -> None:
    try:
        distributed.all_reduce(tensor)
    except RuntimeError as error:
        raise TrainingDivergedError(
            "A process of this training has ended, so the others stop. With --resume the same command goes on from the "
            "last state in the folder of the unfinished run."
        ) from error


class _Total(torch.autograd.Function):
    """The sum over processes. A gradient comes from the losses of all of them."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        _all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        _all_reduce(total)
        return total


def total(tensor: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The sum over all processes, with gradients."""
    return tensor if num_processes() == 1 else _Total.apply(tensor)  # type: ignore[no-untyped-call]


def totals(numbers: Sequence[float], device: torch.device) -> list[float]:
    """The sums of some numbers over all processes."""
    if num_processes() == 1:
        return list(numbers)
    summed = torch.tensor(numbers, dtype=torch.float64, device=device)
    _all_reduce(summed)
    return summed.tolist()


def add_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace the gradient of each parameter by the sum over all processes; in one message."""
    if num_processes() == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad and parameter.is_leaf]
    for parameter in trained:
        # A process may have no value, where another has one.
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    flat = torch.cat([parameter.grad.flatten() for parameter in trained if parameter.grad is not None])
    _all_reduce(flat)
    parts = torch.split(flat, [parameter.numel() for parameter in trained])
    for parameter, gradient in zip(trained, parts, strict=True):
        parameter.grad = gradient.view_as(parameter)


def gathered(tensor: Tensor, device: torch.device) -> list[Tensor]:
    """The tensors of all processes, of one shape, in their order; sent from `device`, as nccl needs it."""
    if num_processes() == 1:
        return [tensor]
    sent = tensor.to(device)
    found = [torch.empty_like(sent) for _ in range(num_processes())]
    distributed.all_gather(found, sent)
    return [one.cpu() for one in found]
