"""Fits with made-up people in the log, and attacks that find out who of them was in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float

from variseq.errors import InputError
from variseq.estimator import VariationalAttention
from variseq.log import NO_TEST, Log
from variseq.privacy.attacks import Attack, found_transitions, likelihood_ratio_scores
from variseq.ranking.calibration import Calibration
from variseq.ranking.mixture import MixtureModel
from variseq.recommend.network_model import ModelRecommender, engine_of, mixture_model
from variseq.sequences.histories import Histories
from variseq.training.defaults import Size

LEAST_CANARIES, LEAST_SHADOWS = 10, 4
MOST_EVENTS = 20
"""Of a canary."""
QUERIES_AT_ONCE = 1024


@dataclass(frozen=True)
class FitAuditOptions:
    """How a fit is attacked.

    Args:
        num_canaries: Made-up people; each is in the log with probability 1/2.
        num_shadows: Shadow fits for the likelihood ratio attack; 0: it is left out.
        size: The size of the network.
        seed: Of the fit, of canaries and of coin flips.
        training: Fields of `TrainingConfig` that are set by hand.

    Raises:
        InputError: For numbers that are not possible.
    """

    num_canaries: int = 250
    num_shadows: int = 0
    size: Size = "tiny"
    seed: int = 0
    training: tuple[tuple[str, object], ...] = ()

    def __post_init__(self) -> None:
        if self.num_canaries < LEAST_CANARIES:
            raise InputError(f"{self.num_canaries} canaries are not possible. Give {LEAST_CANARIES} or more.")
        if self.num_shadows and (self.num_shadows < LEAST_SHADOWS or self.num_shadows % 2):
            raise InputError(
                f"{self.num_shadows} shadow fits are not possible. Give an even number from {LEAST_SHADOWS} on, as "
                "each canary is in half of them; or 0 for no likelihood ratio attack."
            )


def attack_fit(log: Log, options: FitAuditOptions, progress: Callable[[int, int], None]) -> list[Attack]:
    """Fit on a log with some of the canaries, and attack the fit. Nothing is written and no fit is kept.

    Args:
        log: The log; it is not changed.
        options: How it is attacked.
        progress: Is called before each fit with its number, from 1, and the number of all.

    Returns:
        Three or four attacks: by the loss of the network, by that of what is recommended (the mixture with counts), by
        looking up the stored transitions, and with shadow fits by the likelihood ratio of the network's loss.

    Raises:
        InputError: For a log that cannot be split leave-one-out.
    """
    random = np.random.default_rng(options.seed)
    canaries = made_up_people(log, options.num_canaries, random)
    included = random.random(options.num_canaries) < 0.5
    total = 1 + options.num_shadows
    progress(1, total)
    fitted = _fitted(log, canaries, included, options, options.seed)
    assert fitted.checkpoint is not None
    counts = {name: tensor.numpy() for name, tensor in fitted.checkpoint.counts.items()}
    loss = mean_losses(_network_alone(fitted), canaries)
    found = {
        "loss of the network": -loss,
        "loss of what is recommended": -mean_losses(engine_of(fitted.checkpoint).model, canaries),
        "look-up of stored transitions": found_transitions(canaries, counts["offsets"], counts["item"]),
    }
    if options.num_shadows:
        # One half of the canaries is in one fit of two and the other half in the other: each is in half of all fits.
        halves = [random.permutation(options.num_canaries) % 2 == 0 for _ in range(options.num_shadows // 2)]
        shadow_included = np.stack([one for half in halves for one in (half, ~half)])
        losses = []
        for number, one in enumerate(shadow_included, start=1):
            progress(1 + number, total)
            losses.append(
                mean_losses(_network_alone(_fitted(log, canaries, one, options, options.seed + number)), canaries)
            )
        name = f"likelihood ratio, {options.num_shadows} shadow fits"
        found[name] = likelihood_ratio_scores(loss, np.stack(losses), shadow_included)
    return [Attack(name, score, included) for name, score in found.items()]


def made_up_people(log: Log, number: int, random: np.random.Generator) -> Histories:
    """Canaries: times, behaviors and values of the last events of a real person, and random items, each once.

    Raises InputError for a log in which nobody has three events of different items.
    """
    histories, num_items = log.histories, log.vocabulary.num_items
    most = min(MOST_EVENTS, num_items)
    long_enough = np.flatnonzero(histories.lengths >= 3)
    if not len(long_enough) or most < 3:
        raise InputError("Nobody in the log has three events, as a canary does. Give a longer log.")
    chosen = histories.rows(random.choice(long_enough, number)).latest(most)
    items = [random.choice(num_items, length, replace=False) for length in chosen.lengths]
    return replace(chosen, item=np.concatenate(items).astype(np.int32), is_target=None)


def mean_losses(model: MixtureModel, canaries: Histories) -> Float[np.ndarray, " canary"]:
    """The mean of −log p over the events of each canary but the first, each given the events before it."""
    start = np.repeat(canaries.offsets[:-1], canaries.lengths)
    position = np.arange(canaries.num_events)
    is_query = position > start
    start, position = start[is_query], position[is_query]
    user = np.repeat(np.arange(len(canaries)), canaries.lengths - 1)
    recommender, losses = ModelRecommender(model), np.empty(len(position))
    for first in range(0, len(position), QUERIES_AT_ONCE):
        part = slice(first, first + QUERIES_AT_ONCE)
        log_p = recommender.scores(canaries.select(start[part], position[part])).numpy()
        losses[part] = -log_p[np.arange(len(log_p)), canaries.item[position[part]]]
    return np.bincount(user, weights=losses) / (canaries.lengths - 1)


def _fitted(
    log: Log, canaries: Histories, included: Bool[np.ndarray, " canary"], options: FitAuditOptions, seed: int
) -> VariationalAttention:
    """A fit on the log and the included canaries, on all their events."""
    joined = log.histories.joined(canaries.rows(np.flatnonzero(included)))
    users = pa.array(range(len(joined)))
    with_canaries = replace(log, histories=joined, vocabulary=replace(log.vocabulary, users=users), users={})
    train, valid, _ = with_canaries.split("leave-one-out", NO_TEST)
    return VariationalAttention(options.size, seed, training=dict(options.training)).fit(train, valid, verbose=0)


def _network_alone(fitted: VariationalAttention) -> MixtureModel:
    """The forecast of the network without counts, from the posterior mean."""
    assert fitted.checkpoint is not None
    return mixture_model(fitted.checkpoint.network, fitted.checkpoint.counts, Calibration(num_samples=0))
