"""Numbers dropped at random in training: one byte of randomness a number, where torch draws a whole float for each."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

LEVELS = 256


def kept_levels(dropout: float) -> int:
    """How many of 256 levels of a byte keep a number: the share dropped is met to within 1/512, never 1.

    >>> kept_levels(0.5), kept_levels(0.2), kept_levels(0.999)
    (128, 205, 1)
    """
    return max(1, LEVELS - round(LEVELS * dropout))


def drop(values: Float[Tensor, "*shape"], dropout: float, training: bool) -> Float[Tensor, "*shape"]:
    """`values` with a random share of `dropout` set to zero and the rest scaled up to the same expectation.

    Outside training nothing happens. `torch.nn.functional.dropout` does the same four times as slowly on a CPU
    (`benchmarks/kernels.py`); its draws are others.

    >>> drop(torch.ones(2), dropout=0.5, training=False)
    tensor([1., 1.])
    """
    if not training or dropout == 0:
        return values
    kept = kept_levels(dropout)
    # random_ fills 63 of the 64 bits of a long, and all 32 of an int.
    number = values.numel()
    draws = torch.empty((number + 3) // 4, dtype=torch.int32, device=values.device).random_(-(2**31), 2**31)
    mask = (draws.view(torch.uint8)[:number].view(values.shape) < kept).to(values.dtype).mul_(LEVELS / kept)
    return values * mask
