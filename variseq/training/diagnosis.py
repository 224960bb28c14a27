"""The records and settings of a run into a diagnosis: what is wrong with its latent, how that shows, what to change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from variseq.training.advice import Advice, advice_for
from variseq.training.collapse_watch import MIN_ACTIVE_SHARE, MIN_SWAP_GAP_NATS
from variseq.training.latent_tests import (
    HEAVY_BETA,
    LOW_KL_NATS,
    MAX_CLAMPED_SHARE,
    MAX_DROWNED_SHARE,
    MAX_RISE_NATS,
    RUNAWAY_BETA,
    Test,
    is_far_below_target,
    latent_tests,
)
from variseq.training.symptoms import Epochs, PositionGroup, Symptoms, symptoms

Kind = Literal[
    "healthy", "deterministic twin", "collapse", "bypass", "over-regularized", "variance explosion", "instability"
]

MIN_LATE_NDCG_SHARE = 0.5
"""A network that ranks half as well as the kept one has forgotten, not fluctuated."""

WHAT_IT_IS: dict[Kind, str] = {
    "healthy": ", and nothing is wrong with it.",
    "deterministic twin": (
        ", without noise: the kept weights were trained on the means alone. Nothing is wrong with that, but σ was "
        "never trained and means nothing."
    ),
    "collapse": ": the posterior has collapsed: it says (almost) nothing about a history.",
    "bypass": ": posteriors differ between users, but the decoder does not read them.",
    "over-regularized": "; it is held down: the weight of the KL leaves posteriors less than the data has to say.",
    "variance explosion": "; it is drowned: σ is so large that a sample says much less than the mean.",
    "instability": ", and the kept weights are sound, but the training became unstable after them.",
}
"""How the sentence goes on that begins with whether the latent is used."""


@dataclass(frozen=True)
class Diagnosis:
    """`is_used` is whether the decoder reads the posteriors of the kept epoch (counted from 1)."""

    kind: Kind
    is_used: bool
    epoch: int
    verdict: str
    evidence: tuple[str, ...]
    advice: tuple[Advice, ...]
    tests: tuple[Test, ...]
    groups: tuple[PositionGroup, ...]

    def paragraph(self) -> str:
        """Verdict, evidence and advice in one paragraph, for a warning."""
        changes = " ".join(f"Set {one.assignment()}: {one.reason}." for one in self.advice)
        return f"{self.verdict} Seen in epoch {self.epoch}: {'; '.join(self.evidence)}. {changes}".strip()


def diagnose(epochs: Epochs, settings: Mapping[str, Any]) -> Diagnosis:
    """The diagnosis of a run, from its epoch records (at least one) and settings (see `flat_settings`) alone."""
    seen = symptoms(epochs, settings)
    kind = _kind(seen)
    is_used = kind not in ("collapse", "bypass") and (seen.noise == 0 or not seen.alarms)
    return Diagnosis(
        kind=kind,
        is_used=is_used,
        epoch=seen.epoch,
        verdict=f"The latent is {'used' if is_used else 'NOT used'}{WHAT_IT_IS[kind]}",
        evidence=tuple(_evidence(seen, kind)),
        advice=tuple(advice_for(kind, seen)),
        tests=tuple(latent_tests(seen)),
        groups=seen.groups,
    )


def _kind(seen: Symptoms) -> Kind:
    """The first that fits, from the plainest sign to the subtlest."""
    if seen.noise > 0 and (seen.clamped_share or 0.0) > MAX_CLAMPED_SHARE:
        return "variance explosion"
    if _is_unread(seen):
        return "collapse" if _says_little(seen) else "bypass"
    if seen.noise == 0:
        return "deterministic twin"
    if _is_held_down(seen):
        return "over-regularized"
    if _is_drowned(seen):
        return "variance explosion"
    if seen.alarms:
        return "collapse"
    return "instability" if _is_unstable(seen) else "healthy"


def _is_unread(seen: Symptoms) -> bool:
    """Few dimensions tell anything, or another user's posteriors do as well (at the mean where that was measured)."""
    swap_gap = seen.swap_gap if seen.swap_gap_at_mean is None else seen.swap_gap_at_mean
    return seen.active_share < MIN_ACTIVE_SHARE or swap_gap < MIN_SWAP_GAP_NATS


