"""Preferences into softmaxes over columns, in blocks that stay in a core's cache."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from variseq.inference.columns import Columns


class Softmaxes:
    """The softmax of each preference, kept as exponentials and what they are to be multiplied by.

    Each block is worked out below its own highest logit, so that nothing overflows and every number is touched while
    it is in the cache.
    """

    def __init__(self, columns: Columns, preference: Float[np.ndarray, "history sample hidden_plus_one"]) -> None:
        self.columns = columns
        rows = preference.shape[:2]
        self.exponential = np.empty((*rows, columns.num_columns), dtype=np.float32)
        highest = np.empty((*rows, len(columns.blocks)), dtype=np.float32)
        mass = np.empty((*rows, len(columns.blocks)))
        for number, block in enumerate(columns.blocks):
            logits = block.logits(preference)
            highest[..., number] = logits.max(axis=2)
            logits -= highest[..., number, None]
            inside = np.exp(logits, out=self.exponential[..., block.span])
            mass[..., number] = inside.sum(axis=2) if block.counts is None else np.vecdot(inside, block.counts[:, None])
        # A block whose columns stand for no item at all has no mass.
        with np.errstate(divide="ignore"):
            log_parts = np.log(mass) + highest
        top = log_parts.max(axis=2)
        self.log_mass: Float[np.ndarray, "history sample"] = top + np.log(
            np.exp(log_parts - top[..., None]).sum(axis=2)
        )
        # A block whose highest logit is far below has no mass: its factor is zero.
        self.factor = np.exp(highest - self.log_mass[..., None]).astype(np.float32)
        """What the exponentials of a row are multiplied by in each block to be probabilities."""

    def at(
        self,
        row: Int[np.ndarray, "*#cell"],
        sample: Int[np.ndarray, "*#cell"],
        column: Int[np.ndarray, "*#cell"],
    ) -> Float[np.ndarray, "..."]:
        """Probabilities of single cells."""
        number = np.searchsorted(self.columns.starts, column, side="right") - 1
        return self.exponential[row, sample, column] * self.factor[row, sample, number]
