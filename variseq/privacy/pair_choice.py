"""Which pairs a private fit counts, by votes of groups of users: a choice that one user changes by one vote."""

from __future__ import annotations

import hashlib
import math

import numpy as np
from jaxtyping import Int

from variseq.evaluation.metrics import ndcg
from variseq.privacy.contributions import DECAY, WINDOW, Pairs, listed_pairs
from variseq.privacy.noise import GRID, Noise, secure_noise
from variseq.ranking.counts import followers
from variseq.sequences.histories import Histories

GROUPS_PER_NOISE = 8
"""Where all groups agree, noise turns the choice once in 30,000 (four standard deviations)."""
MOST_QUERIES = 200
"""Of each group, so many users are ranked for; all of them are counted."""
NUM_RANKED = 10


def chosen_pairs(
    histories: Histories,
    num_items: int,
    exclude_seen: bool,
    noise_multiplier: float,
    noise: Noise = secure_noise,
) -> Pairs:
    """Which pairs give better lists of the users' last items.

    Users are divided into groups, each by the own history alone. A group counts both kinds of pairs without noise, but
    for the last event of each user, and votes for the kind with the larger NDCG@10 of these events. What is released is
    the noisy number of votes for "next", one more Gaussian mechanism of the ledger: a user more or less changes one
    vote. "near" has the votes of groups that see no difference.

    Source: Nissim, Raskhodnikova and Smith 2007, "Smooth sensitivity and sampling in private data analysis", for the
    division into groups ("sample and aggregate").

    Args:
        histories: The bounded histories of all users.
        num_items: Size of the public catalog.
        exclude_seen: Whether items of a history are left out of its list.
        noise_multiplier: Standard deviation of the noise, in votes.
        noise: For tests only; without it there is no privacy.
    """
    num_groups = math.ceil(GROUPS_PER_NOISE * noise_multiplier)
    votes = votes_for_next(histories, num_items, exclude_seen, num_groups)
    noisy = votes + GRID * float(noise(noise_multiplier, 1)[0])
    return "next" if noisy > num_groups / 2 else "near"


def votes_for_next(histories: Histories, num_items: int, exclude_seen: bool, num_groups: int) -> int:
    """How many of the groups have better lists by pairs in a row than by near pairs."""
    group = _groups(histories, num_groups)
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group, minlength=num_groups))[:-1])
    return sum(_is_for_next(histories.rows(rows), num_items, exclude_seen) for rows in members)


def _groups(histories: Histories, num_groups: int) -> Int[np.ndarray, " user"]:
    """The group of each user, by a hash of the own items."""
    parts = np.split(histories.item.astype(np.int64), histories.offsets[1:-1])
    digests = (hashlib.sha256(items.tobytes()).digest() for items in parts[: len(histories)])
    return np.array([int.from_bytes(digest[:8], "big") % num_groups for digest in digests], dtype=np.int64)


def _is_for_next(members: Histories, num_items: int, exclude_seen: bool) -> bool:
    """Whether pairs in a row give a group better lists than near pairs."""
    members = members.rows(np.flatnonzero(members.lengths > 1))
    if not len(members):
        return False
    target = members.item[members.offsets[1:] - 1].astype(np.int64)
    known = members.select(members.offsets[:-1], members.offsets[1:] - 1)
    queries, target = known.rows(np.arange(min(MOST_QUERIES, len(known)))), target[:MOST_QUERIES]
    near, in_a_row = (_sum_of_ndcg(known, queries, target, num_items, kind, exclude_seen) for kind in ("near", "next"))
    return in_a_row > near


def _sum_of_ndcg(
    known: Histories,
    queries: Histories,
    target: Int[np.ndarray, " history"],
    num_items: int,
    kind: Pairs,
    exclude_seen: bool,
) -> float:
    """The sum of NDCG@10 of one target for each history, by the pairs of all histories alone."""
    user = np.repeat(np.arange(len(known)), known.lengths)
    _, first, second, weight = listed_pairs(user, known.item.astype(np.int64), kind)
    if kind == "near":
        first, second, weight = np.concatenate([first, second]), np.concatenate([second, first]), np.tile(weight, 2)
    pair, cell = np.unique(first * num_items + second, return_inverse=True)
    offsets = np.searchsorted(pair, np.arange(num_items + 1) * num_items)
    count = np.bincount(cell, weights=weight, minlength=len(pair)).astype(np.float64)
    counted = followers(queries, offsets, pair % num_items, count, WINDOW if kind == "near" else 1, DECAY)
    is_target = counted.item == target[counted.row]
    of_target = np.zeros(len(queries))
    of_target[counted.row[is_target]] = counted.count[is_target]
    better = counted.count >= of_target[counted.row]
    if exclude_seen:
        owner, item = queries.distinct_items()
        better &= ~np.isin(counted.row * num_items + counted.item, owner * num_items + item)
        of_target[np.isin(np.arange(len(queries)) * num_items + target, owner * num_items + item)] = 0
    rank = np.bincount(counted.row[better], minlength=len(queries))
    return float(ndcg(rank[of_target > 0].astype(np.float64), NUM_RANKED).sum())
