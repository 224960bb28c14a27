"""Normal noise in whole steps of a grid, from the random source of the operating system."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from jaxtyping import Int

GRID = 2.0**-14
"""A step of the grid, where one user adds at most a norm of 1: sums and noise are whole numbers of steps."""
LARGEST_NOISE = 12
"""Standard deviations of noise that no number of a sum reaches."""

Noise = Callable[[float, int], Int[np.ndarray, " number"]]
"""Gives so many numbers, in steps of `GRID`, with a standard deviation in units of the norm."""


def secure_noise(standard_deviation: float, number: int) -> Int[np.ndarray, " number"]:
    """Rounded normal numbers, in steps of `GRID`.

    A seed would let a reader subtract the noise, so there is none. Numbers on a grid have no low bits that tell the sum
    apart (Mironov 2012, "On significance of the least significant bits for differential privacy"). Each is the quantile
    of a 64-bit number, with its sign drawn apart; a probability of a step is right up to a relative error below 10⁻⁹
    within six standard deviations.

    Args:
        standard_deviation: Of the noise, in units of the norm that one user adds at most.
        number: How many.
    """
    from scipy.special import ndtri

    uniform = np.frombuffer(os.urandom(8 * number), dtype=np.uint64)
    signs = np.unpackbits(np.frombuffer(os.urandom((number + 7) // 8), dtype=np.uint8), count=number)
    magnitude = -ndtri((uniform.astype(np.float64) + 0.5) * 2.0**-65)
    steps = np.rint(magnitude * (standard_deviation / GRID)).astype(np.int64)
    return np.where(signs == 1, steps, -steps)


def no_noise(standard_deviation: float, number: int) -> Int[np.ndarray, " number"]:
    """Zeros: for tests and audits of a mechanism, which is then not private."""
    return np.zeros(number, dtype=np.int64)
