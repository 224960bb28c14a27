"""Carries the calibration of one network over to the network that a refit made of it; no target is looked at."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace

import numpy as np
from jaxtyping import Float

from variseq.model.network import Network
from variseq.ranking.calibration import Calibration, CalibrationResult, GatingNetwork, repeat_share
from variseq.recommend.network_model import count_events, mixture_model
from variseq.sequences.histories import Histories

QUERIES, FEWEST_QUERIES, CELLS = 512, 64, 25_000_000
"""At most so many histories are looked at, and no more pairs of a history and an item; the same for both networks."""
HALVINGS = 8
WIDEST_FACTOR = 2.0


@dataclass(frozen=True, eq=False)
class Confidence:
    """How confident a network is on some histories: the inputs of the gating network, and the mean entropy in nats."""

    log_mass: Float[np.ndarray, " history"]
    log_variance: Float[np.ndarray, " history"]
    entropy: float


def transferred(
    calibrated: CalibrationResult, before: tuple[Network, Histories], after: tuple[Network, Histories]
) -> CalibrationResult:
    """The same, calibrated for the second network, which is to be as confident as the first was.

    A network that was trained for longer is more confident, so temperatures and weights that were fitted to the first
    would trust the second too much: on Amazon Beauty the weight of the uniform component fell from 28 % to 13 %, and
    sets that should hold 90 % held 84 %. Temperatures are scaled until the mean entropy is the same, and the inputs of
    the gating network are shifted and scaled so that their mean and spread are the same.

    Args:
        calibrated: The calibration of the first network.
        before: The first network, and the histories before the validation events.
        after: The second network, and the histories up to the validation events, of the same users.

    Returns:
        The calibration of the second network; users without a history are left out, and repeats are counted again.
    """
    calibration, calibrated = calibrated.calibration, replace(calibrated, repeat_share=repeat_share(after[1]))
    known = np.flatnonzero(before[1].lengths)
    if not len(known):
        return calibrated
    before, after = (before[0], before[1].rows(known)), (after[0], after[1].rows(known))
    wanted = _confidence(calibration, *before)
    low, high = 1 / WIDEST_FACTOR, WIDEST_FACTOR
    for _ in range(HALVINGS):
        factor = (low * high) ** 0.5
        # The entropy rises with the temperature.
        is_too_confident = _confidence(_scaled(calibration, factor), *after).entropy < wanted.entropy
        low, high = (factor, high) if is_too_confident else (low, factor)
    scaled = _scaled(calibration, (low * high) ** 0.5)
    found = _confidence(scaled, *after)
    moved = replace(scaled, gate=_moved_gate(scaled.gate, wanted, found))
    if moved.at_request is not None:
        gate = _moved_gate(moved.at_request.gate, wanted, found)
        moved = replace(moved, at_request=replace(moved.at_request, temperatures=moved.temperatures, gate=gate))
    return replace(calibrated, calibration=moved)


def _scaled(calibration: Calibration, factor: float) -> Calibration:
    return replace(calibration, temperatures=tuple(round(factor * value, 4) for value in calibration.temperatures))


def _moved_gate(gate: GatingNetwork, wanted: Confidence, found: Confidence) -> GatingNetwork:
    return GatingNetwork(*(_moved(weights, wanted, found) for weights in astuple(gate)))


def _moved(weights: tuple[float, ...], wanted: Confidence, found: Confidence) -> tuple[float, ...]:
    """Weights that give for the found inputs what the old ones give for the wanted inputs at the same quantile."""
    bias, slopes = weights[0], []
    for slope, old, new in (
        (weights[1], wanted.log_mass, found.log_mass),
        (weights[2], wanted.log_variance, found.log_variance),
    ):
        scale = float(old.std() / max(new.std(), 1e-6))
        slopes.append(round(slope * scale, 4))
        bias += slope * float(old.mean()) - slopes[-1] * float(new.mean())
    return (round(bias, 4), *slopes, *weights[3:])


def _confidence(calibration: Calibration, network: Network, histories: Histories) -> Confidence:
    number = min(int(np.clip(CELLS // network.config.num_items, FEWEST_QUERIES, QUERIES)), len(histories))
    chosen = np.unique(np.linspace(0, len(histories) - 1, number).astype(np.int64))
    # With this gating network the network has all the weight.
    alone = replace(calibration, gate=GatingNetwork())
    model = mixture_model(network, count_events(network.config.num_items), alone)
    log_mass, log_variance, entropy = [], [], []
    size = model.rows_at_once(max(1, alone.num_samples))
    for first in range(0, len(chosen), size):
        part = histories.rows(chosen[first : first + size])
        encoded = model.encode(part)
        distribution = model.distribution(encoded, part)
        log_mass.append(distribution.softmaxes.log_mass.mean(axis=1))
        log_variance.append(encoded.log_variance.astype(np.float64))
        entropy.append(distribution.entropies(distribution.probabilities())[1])
    return Confidence(np.concatenate(log_mass), np.concatenate(log_variance), float(np.concatenate(entropy).mean()))
