"""Target policies that need no model: with which probabilities they would have made the logged lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from variseq.errors import InputError
from variseq.off_policy.logged import LoggedLists, refuse_no_probabilities

ExpectedRewards = Callable[
    [Float[np.ndarray, "fold item"], Int[np.ndarray, " exposure"]], Float[np.ndarray, " exposure"]
]

ExpectedNext = Callable[[Float[np.ndarray, "fold item"], int], Float[np.ndarray, "exposure fold"]]


@dataclass(frozen=True, eq=False)
class TargetProbabilities:
    """What a target policy would have done at logged exposures. NaN in the rows of an exposure: it cannot be known.

    Args:
        at_rank: Probability of each logged item at its rank, given the items above it in the logged list.
        in_list: Probability of each logged item in a list of the logged length.
        expected: Gives for each exposure the sum over all items of the probability in the list times the predicted
            reward, from rewards by fold and item and the fold of each exposure; None: not known.
        expected_next: Gives for each exposure the expected predicted reward of the one item that the policy puts at the
            rank with an index, given the logged items above it, from rewards by fold and item; None: not known. It may
            be anything where the rank is pinned, or the policy never puts these items above it.
        left_out: How many exposures cannot be known, by reason.
    """

    at_rank: Float[np.ndarray, " row"]
    in_list: Float[np.ndarray, " row"]
    expected: ExpectedRewards | None = None
    expected_next: ExpectedNext | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)


@runtime_checkable
class TargetPolicy(Protocol):
    """A policy that is evaluated. `name` is unique among those that are evaluated together."""

    @property
    def name(self) -> str:
        """Names it in tables."""
        ...

    def probabilities(self, lists: LoggedLists) -> TargetProbabilities:
        """Its probabilities at these exposures. Raises InputError where it has none for this log."""
        ...


@dataclass(frozen=True)
class LoggingPolicy:
    """The policy that made the exposures, evaluated as if it were another: all weights are 1."""

    name: str = "logged"

    def probabilities(self, lists: LoggedLists) -> TargetProbabilities:
        """The propensities. What it would do with other items is not in the log, so `expected` is None."""
        return TargetProbabilities(lists.exposures.propensity_at_rank, lists.exposures.propensity_in_list)


@dataclass(frozen=True)
class UniformPolicy:
    """Every item of the log with the same probability, without replacement, in lists of the logged lengths.

    Pinned items stay where they are, and are not drawn.
    """

    name: str = "uniform"

    def probabilities(self, lists: LoggedLists) -> TargetProbabilities:
        """Probabilities of a draw without replacement."""
        log = lists.exposures
        num_pinned = lists.per_exposure(log.is_pinned.astype(float))
        num_free = len(log.item_ids) - num_pinned
        share = (lists.lengths - num_pinned) / np.maximum(num_free, 1)
        drawn = np.concatenate([[0], np.cumsum(~log.is_pinned)])
        drawn_before = drawn[:-1] - drawn[log.offsets[:-1]][log.row_exposure]

        def expected(
            predicted: Float[np.ndarray, "fold item"], fold: Int[np.ndarray, " exposure"]
        ) -> Float[np.ndarray, " exposure"]:
            of_rows = np.where(log.is_pinned, predicted[fold[log.row_exposure], log.item], 0.0)
            pinned = lists.per_exposure(of_rows)
            return pinned + share * (predicted.sum(axis=1)[fold] - pinned)

        def expected_next(predicted: Float[np.ndarray, "fold item"], index: int) -> Float[np.ndarray, "exposure fold"]:
            is_above = np.arange(len(log.item)) < (log.offsets[:-1] + index)[log.row_exposure]
            taken = log.is_pinned | is_above
            num_left = num_pinned + num_free - lists.per_exposure(taken.astype(float))
            of_taken = [lists.per_exposure(np.where(taken, one[log.item], 0.0)) for one in predicted]
            return (predicted.sum(axis=1) - np.stack(of_taken, axis=1)) / np.maximum(num_left, 1)[:, None]

        at_rank = 1 / np.maximum(num_free[log.row_exposure] - drawn_before, 1)
        return TargetProbabilities(at_rank, share[log.row_exposure], expected, expected_next)


@dataclass(frozen=True, eq=False)
class GivenProbabilities:
    """A policy whose probabilities were computed elsewhere.

    Args:
        name: Names it in tables.
        in_list: For each exposure id the probability of each row to be in the list.
    """

    name: str
    in_list: Mapping[str, Float[np.ndarray, " row"]]

    def probabilities(self, lists: LoggedLists) -> TargetProbabilities:
        """The given ones; at ranks they are known for lists of one item only. Raises InputError."""
        log = lists.exposures
        in_list = np.concatenate([self.in_list[one] for one in log.exposure_id])
        if len(in_list) != len(log.item):
            raise InputError(
                f"{self.name} has {len(in_list):,} probabilities for {len(log.item):,} rows. Give one each."
            )
        refuse_no_probabilities(log, in_list, f"the probability by {self.name}", is_logged=False)
        is_single = (lists.lengths == 1)[log.row_exposure]
        return TargetProbabilities(np.where(is_single, in_list, np.nan), in_list)
