"""Factors on the probabilities of some items of each history; all other items share another factor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from variseq.ranking.softmax import SMALLEST


@dataclass(frozen=True, eq=False)
class CellFactors:
    """The cells `row`, `column` of p, in ascending order, are multiplied by `of_cell`, all others by `of_others`."""

    row: Int[np.ndarray, " cell"]
    column: Int[np.ndarray, " cell"]
    of_cell: Float[np.ndarray, " cell"]
    of_others: Float[np.ndarray, " history"]

    @classmethod
    def of_repeats(
        cls,
        p: Float[np.ndarray, "history column"],
        row: Int[np.ndarray, " cell"],
        column: Int[np.ndarray, " cell"],
        share: Float[np.ndarray, " history"],
    ) -> CellFactors:
        """Seen items, the cells, share the counted probability of a repeat: the hurdle model of Mullahy 1986.

        A model that is fitted without seen items says nothing of how likely they are; it decides among them, and among
        all others. `share` is the probability of a repeat. Where there are seen items alone, or none, one side has all.
        """
        seen = np.bincount(row, weights=p[row, column], minlength=len(p))
        # What is left beside seen items may be smaller than the rounding of p.
        others = np.maximum(1 - seen, SMALLEST)
        has_seen, has_others = seen > 0, np.bincount(row, minlength=len(p)) < p.shape[1]
        of_seen = np.where(has_others, share, 1.0) / np.where(has_seen, seen, 1.0)
        return cls(row, column, of_seen[row], np.where(has_seen, (1 - share) / others, 1.0))

    @classmethod
    def of_ratios(
        cls,
        p: Float[np.ndarray, "history column"],
        row: Int[np.ndarray, " cell"],
        column: Int[np.ndarray, " cell"],
        log_ratio: Float[np.ndarray, " cell"],
    ) -> CellFactors:
        """p of the cells times a ratio, and all divided by the new total; p of the whole catalog sums to 1."""
        ratio = np.exp(log_ratio.astype(np.float64))
        gained = np.bincount(row, weights=p[row, column] * (ratio - 1), minlength=len(p))
        of_others = 1 / np.maximum(1 + gained, SMALLEST)
        return cls(row, column, ratio * of_others[row], of_others)

    def apply(self, p: Float[np.ndarray, "history *sample column"], span: slice = slice(None)) -> None:
        """Multiply p of the columns `span`, in place."""
        inside = slice(None) if span == slice(None) else (self.column >= span.start) & (self.column < span.stop)
        row, column = self.row[inside], self.column[inside] - (span.start or 0)
        cells = p[row, ..., column] * self.of_cell[inside].reshape(-1, *(1,) * (p.ndim - 2))
        p *= self.of_others.astype(np.float32).reshape(-1, *(1,) * (p.ndim - 1))
        p[row, ..., column] = np.maximum(cells, SMALLEST)

    def at(self, column: Int[np.ndarray, "history k"], num_columns: int) -> Float[np.ndarray, "history k"]:
        """What p of some columns is multiplied by."""
        others = np.broadcast_to(self.of_others[:, None], column.shape)
        if not len(self.row):
            return others
        pair, wanted = self.row * num_columns + self.column, np.arange(len(column))[:, None] * num_columns + column
        found = np.searchsorted(pair, wanted).clip(max=len(pair) - 1)
        return np.where(pair[found] == wanted, self.of_cell[found], others)
