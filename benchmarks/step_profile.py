"""One epoch of a trainer into seconds by part of the model, forward and backward together, from torch.profiler."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

from variseq.model.attention import AdditiveAttention, DotProductAttention
from variseq.model.encoder import CausalSelfAttention, FeedForward
from variseq.model.latent import LatentHead
from variseq.model.network import Network
from variseq.training.trainer import Trainer, gradient_step

MARK = "part: "
UPDATE, OTHER, PYTHON = "optimizer, clipping, average", "norms, dropout, look-up", "batches, Python"
PART_OF_MODULE: dict[type[nn.Module], str] = {
    CausalSelfAttention: "self-attention",
    AdditiveAttention: "posterior attention",
    DotProductAttention: "posterior attention",
    FeedForward: "feed-forward",
    LatentHead: "other products",
}
PART_OF_EVENT = {
    "_ChunkedSoftmax": "catalog",
    "autograd::engine::evaluate_function: _ChunkedSoftmaxBackward": "catalog",
    "autograd::engine::evaluate_function: torch::autograd::AccumulateGrad": UPDATE,
    "aten::_foreach_lerp_": UPDATE,
}
ORDER = ("catalog", "self-attention", "posterior attention", "feed-forward", "other products", OTHER, UPDATE, PYTHON)


def profiled_seconds(trainer: Trainer) -> dict[str, float]:
    """Seconds of the trainer's second epoch by part; the first, which warms up, runs without the profiler.

    A backward step belongs to the part whose forward step made it. What no torch operation accounts for is Python and
    the making of batches.
    """
    _mark_modules(trainer.network)
    profiler = profile(activities=[ProfilerActivity.CPU])
    clock: list[float] = []

    def record(_epoch: dict[str, Any]) -> None:
        clock.append(trainer.progress.total_seconds)
        if len(clock) == 1:
            profiler.start()
        elif len(clock) == 2:
            profiler.stop()

    trainer.run([record], step=_marked_step)
    seconds = _seconds_by_part(profiler.events())
    seconds[PYTHON] = max(0.0, clock[1] - clock[0] - sum(seconds.values()))
    return {part: seconds.get(part, 0.0) for part in ORDER}


def _mark_modules(network: Network) -> None:
    """Every call of a module of a part stands in the profile under its name."""
    marked = [(module, PART_OF_MODULE[type(module)]) for module in network.modules() if type(module) in PART_OF_MODULE]
    marked += [(network.decoder.posterior, "other products"), (network.decoder.context, "other products")]
    for module, part in marked:
        running: list[Any] = []

        def enter(_module: nn.Module, _inputs: Any, part: str = part, running: list[Any] = running) -> None:
            running.append(record_function(MARK + part).__enter__())

        def leave(_module: nn.Module, _inputs: Any, _output: Any, running: list[Any] = running) -> None:
            running.pop().__exit__(None, None, None)

        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)


def _marked_step(network: Network, optimizer: torch.optim.Optimizer, loss: Tensor, max_grad_norm: float) -> None:
    """`gradient_step`, in which all but the backward pass is the update."""
    with record_function(MARK + UPDATE):
        gradient_step(network, optimizer, loss, max_grad_norm)


def _seconds_by_part(events: Any) -> dict[str, float]:
    """Each operation's own time, summed by the part of its nearest marked ancestor."""
    part_of_forward: dict[int, str] = {}
    for event in events:
        part = _nearest_part(event)
        # An operation that makes a node has the number of that node, and is the last to have it.
        if part is not None and event.sequence_nr >= 0 and not _is_backward(event):
            part_of_forward[event.sequence_nr] = part
    seconds: dict[str, float] = defaultdict(float)
    for event in events:
        seconds[_part(event, part_of_forward)] += event.self_cpu_time_total / 1e6
    return dict(seconds)


def _part(event: Any, part_of_forward: dict[int, str]) -> str:
    while event is not None:
        part = _own_part(event)
        if part is not None:
            return part
        if event.name.startswith("autograd::engine::evaluate_function"):
            return part_of_forward.get(event.sequence_nr, OTHER)
        event = event.cpu_parent
    return OTHER


def _nearest_part(event: Any) -> str | None:
    while event is not None:
        part = _own_part(event)
        if part is not None:
            return part
        event = event.cpu_parent
    return None


def _own_part(event: Any) -> str | None:
    if event.name.startswith(MARK):
        return str(event.name.removeprefix(MARK))
    return PART_OF_EVENT.get(event.name)


def _is_backward(event: Any) -> bool:
    while event is not None:
        if event.name.startswith("autograd::engine"):
            return True
        event = event.cpu_parent
    return False
