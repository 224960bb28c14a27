"""What validation taught about one network into that of the network that a refit made of it; no target is looked at."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from variseq.model.network import Network
from variseq.ranking.calibration import Calibration, CalibrationResult, GatingNetwork, repeat_share
from variseq.recommend.forecast import Forecast
from variseq.recommend.memory import Memory
from variseq.sequences.histories import Histories

QUERIES = 512
QUERIES_AT_ONCE = 64
HALVINGS = 8
WIDEST_FACTOR = 2.0


@dataclass(frozen=True, eq=False)
class Sureness:
    """How sure a network is of some histories: what the gate looks at, and its mean entropy in nats."""

    log_mass: Float[Tensor, " history"]
    log_variance: Float[Tensor, " history"]
    entropy: float


def transferred(
    learned: CalibrationResult, before: tuple[Network, Histories], after: tuple[Network, Histories]
) -> CalibrationResult:
    """The same, calibrated for the second network, which is to be as sure of its histories as the first was of its own.

    A network that was trained for longer is surer of everything, so a temperature and a gate that were fitted to the
    first would trust the second too much: on Amazon Beauty the voice of "anything" fell from 28 % to 13 %, and sets
    that should hold 90 % held 84 %. Temperatures are scaled until the mean entropy is the same, and the gate's inputs
    are moved and scaled so that their mean and spread are the same. Only histories are looked at, no targets: those
    before the validation events for the first network, those up to them for the second, of the same users. Who had no
    history yet is left out: of them nobody is sure, which says nothing of the networks. Repeats are counted again.
    """
    calibration, learned = learned.calibration, replace(learned, repeat_share=repeat_share(after[1]))
    known = np.flatnonzero(before[1].lengths)
    if not len(known):
        return learned
    before, after = (before[0], before[1].rows(known)), (after[0], after[1].rows(known))
    wanted = _sureness(calibration, *before)
    low, high = 1 / WIDEST_FACTOR, WIDEST_FACTOR
    for _ in range(HALVINGS):
        factor = (low * high) ** 0.5
        # The entropy rises with the temperature.
        is_surer = _sureness(_scaled(calibration, factor), *after).entropy < wanted.entropy
        low, high = (factor, high) if is_surer else (low, factor)
    scaled = _scaled(calibration, (low * high) ** 0.5)
    found = _sureness(scaled, *after)
    voices = [_moved(weights, wanted, found) for weights in astuple(scaled.gate)]
    return replace(learned, calibration=replace(scaled, gate=GatingNetwork(*voices)))


def _scaled(calibration: Calibration, factor: float) -> Calibration:
    return replace(calibration, temperatures=tuple(round(factor * value, 4) for value in calibration.temperatures))


def _moved(weights: tuple[float, float, float], wanted: Sureness, found: Sureness) -> tuple[float, float, float]:
    """Weights that say of the found inputs what the given ones say of the wanted inputs of the same standing."""
    bias, slopes = weights[0], []
    for slope, old, new in (
        (weights[1], wanted.log_mass, found.log_mass),
        (weights[2], wanted.log_variance, found.log_variance),
    ):
        scale = float(old.std(correction=0) / new.std(correction=0).clamp(min=1e-6))
        slopes.append(round(slope * scale, 4))
        bias += slope * float(old.mean()) - slopes[-1] * float(new.mean())
    return (round(bias, 4), slopes[0], slopes[1])


@torch.no_grad()
def _sureness(calibration: Calibration, network: Network, histories: Histories) -> Sureness:
    chosen = np.unique(np.linspace(0, len(histories) - 1, min(QUERIES, len(histories))).astype(np.int64))
    nothing = Memory(network.config.num_items)
    # With the gate shut the network is heard alone.
    alone = Forecast(network, nothing, replace(calibration, gate=GatingNetwork()))
    log_mass, log_variance, entropy = [], [], []
    for first in range(0, len(chosen), QUERIES_AT_ONCE):
        place = chosen[first : first + QUERIES_AT_ONCE]
        query = alone.query(histories.select(histories.offsets[place], histories.offsets[place + 1]))
        log_mass.append(query.log_mass.mean(dim=0).cpu())
        log_variance.append(query.log_variance.cpu())
        entropy.append(alone.sampled_entropy(query).mean(dim=0).cpu())
    return Sureness(torch.cat(log_mass), torch.cat(log_variance), float(torch.cat(entropy).mean()))
