"""What was read of exposures: every line or row by what became of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from variseq.errors import InputError


@dataclass
class ExposureReport:
    """Numbers of what came, each a partition of the one before.

    Args:
        lines: Lines by kind (exposure, shown, event), or rows of a table; "unreadable" and "unfinished" too.
        exposures: Lists by outcome.
        shown: Confirmations by outcome.
        events: Events by outcome.
        behaviors: Events by behavior.
        num_not_positive: Propensities of 0 or less.
        num_above_one: Propensities above 1.
        first_fault: The first line that could not be read.
        first_impossible: The first of these propensities, and where it stands.
        columns: For a table, the name of each column in it.
        notes: What was noted on how a table was read.
    """

    lines: Counter[str] = field(default_factory=Counter)
    exposures: Counter[str] = field(default_factory=Counter)
    shown: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    behaviors: Counter[str] = field(default_factory=Counter)
    num_not_positive: int = 0
    num_above_one: int = 0
    first_fault: str | None = None
    first_impossible: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add_propensities(self, name: str, column: Float[np.ndarray, " row"], where: Any) -> None:
        """Count those that no probability can be; `where(row)` is where a row stands, in words."""
        low, high = column <= 0, column > 1
        self.num_not_positive += int(low.sum())
        self.num_above_one += int(high.sum())
        if self.first_impossible is None and (low | high).any():
            row = int(np.flatnonzero(low | high)[0])
            self.first_impossible = f"{name}={column[row]:g} in {where(row)}"

    def refuse_impossible(self) -> None:
        """Raises InputError for a propensity that is no probability of something that happened."""
        if self.first_impossible is not None:
            num = self.num_not_positive + self.num_above_one
            raise InputError(
                f"{self.first_impossible} is no probability of an item that was listed; there are {num:,} such. "
                "Allowed: numbers above 0, up to 1. Correct them, or leave the column out."
            )
