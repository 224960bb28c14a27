"""Lists drawn by chance from a softmax, and the exact probabilities with which they were drawn.

Items are drawn one after the other without replacement, each with a probability proportional to its weight. This is the
distribution of Plackett (1975) and Luce (1959). It is also the order of independent exponential times, of which an item
has its weight as rate; so the probability to be in a list is an integral of one variable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

STEP = 0.2
"""Width of a step of the integral in the logarithm of time; the error falls as exp(−π²/STEP), below 1e-12 here."""
FIRST_TIME, LAST_TIME = 1e-12, 50.0
"""Where the integral begins, in units of one over the sum of weights, and ends, in those of one over the k-th weight."""


def softmax_weights(
    score: Float[np.ndarray, "history pool"], temperature: float, floor: float
) -> Float[np.ndarray, "history pool"]:
    """What a list is drawn by: the softmax of score / temperature, of which a share `floor` is dealt to all equally.

    A score of −inf stands for no item: it has weight 0. Rows sum to 1; a row without items has zeros.

    >>> softmax_weights(np.log([[0.6, 0.3, 0.1]]), temperature=1.0, floor=0.1).round(3)
    array([[0.573, 0.303, 0.123]])
    """
    is_there = score > -np.inf
    highest = np.where(is_there, score, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    weight = np.exp((score - np.where(highest > -np.inf, highest, 0.0)) / temperature, dtype=np.float64)
    weight /= np.maximum(weight.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return (1 - floor) * weight + floor * is_there / np.maximum(is_there.sum(axis=1, keepdims=True), 1)


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
    weight: Float[np.ndarray, "history pool"], k: Int[np.ndarray, " history"], seeds: Int[np.ndarray, " history"]
) -> DrawnLists:
    """One list of up to k items for each history, from random numbers of its own seed alone.

    >>> drawn = draw_lists(np.array([[0.5, 0.3, 0.2, 0.0]]), np.array([2]), np.array([1]))
    >>> drawn.index.shape, bool(0 < drawn.at_rank.min() <= drawn.in_list.min() <= 1)
    ((1, 2), True)
    """
    width = int(min(k.max(initial=0), weight.shape[1]))
    # The earliest of exponential times; the logarithm keeps weights apart that are almost 0.
    uniform = np.stack([np.random.Generator(np.random.Philox(int(seed))).random(weight.shape[1]) for seed in seeds])
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
    >>> in_list(weight, np.array([[0, 1, 2]]), np.array([2])).sum().round(9)
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
    num_steps = int(np.ceil((last - first).max() / STEP))
    time = np.exp(first[:, None] + STEP * np.arange(num_steps))
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
        result[:, column] = STEP * (rate * np.exp(-rate) * fewer).sum(axis=1)
        _count(after, has_come[:, :, column])
    return np.minimum(result, 1.0)


def _count(num: Float[np.ndarray, "history time k"], probability: Float[np.ndarray, "history time"]) -> None:
    """Add one independent event to the distribution of a number of events, in place."""
    there = probability[..., None]
    come = num[..., :-1] * there
    num *= 1 - there
    num[..., 1:] += come