def _says_little(seen: Symptoms) -> bool:
    is_empty = seen.active_share < MIN_ACTIVE_SHARE or min(seen.kl, seen.mutual_information) < LOW_KL_NATS
    return is_empty or seen.beta >= HEAVY_BETA


def _is_drowned(seen: Symptoms) -> bool:
    return (seen.drowned_share or 0.0) > MAX_DROWNED_SHARE


def _is_held_down(seen: Symptoms) -> bool:
    if seen.highest_beta >= RUNAWAY_BETA:
        return True
    return seen.beta >= HEAVY_BETA and (seen.kl < LOW_KL_NATS or is_far_below_target(seen) or _is_drowned(seen))


def _is_unstable(seen: Symptoms) -> bool:
    return seen.rise > MAX_RISE_NATS or seen.late_ndcg < MIN_LATE_NDCG_SHARE


def _evidence(seen: Symptoms, kind: Kind) -> list[str]:
    """What was seen, with its numbers: first what led to the kind, then what goes with it."""
    found = list(seen.alarms)
    if seen.clamped_share and seen.clamped_share > MAX_CLAMPED_SHARE and seen.noise > 0:
        found.append(f"{seen.clamped_share:.0%} of the log-variances stand at their upper bound and cannot come back")
    if kind == "bypass":
        found.append(
            f"posteriors carry {seen.kl:.1f} nats per position and tell users apart ({seen.mutual_information:.1f} "
            "nats of mutual information), yet the loss does not depend on them; as nothing but posteriors reaches it, "
            "either it has not learned to read them, or the next item does not depend on the history"
        )
    if seen.highest_beta >= RUNAWAY_BETA:
        found.append(
            f"β reached {seen.highest_beta:.2g} in epoch {seen.beta_epoch}; at {RUNAWAY_BETA:g} or more the KL "
            "drowns the loss that it should serve"
        )
    elif kind in ("collapse", "over-regularized") and seen.beta >= HEAVY_BETA:
        found.append(f"β is {seen.beta:.2g}, where runs that learn have less than {HEAVY_BETA:g}")
    if kind not in ("healthy", "deterministic twin", "bypass"):
        found.append(_rate_sentence(seen))
    if kind in ("over-regularized", "variance explosion") and _is_drowned(seen) and seen.noise_cost is not None:
        found.append(
            f"a sample has {seen.noise_cost:.2f} nats more loss than the mean, {seen.drowned_share:.0%} of what the "
            f"posterior is worth ({seen.swap_gap_at_mean:.2f} nats)"
        )
    if kind != "deterministic twin" and _is_unstable(seen):
        found.append(
            f"at the end the training loss lay {seen.rise:.2f} nats above its lowest, and validation NDCG@10 was at "
            f"{seen.late_ndcg:.0%} of the kept epoch's"
        )
    return found or [_use_sentence(seen)]


def _rate_sentence(seen: Symptoms) -> str:
    told = f"the KL is {seen.kl:.2g} nats per position"
    if seen.target is not None:
        told += f" where {seen.target:g} was asked for"
        if seen.target <= seen.floor:
            told += f" and less than {seen.floor:g} cannot be reached"
    return told


def _use_sentence(seen: Symptoms) -> str:
    if seen.noise == 0:
        gap = seen.swap_gap if seen.swap_gap_at_mean is None else seen.swap_gap_at_mean
        return f"there was no noise up to the kept epoch, and another user's posteriors cost {gap:.2f} nats"
    return (
        f"{seen.active_share:.0%} of the dimensions are active, posteriors carry {seen.kl:.1f} nats per position, and "
        f"with those of another user the loss rises by {seen.swap_gap:.2f} nats"
    )
