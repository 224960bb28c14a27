"""The time since the event before into one of a few buckets."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

GAP_BUCKETS = 40
"""Time gaps fall into buckets of half powers of two of a second: 40 buckets reach 24 days and more."""


def gap_bucket(gap_seconds: Float[np.ndarray, "*token"]) -> Int[np.ndarray, "*token"]:
    """The bucket of a time gap: 0 up to a second, then two buckets per doubling.

    >>> gap_bucket(np.array([0.0, 1.0, 3600.0, 1e9]))
    array([ 0,  2, 23, 39])
    """
    return np.clip(np.floor(2 * np.log2(1 + np.maximum(gap_seconds, 0.0))), 0, GAP_BUCKETS - 1).astype(np.int64)
