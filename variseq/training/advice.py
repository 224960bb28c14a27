"""The kind of a failure and the numbers of the run into what to change: settings with a value to try."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from variseq.training.kl_control import good_kl
from variseq.training.settings import TrainingConfig
from variseq.training.symptoms import Symptoms

START_OF_BETA: float = TrainingConfig().beta
DETERMINISTIC_SHARE: float = TrainingConfig().deterministic_fraction
ANNEAL_SHARE: float = TrainingConfig().kl_anneal_fraction
MEAN_SCALE = 1.0
MIN_NOISE_SHARE = 0.15
"""Share of the epochs that need the full noise for σ to be learned; 60 % by default, 20 % on a large log."""
FAST_LEARNING_RATE = 0.01
"""Above it even the smallest networks were seen to break."""


@dataclass(frozen=True)
class Advice:
    """A setting, what it was and what to try, and why (no capital, no full stop)."""

    setting: str
    now: Any
    value: Any
    reason: str

    def assignment(self) -> str:
        """As it is written after `--set`.

        >>> Advice("training.beta", 10.0, 0.0001, "it is too heavy").assignment()
        'training.beta=0.0001'
        """
        return f"{self.setting}={'null' if self.value is None else self.value}"


def advice_for(kind: str, seen: Symptoms) -> list[Advice]:
    """What to change, the likeliest first; nothing for a healthy run."""
    if kind in ("collapse", "over-regularized"):
        return _loosen(seen)
    if kind == "variance explosion":
        return _calm_variance(seen)
    if kind in ("bypass", "instability"):
        return _learn_slower(seen)
    if kind == "deterministic twin" and seen.settings["training.deterministic_fraction"] > DETERMINISTIC_SHARE:
        reason = "only if uncertainty is wanted: the noise then comes on after a third of the run"
        return [_change(seen, "training.deterministic_fraction", DETERMINISTIC_SHARE, reason)]
    return []


def _loosen(seen: Symptoms) -> list[Advice]:
    """Less weight on the KL: a target that can be met, a light start, means that cannot shrink."""
    settings, good = seen.settings, _good_target(seen)
    found = []
    if seen.target is None and settings["training.beta"] > START_OF_BETA:
        why = "a β fixed by hand is too heavy for this log; a target lets the run find its own"
        found.append(_change(seen, "training.kl_target", good, why))
    elif seen.target is not None and seen.target < good:
        why = f"{seen.target:g} nats are too few"
        if seen.target <= seen.floor:
            why = f"no KL below {seen.floor:g} can be reached, so β grew until nothing was learned"
        found.append(_change(seen, "training.kl_target", good, why))
    if settings["training.beta"] > START_OF_BETA:
        why = "the start; β moves by at most 2 % a step, and from too high it comes down too late"
        found.append(_change(seen, "training.beta", START_OF_BETA, why))
    if _has_narrow_means(seen):
        found.append(_change(seen, "model.bn_gamma", MEAN_SCALE, "batch-norm on μ keeps the means from shrinking"))
    if settings["training.deterministic_fraction"] == 0:
        why = "the decoder learns to read samples before noise and KL weigh on it"
        found.append(_change(seen, "training.deterministic_fraction", DETERMINISTIC_SHARE, why))
    return found or _learn_slower(seen)


def _calm_variance(seen: Symptoms) -> list[Advice]:
    """σ is learned only under noise, and too large a step throws its logarithm out of reach."""
    settings, found = seen.settings, []
    is_clamped = bool(seen.clamped_share)
    if is_clamped or settings["training.learning_rate"] > FAST_LEARNING_RATE:
        found.extend(_learn_slower(seen))
    if seen.noise_share < MIN_NOISE_SHARE:
        why = f"only {seen.noise_share:.0%} of the epochs had the full noise, too few to learn σ"
        if settings["training.deterministic_fraction"] > DETERMINISTIC_SHARE:
            found.append(_change(seen, "training.deterministic_fraction", DETERMINISTIC_SHARE, why))
        if settings["training.kl_anneal_fraction"] != ANNEAL_SHARE:
            found.append(_change(seen, "training.kl_anneal_fraction", ANNEAL_SHARE, "noise that comes on step by step"))
    if _has_narrow_means(seen):
        found.append(_change(seen, "model.bn_gamma", MEAN_SCALE, "means that spread as far as the prior outweigh σ"))
    if seen.target is not None and seen.target < _good_target(seen):
        found.append(_change(seen, "training.kl_target", _good_target(seen), "a higher KL is a smaller σ"))
    return found or _learn_slower(seen)


def _learn_slower(seen: Symptoms) -> list[Advice]:
    """A third of the learning rate, or less where it is far too high; and the time that this takes."""
    rate, epochs = seen.settings["training.learning_rate"], seen.settings["training.max_epochs"]
    slower = float(f"{min(rate / 3, FAST_LEARNING_RATE):.2g}")
    return [
        _change(seen, "training.learning_rate", slower, "large steps throw σ out of reach and break what was learned"),
        _change(seen, "training.max_epochs", 2 * epochs, "smaller steps need more of them"),
    ]


def _has_narrow_means(seen: Symptoms) -> bool:
    scale = seen.settings["model.bn_gamma"]
    return scale is None or scale < MEAN_SCALE


def _good_target(seen: Symptoms) -> float:
    """A target that can be met once the means are no longer narrow."""
    scale = MEAN_SCALE if _has_narrow_means(seen) else seen.settings["model.bn_gamma"]
    return math.ceil(10 * good_kl(seen.settings["model.latent_dim"], scale, seen.settings["training.free_nats"])) / 10


def _change(seen: Symptoms, setting: str, value: Any, reason: str) -> Advice:
    return Advice(setting, seen.settings[setting], value, reason)
