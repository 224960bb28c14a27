"""Exposures that can be evaluated: those with the probabilities of their lists, by the person who got them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.errors import InputError
from variseq.exposures.table import Exposures


@dataclass(frozen=True, eq=False)
class LoggedLists:
    """Exposures with a propensity in each row, and whose they are.

    Args:
        exposures: The exposures.
        user: The person of each exposure as a number; an exposure of nobody known is a person of its own.
        num_without_propensity: How many exposures were left out, for they have no propensities.
    """

    exposures: Exposures
    user: Int[np.ndarray, " exposure"]
    num_without_propensity: int

    @property
    def num_users(self) -> int:
        """The number of people."""
        return int(self.user.max(initial=-1)) + 1

    @property
    def lengths(self) -> Int[np.ndarray, " exposure"]:
        """The number of rows of each exposure."""
        return self.exposures.lengths

    def per_exposure(self, value: Float[np.ndarray, " row"]) -> Float[np.ndarray, " exposure"]:
        """Sums over the rows of each exposure."""
        return np.bincount(self.exposures.row_exposure, weights=value, minlength=self.exposures.num_exposures)

    def only(self, kept: Bool[np.ndarray, " exposure"]) -> LoggedLists:
        """Some of the exposures, at least one."""
        if kept.all():
            return self
        found = self.exposures.exposures(np.flatnonzero(kept))
        return replace(self, exposures=found, user=np.unique(self.user[kept], return_inverse=True)[1])


def logged_lists(exposures: Exposures) -> LoggedLists:
    """The exposures whose rows have the probability to be in the list.

    Raises:
        InputError: No exposure has propensities, one has them in some rows only, or one is no probability.
    """
    if not exposures.num_exposures:
        raise InputError("There are no exposures. Give a log with at least one.")
    is_free = ~exposures.is_pinned
    missing = is_free & np.isnan(exposures.propensity_in_list)
    num_missing = np.bincount(exposures.row_exposure, weights=missing, minlength=exposures.num_exposures)
    num_free = np.bincount(exposures.row_exposure, weights=is_free, minlength=exposures.num_exposures)
    has_none = (num_missing > 0) & (num_missing == num_free)
    if has_none.all():
        raise InputError(
            "The exposures have no propensities, so nothing but their own mean can be known. Serve lists with "
            "strategy 'softmax', which logs them, or give a table with a column of propensities."
        )
    if (some := np.flatnonzero((num_missing > 0) & ~has_none)).size:
        name = exposures.exposure_id[some[0]]
        raise InputError(f"Exposure {name!r} has propensities in some rows only. Give them for all rows or for none.")
    kept = exposures.exposures(np.flatnonzero(~has_none))
    refuse_no_probabilities(kept, kept.propensity_in_list, "the propensity in the list", is_logged=True)
    if not np.isnan(kept.propensity_at_rank[~kept.is_pinned]).any():
        refuse_no_probabilities(kept, kept.propensity_at_rank, "the propensity at its rank", is_logged=True)
    # By name, so that the order of the log changes nothing.
    keys = [
        f"exposure {name}" if of is None else f"user {of}" for name, of in zip(kept.exposure_id, kept.user, strict=True)
    ]
    user = np.unique(keys, return_inverse=True)[1]
    return LoggedLists(kept, user, int(has_none.sum()))


def refuse_no_probabilities(exposures: Exposures, value: Float[np.ndarray, " row"], name: str, is_logged: bool) -> None:
    """Raises InputError for the first row that is not pinned and whose value is no probability.

    What was logged has happened, so its probability is not 0 either.
    """
    is_possible = (value > 0 if is_logged else value >= 0) & (value <= 1)
    if (wrong := np.flatnonzero(~exposures.is_pinned & ~is_possible)).size:
        row = int(wrong[0])
        exposure = exposures.exposure_id[int(exposures.row_exposure[row])]
        allowed = "above 0 and at most 1" if is_logged else "from 0 to 1"
        raise InputError(
            f"Exposure {exposure!r}, item {exposures.item_ids[int(exposures.item[row])]!r}: {name} is {value[row]:g}. "
            f"Allowed: {allowed}. Correct the log, or leave the exposure out."
        )
