"""Groups of queries into a row of numbers each, and into how far apart the best and the worst of them are."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from variseq.evaluation.bootstrap import Block
from variseq.evaluation.groups import Groups
from variseq.evaluation.pooled import Outcomes, Pool, interval_of_known

MIN_USERS = 20
"""Groups of fewer users are shown, but not compared: chance alone would make one of them the worst."""
UNSEEN = "unseen"
"""Targets that never occur in training are misses by rule, so they are shown and not compared."""

Drawn = dict[str, Float[np.ndarray, "resample _"]]


class GroupRows:
    """A way to group the queries, and the numbers of each group.

    `cell_place` is the group of each recommended item, where the lists are grouped by another thing than the queries.
    """

    def __init__(
        self,
        kind: str,
        outcomes: Outcomes,
        groups: Groups,
        cell_place: Int[np.ndarray, "query k"] | None = None,
    ) -> None:
        self.kind, self.outcomes, self.names = kind, outcomes, groups.names
        self.pools = [
            Pool(outcomes, groups.place == place, None if cell_place is None else cell_place == place)
            for place in range(len(groups.names))
        ]
        self.is_compared = [
            pool.num_users >= MIN_USERS and name != UNSEEN for name, pool in zip(self.names, self.pools, strict=True)
        ]

    def blocks(self) -> dict[str, Block]:
        """What has to be resampled for the intervals."""
        return {f"{self.kind} {name}": pool.block for name, pool in zip(self.names, self.pools, strict=True)}

    def rows(self, drawn: Drawn) -> list[dict[str, Any]]:
        """A row a group; `is_compared` says whether it is large enough to be held against the others."""
        return [
            {
                "group": name,
                "num_queries": int(pool.inside.sum()),
                "num_users": pool.num_users,
                "is_compared": is_compared,
                **pool.told(drawn[f"{self.kind} {name}"]),
            }
            for name, pool, is_compared in zip(self.names, self.pools, self.is_compared, strict=True)
        ]

    def compared(self, drawn: Drawn) -> dict[str, Any]:
        """The worst and the best group by NDCG and by each calibration error, with the gap between them.

        The interval of a gap is that of these two groups; that they were picked as the extremes makes the gap itself a
        little too large. None with fewer than two groups of at least `MIN_USERS` users.
        """
        signs = {f"ndcg@{self.outcomes.k}": 1, **dict.fromkeys(self.outcomes.depths, -1)}
        return {name: self._gap(name, sign, drawn) for name, sign in signs.items()}

    def _gap(self, name: str, sign: int, drawn: Drawn) -> dict[str, Any] | None:
        values = {}
        for place in np.flatnonzero(self.is_compared):
            found = self.pools[place].values()
            if name in found:
                values[int(place)] = found[name]
        if len(values) < 2:
            return None
        worst, *_, best = sorted(values, key=lambda place: sign * values[place])
        of_best, of_worst = (
            self.pools[place].resampled(drawn[f"{self.kind} {self.names[place]}"])[name] for place in (best, worst)
        )
        return {
            "worst_group": self.names[worst],
            "worst": values[worst],
            "best_group": self.names[best],
            "best": values[best],
            "gap": sign * (values[best] - values[worst]),
            "gap_interval": interval_of_known(sign * (of_best - of_worst)),
        }
