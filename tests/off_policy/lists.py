"""Small logs of lists for tests of off-policy evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from variseq.exposures.table import Exposures
from variseq.off_policy.logged import LoggedLists
from variseq.off_policy.policies import TargetProbabilities


def exposures_of(
    items: Sequence[Sequence[int]],
    at_rank: Sequence[Sequence[float]],
    in_list: Sequence[Sequence[float]],
    reward: Sequence[Sequence[float]],
    pinned: Sequence[Sequence[bool]] | None = None,
    users: Sequence[str | None] | None = None,
    num_items: int = 8,
) -> Exposures:
    """Exposures from lists of lists."""
    flat = lambda rows, dtype: np.array([one for row in rows for one in row], dtype=dtype)  # noqa: E731
    lengths = [len(one) for one in items]
    return Exposures(
        offsets=np.cumsum([0, *lengths]),
        exposure_id=[f"e{number}" for number in range(len(items))],
        user=list(users) if users is not None else [None] * len(items),
        time=np.arange(len(items)),
        context=None,
        item=flat(items, np.int64),
        item_ids=[f"i{number}" for number in range(num_items)],
        rank=np.concatenate([np.arange(1, length + 1) for length in lengths] or [np.zeros(0, dtype=np.int64)]),
        propensity_at_rank=flat(at_rank, np.float64),
        propensity_in_list=flat(in_list, np.float64),
        is_pinned=flat(pinned or [[False] * one for one in lengths], bool),
        reward=flat(reward, np.float64),
    )


@dataclass(frozen=True, eq=False)
class TablePolicy:
    """A policy with the given probabilities."""

    target: TargetProbabilities
    name: str = "table"

    def probabilities(self, lists: LoggedLists) -> TargetProbabilities:
        return self.target


def random_log(seed: int, num_exposures: int = 60, num_items: int = 8) -> tuple[Exposures, TablePolicy]:
    """Lists of 1 to 4 items with pins, people with several lists, and any probabilities."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 5, size=num_exposures)
    items = [random.permutation(num_items)[:length].tolist() for length in lengths]
    some = lambda: [random.uniform(0.05, 1, size=length).tolist() for length in lengths]  # noqa: E731
    pinned = [(random.random(length) < 0.2).tolist() for length in lengths]
    users = [None if one == 0 else f"u{one}" for one in random.integers(0, 20, size=num_exposures)]
    reward = [random.integers(0, 3, size=length).astype(float).tolist() for length in lengths]
    exposures = exposures_of(items, some(), some(), reward, pinned, users, num_items)
    num_rows = len(exposures.item)
    target = TargetProbabilities(
        random.uniform(0, 1, num_rows),
        random.uniform(0, 1, num_rows),
        lambda predicted, fold: predicted.sum(axis=1)[fold],
        lambda predicted, index: np.tile(predicted.mean(axis=1) * (index + 1), (num_exposures, 1)),
    )
    return exposures, TablePolicy(target)


@dataclass(frozen=True, eq=False)
class EveryList:
    """Every ordered list of k items that a policy of Plackett and Luce can draw, and its probabilities."""

    weight: np.ndarray
    k: int

    @property
    def lists(self) -> list[tuple[int, ...]]:
        return list(permutations(range(len(self.weight)), self.k))

    @property
    def at_rank(self) -> np.ndarray:
        """Of each list and rank."""
        rows = []
        for one in self.lists:
            above = np.cumsum([0.0, *self.weight[list(one)]])[:-1]
            rows.append(self.weight[list(one)] / (self.weight.sum() - above))
        return np.array(rows)

    @property
    def probability(self) -> np.ndarray:
        """Of each list."""
        return self.at_rank.prod(axis=1)

    @property
    def in_list(self) -> np.ndarray:
        """Of each item, by enumeration."""
        holds = np.array([[float(item in one) for item in range(len(self.weight))] for one in self.lists])
        return self.probability @ holds
