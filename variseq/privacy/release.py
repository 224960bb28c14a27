"""Two releases of a log with noise, popularity and pairs of items, and the counts that are made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from variseq.errors import InputError
from variseq.privacy.accounting import (
    CHOICE,
    NETWORK_CHOICE,
    NETWORK_STEPS,
    PAIR_CHOICE,
    Ledger,
    Mechanism,
    default_delta,
    noise_multipliers,
    public_users,
)
from variseq.privacy.contributions import Pairs, pair_sums, popularity_sums
from variseq.privacy.denoising import posterior_means
from variseq.privacy.noise import GRID, Noise, secure_noise
from variseq.privacy.pair_choice import chosen_pairs
from variseq.privacy.schedule import StepSchedule
from variseq.sequences.histories import Histories

POPULARITY_SHARE = 0.1
"""Of 1 / noise multiplier²; the pairs have the rest."""
CHOICE_SHARE = 0.03
"""The same for each choice of a weight."""
PAIR_CHOICE_SHARE = 0.02
"""The same for the choice of the pairs."""
NETWORK_SHARE = 0.2
"""The same for the steps of a network; all others then have the rest."""
LEAST_BUDGET = 50_000
"""A network is trained where ε times the number of users is at least this, and the catalog has at most `MOST_ITEMS`.

Pairs are not counted of more items, and the vectors of others are zero. For what it gains see docs/development/log.md.
"""
OF_PAIRS = {
    "near": "counts of pairs of items near each other",
    "next": "counts of pairs of items in a row",
    "auto": "counts of pairs of items",
}
"""What the second sum releases."""
LEAST_POPULARITY = 5.0
"""Pairs are counted of items whose noisy popularity has at least so many standard deviations of its noise."""
MOST_ITEMS = 5_000
"""Pairs are counted of at most so many items, the most popular ones: 12 million pairs."""
VECTOR_SIZE = 32
"""Numbers of an item vector; vectors show which items are alike and order no list."""
MOST_FOLLOWERS = 300
"""So many pairs of each item are kept."""
MEAN_EVENTS: dict[Pairs, float] = {"near": 5_000.0, "next": 250.0}
"""Counts are scaled so that an item has so many on average, beside the events that the popularity counts for.

