"""Optimizers of torch without its compiler, which they would import: 2.5 CPU seconds in each process."""

from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap
from typing import Any

import torch
from torch.optim import Optimizer


class _WithoutCompiler(Optimizer):
    """The methods that torch wraps, so that its compiler leaves them as they are, without the wrapper."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        unwrap(Optimizer.add_param_group)(self, param_group)

    def state_dict(self) -> dict[str, Any]:
        return unwrap(Optimizer.state_dict)(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        unwrap(Optimizer.load_state_dict)(self, state_dict)

    def zero_grad(self, set_to_none: bool = True) -> None:
        unwrap(Optimizer.zero_grad)(self, set_to_none)


class AdamW(_WithoutCompiler, torch.optim.AdamW):
    """`torch.optim.AdamW`, to the bit; it cannot be compiled or differentiated."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        return unwrap(torch.optim.AdamW.step)(self, closure)


class LBFGS(_WithoutCompiler, torch.optim.LBFGS):
    """`torch.optim.LBFGS`, to the bit; it cannot be compiled."""
