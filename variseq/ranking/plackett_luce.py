"""Lists drawn by chance from a softmax, and the exact probabilities with which they were drawn.

Items are drawn one after the other without replacement, each with a probability proportional to its weight. This is the
distribution of Plackett (1975) and Luce (1959). It is also the order of independent exponential times, of which an item
has its weight as rate; so the probability to be in a list is an integral of one variable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.events.vocabulary import Id, typed

LONGEST_STEP, STEP_OF_ONE = 0.3, 0.8
"""A step of the integral in the logarithm of time, which is shorter for longer lists: the time of the k-th item varies
by 1/√k. The error is below 1e-9 for pools of up to 500 equal items, where it is largest."""
FIRST_TIME, LAST_TIME = 1e-10, 40.0
"""Where the integral begins, in units of 1 / the sum of weights, and ends, in units of 1 / the k-th weight."""


def softmax_weights(
    score: Float[np.ndarray, "history pool"], temperature: float, uniform_share: float, k: Int[np.ndarray, " history"]
) -> Float[np.ndarray, "history pool"]:
    """What lists are drawn by: exp(score / temperature), and the same addition for all items of a pool.

    The addition gets the `uniform_share` of the probability of the last place, where the best items are taken by the
    places before. It gets less of earlier places, so a list begins with items that are probable.

    Args:
        score: Highest first; −inf stands for no item, which has weight 0.
        temperature: Above 0, so large that no difference of scores over it is above 700.
        uniform_share: Above 0, below 1.
        k: Lengths of the lists.

    Returns:
        Weights; rows sum to 1, and to 0 where there is no item.

    >>> softmax_weights(np.log([[0.6, 0.3, 0.1]]), temperature=1.0, uniform_share=0.2, k=np.array([2])).round(3)
    array([[0.565, 0.304, 0.13 ]])
    """
    is_there = score > -np.inf
    weight = np.exp((score - np.where(is_there[:, :1], score[:, :1], 0.0)) / temperature, dtype=np.float64)
    # What is left for the last place, at least one item.
    last = np.minimum(np.minimum(k, is_there.sum(axis=1)), weight.shape[1])[:, None] - 1
    left = np.where(np.arange(weight.shape[1]) >= last, weight, 0.0).sum(axis=1, keepdims=True)
    num_left = np.maximum(is_there.sum(axis=1, keepdims=True) - np.maximum(last, 0), 1)
    weight += is_there * left * uniform_share / (1 - uniform_share) / num_left
    return np.asarray(weight / np.maximum(weight.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny))


def random_key(seed: int | None, user_id: Id | None) -> int:
    """The key (64 bits) of the random numbers of one list: the same for a seed and a user.

    >>> random_key(1, 12) == random_key(1, "12")
    False
    """
    of_user = "" if user_id is None else typed(user_id)
    return int.from_bytes(hashlib.blake2b(f"{seed or 0}/{of_user}".encode(), digest_size=8).digest(), "big")


def uniform_numbers(keys: Sequence[int], number: Int[np.ndarray, "key number"]) -> Float[np.ndarray, "key number"]:
    """A number between 0 and 1 for each key and whole number from 0, the same at any place and in any order.

    That is the output of SplitMix64 with the key as its seed (Steele, Lea and Flood, 2014) at a place of its sequence.
    """
    with np.errstate(over="ignore"):
        state = np.array(keys, dtype=np.uint64)[:, None] + (number + 1).astype(np.uint64) * np.uint64(
            0x9E3779B97F4A7C15
        )
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return ((state >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


@dataclass(frozen=True, eq=False)
class DrawnLists:
    """Lists that were drawn, as indices of the pool, −1 where a list is shorter.

    Args:
        index: The items of the pool, in the order in which they were drawn.
        at_rank: Probability of each to be drawn at its rank, given those before it; 0 where there is none.
        in_list: Probability of each to be in the list at any rank; 0 where there is none.
    """

    index: Int[np.ndarray, "history k"]
    at_rank: Float[np.ndarray, "history k"]
    in_list: Float[np.ndarray, "history k"]


def draw_lists(
    item: Int[np.ndarray, "history pool"],
    weight: Float[np.ndarray, "history pool"],
    k: Int[np.ndarray, " history"],
    keys: Sequence[int],
) -> DrawnLists:
    """One list of up to k items for each history.

    Args:
        item: The items of the pools. An item has the same random number wherever it stands in its pool.
        weight: What they are drawn by; those of weight 0 are never drawn.
        k: Lengths of the lists.
        keys: Of the random numbers; see `random_key`.

    >>> drawn = draw_lists(np.array([[7, 4, 9]]), np.array([[0.5, 0.3, 0.2]]), np.array([2]), [random_key(1, "u1")])
    >>> drawn.index.shape, bool(0 < drawn.at_rank.min() <= drawn.in_list.min() <= 1)
    ((1, 2), True)
    """
    width = int(min(k.max(initial=0), weight.shape[1]))
    uniform = uniform_numbers(keys, np.maximum(item, 0))
    # The earliest of exponential times; the logarithm keeps weights apart that are almost 0.
    with np.errstate(divide="ignore"):
        time = np.where(weight > 0, np.log(-np.log1p(-uniform)) - np.log(weight), np.inf)
    index = np.argsort(time, axis=1, kind="stable")[:, :width]
    is_there = (np.take_along_axis(weight, index, axis=1) > 0) & (np.arange(width) < k[:, None])
    index = np.where(is_there, index, -1)
    return DrawnLists(index, at_rank(weight, index), in_list(weight, index, k))


def at_rank(
    weight: Float[np.ndarray, "history pool"], index: Int[np.ndarray, "history k"]
) -> Float[np.ndarray, "history k"]:
    """The probability of each item of a list to be drawn at its rank, given those before it; 0 for the index −1.

    >>> at_rank(np.array([[0.5, 0.3, 0.2]]), np.array([[2, 0]]))
    array([[0.2  , 0.625]])
    """
    chosen, rest = _chosen_and_rest(weight, index)
    # Sums of what is left, not differences: those lose the digits of small weights.
    left = rest.sum(axis=1, keepdims=True) + np.cumsum(chosen[:, ::-1], axis=1)[:, ::-1]
    return np.divide(chosen, left, out=np.zeros_like(chosen), where=chosen > 0)


def in_list(
    weight: Float[np.ndarray, "history pool"], index: Int[np.ndarray, "history n"], k: Int[np.ndarray, " history"]
) -> Float[np.ndarray, "history n"]:
    """The probability of some items of the pool to be among the first k that are drawn; 0 for the index −1.

    An item is among them where fewer than k others have an earlier time. That is an integral over its own time of the
    distribution of a number of independent events (Poisson binomial). The trapezoidal rule in the logarithm of time
    converges exponentially for it.

    Args:
        weight: Of the pool; not negative.
        index: Items of the pool, none twice in a row.
        k: Lengths of the lists, from 1.

    >>> weight = np.array([[0.5, 0.3, 0.2]])
    >>> in_list(weight, np.array([[0, 1, 2]]), np.array([1])).round(9)
    array([[0.5, 0.3, 0.2]])
    >>> in_list(weight, np.array([[0, 1, 2]]), np.array([2])).sum().round(9).item()
    2.0
    """
    found = np.zeros(index.shape)
    num_items = (weight > 0).sum(axis=1)
    is_certain = num_items <= k  # All of them are in the list.
    found[is_certain] = 1.0
    for length in np.unique(k[~is_certain]).tolist():
        rows = np.flatnonzero(~is_certain & (k == length))
        found[rows] = _in_list(weight[rows], index[rows], length)
    return np.where(np.take_along_axis(weight, np.maximum(index, 0), axis=1) * (index >= 0) > 0, found, 0.0)


def _chosen_and_rest(
    weight: Float[np.ndarray, "history pool"], index: Int[np.ndarray, "history n"]
) -> tuple[Float[np.ndarray, "history n"], Float[np.ndarray, "history pool"]]:
    """Weights of some items, and those of the pool with 0 in their place."""
    is_there: Bool[np.ndarray, "history n"] = index >= 0
    chosen = np.where(is_there, np.take_along_axis(weight, np.maximum(index, 0), axis=1), 0.0)
    rest = weight.copy()
    row, column = np.nonzero(is_there)
    rest[row, index[row, column]] = 0.0
    return chosen, rest


def _in_list(
    weight: Float[np.ndarray, "history pool"], index: Int[np.ndarray, "history n"], k: int
) -> Float[np.ndarray, "history n"]:
    """For rows that have more than k items."""
    kth = -np.partition(-weight, k, axis=1)[:, k]  # With one of the k before it left out, this is the k-th.
    first, last = np.log(FIRST_TIME / weight.sum(axis=1)), np.log(LAST_TIME / kth)
    step = min(LONGEST_STEP, STEP_OF_ONE / np.sqrt(k))
    time = np.exp(first[:, None] + step * np.arange(int(np.ceil((last - first).max() / step))))
    chosen, rest = _chosen_and_rest(weight, index)
    # Of each item and time: has it come, has it not. `num` counts those that have come, up to k − 1.
    num = np.zeros((*time.shape, k))
    num[..., 0] = 1.0
    for column in range(rest.shape[1]):
        if rest[:, column].any():
            _count(num, -np.expm1(-rest[:, column, None] * time))
    has_come = -np.expm1(-chosen[:, None, :] * time[:, :, None])
    before = [num]
    for column in range(chosen.shape[1] - 1):
        before.append(before[-1].copy())
        _count(before[-1], has_come[:, :, column])
    result = np.zeros(chosen.shape)
    after = np.zeros_like(num)
    after[..., 0] = 1.0
    for column in reversed(range(chosen.shape[1])):
        # Fewer than k of those before and after it: Σ_a before[a] · P(after ≤ k − 1 − a).
        fewer = (before[column] * np.cumsum(after, axis=2)[..., ::-1]).sum(axis=2)
        rate = chosen[:, column, None] * time
        result[:, column] = step * (rate * np.exp(-rate) * fewer).sum(axis=1)
        _count(after, has_come[:, :, column])
    return np.minimum(result, 1.0)


def _count(num: Float[np.ndarray, "history time k"], probability: Float[np.ndarray, "history time"]) -> None:
    """Add one independent event to the distribution of a number of events, in place."""
    there = probability[..., None]
    come = num[..., :-1] * there
    num *= 1 - there
    num[..., 1:] += come