The mean over several items of a history needs less of the popularity than what followed one item.
"""


@dataclass(frozen=True)
class PrivacyOptions:
    """What a private fit is allowed to cost, and what is public.

    Args:
        epsilon: The budget ε.
        delta: The budget δ; None: `default_delta` of the number of users.
        max_user_events: Only the last events of each user count, at most so many.
        exclude_seen: Whether items of a person's own history are left out. A private fit does not look at the log to
            decide it. Without it what the person did before is a part of the answer.
        pairs: Which pairs are counted, see `pair_sums`. "next" is for logs where the next item follows from the last
            one, such as stations or episodes. "auto" chooses between the two by the log and pays for it, see
            `chosen_pairs`.
        content: The weight of items with like content beside the pairs, from 0 to below 1. It needs a catalog with
            texts or categories, which are public, and helps where these say what is bought together. "auto" chooses it
            by validation and pays for it, see `CHOICE_SHARE`.
        network: Whether a network is trained beside the counts, by noisy steps; its weight is chosen by validation and
            paid for. "auto": where users are many enough, see `LEAST_BUDGET`; `PrivateModel.fit` decides.
    """

    epsilon: float
    delta: float | None = None
    max_user_events: int = 1000
    exclude_seen: bool = True
    pairs: Pairs | Literal["auto"] = "near"
    content: float | Literal["auto"] = "auto"
    network: Literal["auto", "yes", "no"] = "auto"

    def __post_init__(self) -> None:
        if self.network not in ("auto", "yes", "no"):
            raise InputError(f"network={self.network!r} is not possible. Allowed: auto, yes, no.")
        if self.pairs not in OF_PAIRS:
            raise InputError(f"pairs={self.pairs!r} is not possible. Allowed: {', '.join(OF_PAIRS)}.")
        if self.content != "auto" and not 0 <= self.content < 1:
            raise InputError(f"content={self.content:g} is not possible. Give a weight from 0 to below 1, or 'auto'.")
        if self.max_user_events < 2:
            raise InputError(f"max_user_events={self.max_user_events} is not possible. Give 2 or more.")

    def decided(self, num_users: int, num_items: int) -> PrivacyOptions:
        """The same options with "yes" or "no" for a network in place of "auto", by public numbers alone."""
        if self.network != "auto":
            return self
        pays = self.epsilon * num_users >= LEAST_BUDGET and num_items <= MOST_ITEMS
        return replace(self, network="yes" if pays else "no")

    def schedule(self, num_users: int) -> StepSchedule | None:
        """The steps of a network for this public number of users; None where none is wanted."""
        return StepSchedule.of_users(num_users, self.exclude_seen) if self.network == "yes" else None


@dataclass(frozen=True, eq=False)
class Release:
    """What leaves the log: two noisy sums, in units of the norm that one user adds at most.

    Args:
        popularity: Of every item of the catalog.
        chosen: The items whose pairs were counted, by their noisy popularity, ascending.
        pairs: Of every pair of chosen items, in the order of `pair_index`.
        kind: Which pairs they are.
        ledger: What the two cost.
    """

    popularity: Float[np.ndarray, " item"]
    chosen: Int[np.ndarray, " chosen"]
    pairs: Float[np.ndarray, " pair"]
    kind: Pairs
    ledger: Ledger

    @classmethod
    def of_sums(
        cls, popularity: Int[np.ndarray, " item"], pairs: Int[np.ndarray, " pair"], kind: Pairs, ledger: Ledger
    ) -> Release:
        """The release of two sums in steps of `GRID`, which hold the noise of the ledger."""
        chosen = chosen_items(popularity, ledger)
        return cls(popularity * GRID, chosen, (pairs * GRID).astype(np.float32), kind, ledger)

    @property
    def noise(self) -> tuple[float, float]:
        """The standard deviation of the noise of popularity and pairs."""
        popularity, pairs = (one.noise_multiplier for one in self.ledger.mechanisms[:2])
        return popularity, pairs


def private_ledger(options: PrivacyOptions, num_users: int) -> Ledger:
    """The mechanisms of a run and their noise: two sums, choices by the log, and the steps of a network.

    Raises InputError for a budget that is not possible.
    """
    delta = default_delta(num_users) if options.delta is None else options.delta
    schedule = options.schedule(public_users(num_users))
    choices = (
        (PAIR_CHOICE, PAIR_CHOICE_SHARE, options.pairs == "auto"),
        (CHOICE, CHOICE_SHARE, options.content == "auto"),
        (NETWORK_CHOICE, CHOICE_SHARE, schedule is not None),
    )
    others = {what: share for what, share, is_paid in choices if is_paid}
    steps = None
    if schedule is not None:
        others[NETWORK_STEPS] = NETWORK_SHARE
        steps = (schedule.sampling_rate, schedule.num_steps)
    rest = 1 - sum(others.values())
    shares = (POPULARITY_SHARE * rest, (1 - POPULARITY_SHARE) * rest, *others.values())
    return _ledger(options, noise_multipliers(options.epsilon, delta, shares, steps), delta, tuple(others), steps)


def exact_ledger(options: PrivacyOptions) -> Ledger:
    """Two sums without noise: ε is infinite, and nothing is private."""
    return _ledger(options, (0.0, 0.0), 1.0)


def _ledger(
    options: PrivacyOptions,
    multipliers: tuple[float, ...],
    delta: float,
    others: Sequence[str] = (),
    steps: tuple[float, int] | None = None,
) -> Ledger:
    what = ("popularity of each item of the catalog", OF_PAIRS[options.pairs], *others)
    mechanisms = [Mechanism(*one) for one in zip(what, multipliers, strict=True)]
    if steps is not None:
        mechanisms[-1] = Mechanism(what[-1], multipliers[-1], *steps)
    return Ledger(tuple(mechanisms), delta)


@dataclass(frozen=True, eq=False)
class NoisySums:
    """The two sums of one log with their noise, in steps of `GRID`.

    Args:
        histories: All events of the users that the run may learn from.
        num_items: Size of the public catalog.
        options: What is counted.
        ledger: The noise of each sum, in units of the norm that one user adds at most.
        parties: How many logs are summed. Each adds noise of the standard deviation over √parties, independently, so
            that the noise of the sum is that of the ledger.
        noise: For tests and audits only; without it there is no privacy.
    """

    histories: Histories
    num_items: int
    options: PrivacyOptions
    ledger: Ledger
    parties: int = 1
    noise: Noise = secure_noise

    def popularity(self) -> Int[np.ndarray, " item"]:
        """The first sum, see `popularity_sums`."""
        return self._noisy(0, popularity_sums(self._bounded(), self.num_items))

    def pairs(self, chosen: Int[np.ndarray, " chosen"]) -> Int[np.ndarray, " pair"]:
        """The second sum, see `pair_sums`, of the items that were chosen by the first."""
        assert self.options.pairs != "auto", "the kind of pairs has to be chosen before"
        return self._noisy(1, pair_sums(self._bounded(), chosen, self.num_items, self.options.pairs))

    def release(self) -> Release:
        """Both sums, of one log alone."""
        popularity, kind = self.popularity(), self.options.pairs
        assert self.parties == 1
        assert kind != "auto", "the kind of pairs has to be chosen before"
        return Release.of_sums(popularity, self.pairs(chosen_items(popularity, self.ledger)), kind, self.ledger)

    def _bounded(self) -> Histories:
        return self.histories.latest(self.options.max_user_events)

    def _noisy(self, number: int, sums: Int[np.ndarray, " cell"]) -> Int[np.ndarray, " cell"]:
        multiplier = self.ledger.mechanisms[number].noise_multiplier
        return sums + self.noise(multiplier / math.sqrt(self.parties), len(sums))


def chosen_items(popularity: Int[np.ndarray, " item"], ledger: Ledger) -> Int[np.ndarray, " chosen"]:
    """The items whose pairs are counted, ascending: the most popular ones by the noisy first sum."""
    least = max(LEAST_POPULARITY * ledger.mechanisms[0].noise_multiplier, GRID)
    likely = np.flatnonzero(popularity * GRID >= least)
    return np.sort(likely[np.argsort(-popularity[likely], kind="stable")[:MOST_ITEMS]])


def release(histories: Histories, num_items: int, options: PrivacyOptions, noise: Noise = secure_noise) -> Release:
    """Release the popularity of items and the counts of pairs with Gaussian noise.

    One user adds a vector with a norm of at most 1 to each of the two sums; noise is on every cell, also on those where
    nothing was counted. Source: Dwork and Roth 2014, appendix A, for the Gaussian mechanism.

    Args:
        histories: All events of the users that the run may learn from.
        num_items: Size of the public catalog.
        options: The budget.
        noise: For tests and audits only; without it there is no privacy.

    Raises:
        InputError: For a budget that is not possible.
    """
    ledger = private_ledger(options, len(histories))
    kind = options.pairs
    if kind == "auto":
        bounded = histories.latest(options.max_user_events)
        kind = chosen_pairs(bounded, num_items, options.exclude_seen, ledger.noise_of(PAIR_CHOICE), noise)
        options = replace(options, pairs=kind)
        of_pairs = replace(ledger.mechanisms[1], released=OF_PAIRS[kind])
        ledger = replace(ledger, mechanisms=(ledger.mechanisms[0], of_pairs, *ledger.mechanisms[2:]))
    return NoisySums(histories, num_items, options, ledger, noise=noise).release()


@dataclass(frozen=True, eq=False)
class PairCounts:
    """What is known of the items after a release. The neighbors of item i are the cells `offsets[i]:offsets[i + 1]`.

    Args:
        share: The popularity of each item; they sum to 1.
        offsets: Where the neighbors of each item begin.
        neighbor: Items that users had near an item.
        count: How often, in events.
        chosen_share: The share of the events that are of items with pairs.
    """

    share: Float[np.ndarray, " item"]
    offsets: Int[np.ndarray, " item_plus_one"]
    neighbor: Int[np.ndarray, " cell"]
    count: Float[np.ndarray, " cell"]
    chosen_share: float

    @cached_property
    def vectors(self) -> Float[np.ndarray, "item vector_plus_one"]:
        """Vectors whose cosines are high for items that are near the same items, and the popularity as last column.

        They are the eigenvectors of the counts over the root of both totals, times the root of the eigenvalues; zero
        for items without pairs.
        """
        from scipy.sparse import csr_array
        from scipy.sparse.linalg import eigsh

        num_items = len(self.share)
        vectors = np.zeros((num_items, VECTOR_SIZE + 1), dtype=np.float32)
        vectors[:, -1] = np.log(self.share)
        has_pairs = np.flatnonzero(np.diff(self.offsets))
        table = csr_array((self.count.astype(np.float64), self.neighbor, self.offsets), (num_items, num_items))
        table = table[has_pairs][:, has_pairs]
        table = (table + table.T) / 2
        scale = 1 / np.sqrt(np.maximum(table.sum(axis=1), 1e-12))
        size = min(VECTOR_SIZE, len(has_pairs) - 1)
        if size < 1:
            return vectors
        start = np.full(len(has_pairs), 1.0)
        # The sign of an eigenvector is arbitrary; parties of a federation need the same one.
        values, found = eigsh(table.multiply(scale[:, None]).multiply(scale).tocsr(), k=size, which="LA", v0=start)
        found = found * np.sign(found[np.abs(found).argmax(axis=0), np.arange(size)])
        vectors[has_pairs, :size] = found * np.sqrt(np.maximum(values, 0))
        return vectors


def pair_counts(released: Release) -> PairCounts:
    """Counts without most of the noise. They are made of the release alone, so they cost no privacy."""
    num_items, num_chosen = len(released.popularity), len(released.chosen)
    of_popularity, of_pairs = released.noise
    # What is below the noise is about as large as the mean of the positive half of it.
    popularity = np.maximum(released.popularity, 0.3 * (of_popularity or 1.0))
    table = np.zeros((num_chosen, num_chosen), dtype=np.float32)
    of_chosen = popularity[released.chosen]
    # In the order of `pair_index`.
    first, second = (
        np.triu_indices(num_chosen, 1) if released.kind == "near" else np.indices(table.shape).reshape(2, -1)
    )
    table[first, second] = released.pairs
    if of_pairs:
        table[first, second] = posterior_means(released.pairs / of_pairs, of_chosen[first] * of_chosen[second])
    if released.kind == "near":
        table += table.T
    np.fill_diagonal(table, 0)
    kept = min(MOST_FOLLOWERS, num_chosen)
    columns = np.sort(np.argpartition(-table, kept - 1, axis=1)[:, :kept], axis=1) if num_chosen else table[:, :0]
    count = np.take_along_axis(table, columns.astype(np.int64), axis=1)
    row, _ = np.nonzero(count)
    lengths = np.zeros(num_items, dtype=np.int64)
    lengths[released.chosen] = np.bincount(row, minlength=num_chosen)
    scale = MEAN_EVENTS[released.kind] * num_chosen / max(float(count.sum()), 1e-9)
    return PairCounts(
        share=popularity / popularity.sum(),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        neighbor=released.chosen[columns[count > 0].astype(np.int64)].astype(np.int32),
        count=(count[count > 0] * scale).astype(np.float32),
        chosen_share=float(np.clip(of_chosen.sum() / max(released.popularity.sum(), of_chosen.sum(), 1e-9), 0, 1)),
    )
