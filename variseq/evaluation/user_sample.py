"""A fixed random sample of the users of a part, where ranking the catalog for all of them would take too long."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Int

from variseq.evaluation.splits import Part

MOST_CELLS = 1_000_000_000
"""At most so many pairs of a query and an item are looked at: 1,000 queries of a million items."""
SEED = 0


def sampled_users(part: Part, targets: str = "last", most_users: int | None = None) -> Part:
    """The part with the targets of a random sample of its users, so that queries × items are at most `MOST_CELLS`.

    The sample depends on nothing but the part, so results of several models stay paired by user. A user is in it with
    all queries. The targets of all users are kept where they are no more than that.

    Args:
        part: A validation or test part.
        targets: "first", "last" or "all" targets of each user.
        most_users: The sample has no more users than this.

    Returns:
        The part itself, or one in which the other users have no targets; its protocol then counts those with targets.

    Raises:
        InputError: `targets` is unknown.
    """
    users, num_queries = np.unique(part.queries(targets).user, return_counts=True)
    order = np.random.default_rng(SEED).permutation(len(users))
    num_cells = np.cumsum(num_queries[order]) * part.num_items
    num_users = max(1, int(np.searchsorted(num_cells, MOST_CELLS, side="right")))
    num_users = num_users if most_users is None else min(num_users, most_users)
    if num_users >= len(users):
        return part
    sample = with_targets_of(part, users[order[:num_users]])
    return replace(sample, protocol=part.protocol | {"num_users_with_targets": len(users)})


def with_targets_of(part: Part, users: Int[np.ndarray, " user"]) -> Part:
    """The part with the targets of these users alone; all histories stay."""
    is_left_out = np.ones(len(part.history_end), dtype=bool)
    is_left_out[users] = False
    return replace(part, target_end=np.where(is_left_out, part.history_end, part.target_end))
