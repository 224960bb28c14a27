"""A weight of a mixture that the log chooses and pays for: a noisy sum of what users gain by each of some weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.evaluation.metrics import ndcg
from variseq.evaluation.splits import Part
from variseq.events.vocabulary import Id
from variseq.privacy.accounting import public_users
from variseq.privacy.contributions import bounded_steps
from variseq.privacy.noise import Noise, secure_noise
from variseq.ranking.mixture import MixtureModel
from variseq.sequences.histories import Histories

CONTENT_WEIGHTS = (0.0, 0.03, 0.1, 0.3)
NETWORK_WEIGHTS = (0.0, 0.2, 0.5, 0.9)
"""The weights of content and of a network, among which is chosen."""
MOST_CELLS = 300_000_000
"""About so many probabilities are computed for each weight; with more users or items, users are sampled."""


def chosen_weight(
    model_of: Callable[[float], MixtureModel],
    weights: Sequence[float],
    valid: Part,
    users: Sequence[Id],
    noise_multiplier: float,
    noise: Noise = secure_noise,
) -> float:
    """The weight with the best lists for users' next items, by a noisy sum over users.

    A user adds the gains in NDCG@10 of the last validation target, one for each weight, scaled down to a norm of 1
    where it is larger. What is released is the noisy sum of gains, one more Gaussian mechanism of the ledger; the
    choice follows from it.

    Args:
        model_of: The model with a weight; all have one encoder.
        weights: Those that are compared; gains are over the first one.
        valid: The validation part, of which the release has not learned.
        users: The ids of all users, in the order of the part.
        noise_multiplier: Standard deviation of the noise over the norm of what one user adds at most.
        noise: For tests only; without it there is no privacy.
    """
    sums = summed_gains(model_of, weights, valid, users)
    return best_weight(weights, sums + noise(noise_multiplier, len(sums)))


def best_weight(weights: Sequence[float], gains: Int[np.ndarray, " other"]) -> float:
    """The weight with the largest gain; that of the first weight is 0."""
    return weights[int(np.argmax(np.concatenate([[0], gains])))]


def summed_gains(
    model_of: Callable[[float], MixtureModel], weights: Sequence[float], valid: Part, users: Sequence[Id] | None = None
) -> Int[np.ndarray, " other"]:
    """The sums of `chosen_weight` without noise, in steps of `GRID`: one for each weight but the first.

    Without `users` all of them are asked, however many they are.
    """
    queries = valid.queries("last")
    if users is not None:
        share = min(1.0, MOST_CELLS / (valid.num_items * public_users(len(users))))
        is_sampled = _are_sampled(users, share)[queries.user]
        queries = replace(queries, user=queries.user[is_sampled], position=queries.position[is_sampled])
    histories = valid.histories_before(queries)
    target = valid.histories.item[queries.position].astype(np.int64)
    found = _ndcg([model_of(weight) for weight in weights], histories, target)
    gains: Int[np.ndarray, " other"] = bounded_steps(found[:, 1:] - found[:, :1]).sum(axis=0)
    return gains


def _are_sampled(users: Sequence[Id], share: float) -> Bool[np.ndarray, " user"]:
    """About this share of the users; whether one is among them depends on the own id alone."""
    digests = (hashlib.sha256(repr(one).encode()).digest() for one in users)
    return np.array([int.from_bytes(digest[:8], "big") < share * 2**64 for digest in digests], dtype=bool)


def _ndcg(
    models: Sequence[MixtureModel], histories: Histories, target: Int[np.ndarray, " history"]
) -> Float[np.ndarray, "history model"]:
    """NDCG@10 of one item for each history; where seen items are left out, they have the least probability."""
    found, size = np.zeros((len(histories), len(models))), models[0].rows_at_once(1)
    for first in range(0, len(histories), size):
        rows = np.arange(first, min(first + size, len(histories)))
        part = histories.rows(rows)
        encoded = models[0].encode(part)
        for number, model in enumerate(models):
            p = model.distribution(encoded, part).probabilities()
            rank = (p >= p[np.arange(len(rows)), target[rows]][:, None]).sum(axis=1)
            found[rows, number] = ndcg(rank.astype(np.float64), 10)
    return found
