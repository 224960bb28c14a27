"""How a list is made of a forecast: what a user may choose, checked."""

from __future__ import annotations

from dataclasses import dataclass

from variseq.errors import InputError
from variseq.recommend.diversity import check_diversity
from variseq.recommend.wishes import Filters


@dataclass(frozen=True)
class Manner:
    """How a list is made of a forecast.

    `explore` "thompson" ranks by one sample of each posterior, drawn with `seed`: what the user may want rather than
    what is surest. `diversity` (0 to 1) trades relevance for spread. `coverage` (0.5 to 0.99) gives, in place of k
    items, the smallest set that holds the next item with this probability. `ranks_only` gives the order at the mean of
    each posterior and leaves out probabilities, intervals, uncertainty and reasons: several times as fast, for the
    many.
    """

    explore: str | None = None
    seed: int = 0
    diversity: float = 0.0
    coverage: float | None = None
    ranks_only: bool = False

    def check(self, filters: Filters) -> None:
        """Raises InputError for what is not possible, alone or together."""
        if self.explore not in (None, "thompson"):
            raise InputError(f"explore={self.explore!r} is not known. Allowed: None and 'thompson'.")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise InputError(f"seed={self.seed!r} is not possible. Allowed: whole numbers from 0.")
        check_diversity(self.diversity)
        reordered = self.explore or self.diversity or filters.boost or filters.boost_categories or filters.pin
        if self.ranks_only and (self.explore or self.diversity or self.coverage is not None):
            raise InputError(
                "ranks_only gives the plain order; explore, diversity and coverage need more than that. Leave one or "
                "the other out."
            )
        if self.coverage is not None and reordered:
            raise InputError(
                "coverage asks for a set that holds the next item; explore, diversity, boost and pin for another order "
                "of a list. Give one or the others."
            )
