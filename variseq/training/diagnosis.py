"""Diagnoses whether a run uses its latent, from the records of its epochs: what is wrong, and what to change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from variseq.evaluation.groups import length_names
from variseq.model.network import NetworkConfig
from variseq.training.config import TrainingConfig
from variseq.training.posterior_health import MIN_ACTIVE_SHARE, MIN_SWAP_GAP_NATS, PosteriorHealth
from variseq.training.schedule import good_kl, min_kl

Epochs = Sequence[dict[str, Any]]
Kind = Literal[
    "healthy", "deterministic", "collapse", "decoder ignores z", "over-regularized", "noise-dominated", "instability"
]

LOW_KL_NATS = 1.0
"""A posterior of one nat distinguishes three kinds of histories (e¹ = 2.7): too few for any catalog."""
RUNAWAY_BETA = 1.0
"""At β = 1 a nat of KL has to save a nat of loss; runs that learn settle between 0.0005 and 0.1."""
HEAVY_BETA = 0.1
"""Five times what healthy runs settle at (0.0007 to 0.017 on shops, Beauty and MovieLens); below it, β is no cause."""
FAR_BELOW_TARGET = 0.5
"""The controller holds a KL within a few per cent; half of it is a KL that it could not raise."""
MAX_NOISE_FRACTION = 1 / 3
"""Noise takes 1 % to 11 % of the gain from the posterior in healthy runs."""
MAX_CLAMPED_SHARE = 0.05
"""No log-variance of a healthy run is at its upper bound, where it has no gradient."""
MAX_RISE_NATS = 0.25
"""Training losses of neighboring epochs differ by some hundredths of a nat."""
MIN_LATE_NDCG_SHARE = 0.5
"""A smaller share of the kept epoch's NDCG is no fluctuation."""
MIN_NOISE_SHARE = 0.15
"""Share of the epochs that need full noise for σ to be learned; 60 % by default, 20 % on a large log."""
FAST_LEARNING_RATE = 0.01
"""Above it even the smallest networks became unstable."""
DEFAULT = TrainingConfig()
MEAN_SCALE: float = NetworkConfig.model_fields["mean_scale"].default

VERDICTS: dict[Kind, str] = {
    "healthy": "The latent is used, and nothing is wrong with it.",
    "deterministic": "The latent is used, but without noise: the weights were trained at the means, so σ has no use.",
    "collapse": "The latent is NOT used: the posterior has collapsed to the prior.",
    "decoder ignores z": "The latent is NOT used: posteriors differ between users, but the decoder ignores them.",
    "over-regularized": "The latent is {used}; the weight of the KL is too large.",
    "noise-dominated": "The latent is {used}; σ is so large that samples carry much less than the mean.",
    "instability": "The latent is {used} and the kept weights are sound, but training became unstable after them.",
}


def chosen_epoch(epochs: Epochs) -> dict[str, Any]:
    """The record of the epoch that was chosen on validation."""
    return next((record for record in reversed(epochs) if record["is_best"]), epochs[-1])


def is_deterministic(epochs: Epochs) -> bool:
    """Whether the chosen epoch had no noise: σ was not trained then, and the network answers by the mean."""
    return bool(epochs) and not chosen_epoch(epochs)["noise"]


def flat_settings(model: Mapping[str, Any], training: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under the names that `--set` takes.

    >>> flat_settings({"hidden_size": 64}, {"beta": 0.1})
    {'model.hidden_size': 64, 'training.beta': 0.1}
    """
    named = {f"model.{name}": value for name, value in model.items()}
    return named | {f"training.{name}": value for name, value in training.items()}


class RunMetrics:
    """The measures of the kept epoch (counted from 1), and what happened before and after it.

    `target` is the KL that β is steered to, `min_kl` the least that any β gives. `noise_cost` is by how much the loss
    of a sample exceeds that of the mean, `noise_fraction` the same as a fraction of the gain from the posterior, which
    is the swap gap at the mean. `noise_share` is the share of the epochs with full noise. `rise` is the last training
    loss minus the lowest under the same noise; `late_ndcg` is the last NDCG@10 over the kept one. A run `was_improving`
    whose kept epoch is its last.

    Raises:
        KeyError, TypeError: The records are incomplete.
    """

    def __init__(self, epochs: Epochs, settings: Mapping[str, Any]) -> None:
        chosen, last = chosen_epoch(epochs), epochs[-1]
        strongest = max(epochs, key=lambda record: record["beta"])
        same_noise = [record["nll"] for record in epochs if record["noise"] == last["noise"]]
        self.settings, self.health = settings, PosteriorHealth(**chosen["health"])
        self.epoch: int = chosen["epoch"] + 1
        self.was_improving = chosen is last
        self.noise: float = chosen["noise"]
        self.beta: float = chosen["beta"]
        self.highest_beta: float = strongest["beta"]
        self.beta_epoch: int = strongest["epoch"] + 1
        self.target: float | None = settings["training.kl_target"] if settings["training.beta"] else None
        self.min_kl = min_kl(settings["model.latent_dim"], settings["model.mean_scale"], settings["training.free_nats"])
        self.noise_cost, gain = self.health.loss - self.health.loss_at_mean, self.health.swap_gap_at_mean
        self.noise_fraction = self.noise_cost / gain if gain else None
        self.noise_share = sum(record["noise"] >= 1 for record in epochs) / len(epochs)
        # The first epoch of a level of noise began under less of it.
        self.rise: float = last["nll"] - min(same_noise[1:] or same_noise)
        self.late_ndcg: float = last["validation_ndcg"] / max(chosen["validation_ndcg"], 1e-9)
        self.is_far_below_target = self.target is not None and self.health.kl < FAR_BELOW_TARGET * self.target
        self.is_noise_dominated = (self.noise_fraction or 0.0) > MAX_NOISE_FRACTION
        self.is_unstable = self.rise > MAX_RISE_NATS or self.late_ndcg < MIN_LATE_NDCG_SHARE
        is_partly = 0 < settings["training.deterministic_fraction"] < 1
        self.chooses_noise = is_partly and settings.get("training.noise_learning_rate") is not None
        gamma = settings["model.mean_scale"]
        self.has_narrow_means = gamma is None or gamma < MEAN_SCALE
        # A target that can be met once the means are not narrow.
        good = good_kl(settings["model.latent_dim"], max(gamma or 0.0, MEAN_SCALE), settings["training.free_nats"])
        self.good_target = math.ceil(10 * good) / 10


@dataclass(frozen=True)
class LatentTest:
    """A measure of the kept epoch, the range that is healthy, and whether it is in it (None: not applicable)."""

    name: str
    value: float | None
    unit: str
    healthy: str
    is_healthy: bool | None


@dataclass(frozen=True)
class PositionGroup:
    """KL, swap gap (nats) and σ of posteriors after a number of events; a swap gap is None without targets there."""

    events: str
    kl: float
    swap_gap: float | None
    sigma: float | None


@dataclass(frozen=True)
class SettingChange:
    """A setting, its current and its suggested value, and the reason."""

    setting: str
    current: Any
    suggested: Any
    reason: str

    def assignment(self) -> str:
        """The argument of `--set`.

        >>> SettingChange("training.beta", 10.0, 0.0001, "too large").assignment()
        'training.beta=0.0001'
        """
        return f"{self.setting}={'null' if self.suggested is None else self.suggested}"


@dataclass(frozen=True)
class Diagnosis:
    """Whether the decoder uses the posteriors of the kept epoch (counted from 1), what is wrong, and what to change."""

    kind: Kind
    is_used: bool
    epoch: int
    verdict: str
    evidence: tuple[str, ...]
    changes: tuple[SettingChange, ...]
    tests: tuple[LatentTest, ...]
    groups: tuple[PositionGroup, ...]

    def paragraph(self) -> str:
        """Verdict, evidence and changes in one paragraph, for a warning."""
        changes = " ".join(f"Set {one.assignment()}: {one.reason}." for one in self.changes)
        return f"{self.verdict} Seen in epoch {self.epoch}: {'; '.join(self.evidence)}. {changes}".strip()


def diagnose(epochs: Epochs, settings: Mapping[str, Any]) -> Diagnosis:
    """Diagnose a run from its epoch records (at least one) and its settings (see `flat_settings`).

    Raises:
        KeyError, TypeError: The records or settings are incomplete.
    """
    run = RunMetrics(epochs, settings)
    kind, health = _kind(run), run.health
    is_used = kind not in ("collapse", "decoder ignores z") and (run.noise == 0 or not health.alarms)
    rows = zip(
        length_names(), health.kl_per_position, health.swap_gap_per_position, health.sigma_per_position, strict=True
    )
    return Diagnosis(
        kind=kind,
        is_used=is_used,
        epoch=run.epoch,
        verdict=VERDICTS[kind].format(used="used" if is_used else "NOT used"),
        evidence=tuple(_evidence(run, kind)),
        changes=tuple(_suggested_changes(run, kind)),
        tests=tuple(_latent_tests(run)),
        groups=tuple(PositionGroup(name, kl, *rest) for name, kl, *rest in rows if kl is not None),
    )


def _kind(run: RunMetrics) -> Kind:
    """The first that applies, from the clearest sign to the subtlest."""
    health = run.health
    is_inactive = health.active_share < MIN_ACTIVE_SHARE
    has_little_kl = health.kl < LOW_KL_NATS
    if run.noise > 0 and health.clamped_share > MAX_CLAMPED_SHARE:
        return "noise-dominated"
    if is_inactive or health.swap_gap_at_mean < MIN_SWAP_GAP_NATS:
        is_empty = is_inactive or has_little_kl or health.mutual_information < LOW_KL_NATS or run.beta >= HEAVY_BETA
        return "collapse" if is_empty else "decoder ignores z"
    if run.noise == 0:
        return "deterministic"
    is_low = has_little_kl or run.is_far_below_target or run.is_noise_dominated
    if run.highest_beta >= RUNAWAY_BETA or (run.beta >= HEAVY_BETA and is_low):
        return "over-regularized"
    if run.is_noise_dominated:
        return "noise-dominated"
    if health.alarms:
        return "collapse"
    return "instability" if run.is_unstable else "healthy"


def _evidence(run: RunMetrics, kind: Kind) -> list[str]:
    """The measures that led to the kind, then those that go with it."""
    health = run.health
    found = list(health.alarms)
    if health.clamped_share > MAX_CLAMPED_SHARE and run.noise > 0:
        found.append(f"{health.clamped_share:.0%} of the log-variances are at their upper bound and have no gradient")
    if kind == "decoder ignores z":
        found.append(
            f"posteriors carry {health.kl:.1f} nats per position and differ between users "
            f"({health.mutual_information:.1f} nats of mutual information), yet the loss does not depend on them: "
            "either the decoder has not learned to use them, or the next item does not depend on the history"
        )
    if run.highest_beta >= RUNAWAY_BETA:
        found.append(
            f"β reached {run.highest_beta:.2g} in epoch {run.beta_epoch}; at {RUNAWAY_BETA:g} or more the KL "
            "dominates the loss"
        )
    elif kind in ("collapse", "over-regularized") and run.beta >= HEAVY_BETA:
        found.append(f"β is {run.beta:.2g}, where runs that learn have less than {HEAVY_BETA:g}")
    if kind not in ("healthy", "deterministic", "decoder ignores z"):
        target = "" if run.target is None else f"; its target is {run.target:g}"
        bound = f", but it cannot fall below {run.min_kl:g}" if run.target and run.target <= run.min_kl else ""
        found.append(f"the KL is {health.kl:.2g} nats per position{target}{bound}")
    if kind in ("over-regularized", "noise-dominated") and run.is_noise_dominated:
        found.append(
            f"the loss of a sample is {run.noise_cost:.2f} nats above that of the mean, {run.noise_fraction:.0%} of "
            f"the gain from the posterior ({health.swap_gap_at_mean:.2f} nats)"
        )
    if kind != "deterministic" and run.is_unstable:
        found.append(
            f"at the end the training loss was {run.rise:.2f} nats above its lowest, and validation NDCG@10 was "
            f"{run.late_ndcg:.0%} of that of the kept epoch"
        )
    if found:
        return found
    if run.noise == 0:
        gap = health.swap_gap_at_mean
        return [f"there was no noise up to the kept epoch, and the posteriors of another user cost {gap:.2f} nats"]
    return [
        f"{health.active_share:.0%} of the dimensions are active, posteriors carry {health.kl:.1f} nats per position, "
        f"and with those of another user the loss rises by {health.swap_gap:.2f} nats"
    ]


def _latent_tests(run: RunMetrics) -> list[LatentTest]:
    """All tests; those of the noise do not apply to a run without it."""
    health = run.health
    fraction, clamped = (run.noise_fraction, health.clamped_share) if run.noise > 0 else (None, None)
    below_one = f"below {HEAVY_BETA:g}, never {RUNAWAY_BETA:g}"
    return [
        _bounded("active dimensions", health.active_share, "share", MIN_ACTIVE_SHARE),
        _kl_test(run),
        _bounded("mutual information", health.mutual_information, "nats", LOW_KL_NATS),
        _bounded("swap gap: loss with another user's posteriors", health.swap_gap, "nats more", MIN_SWAP_GAP_NATS),
        _bounded("swap gap at the means", health.swap_gap_at_mean, "nats more", MIN_SWAP_GAP_NATS),
        _bounded("prior gap: loss with z from the prior", health.prior_gap, "nats more", MIN_SWAP_GAP_NATS),
        _bounded("noise, of the gain from the posterior", fraction, "share", MAX_NOISE_FRACTION, is_least=False),
        LatentTest("σ, mean over dimensions", health.mean_sigma, "", f"μ varies by {health.mean_spread:.2f}", None),
        _bounded("log-variances at their upper bound", clamped, "share", MAX_CLAMPED_SHARE, is_least=False),
        LatentTest("highest β of the run", run.highest_beta, "", below_one, run.highest_beta < RUNAWAY_BETA),
        _bounded("rise of the training loss at the end", run.rise, "nats", MAX_RISE_NATS, is_least=False),
    ]


def _kl_test(run: RunMetrics) -> LatentTest:
    kl, target, least = run.health.kl, run.target, run.min_kl
    if target is None or run.noise == 0:
        return _bounded("KL", kl, "nats per position", LOW_KL_NATS)
    healthy = f"at least {LOW_KL_NATS:g}; the target is {target:g}" if target > least else f"above {least:g}, the least"
    # A KL far below the target is a fault where a large β holds it there; a short run has not reached the target yet.
    is_held_down = run.is_far_below_target and run.beta >= HEAVY_BETA
    is_healthy = kl >= LOW_KL_NATS and target > least and not is_held_down
    return LatentTest("KL", kl, "nats per position", healthy, is_healthy)


def _bounded(name: str, value: float | None, unit: str, bound: float, is_least: bool = True) -> LatentTest:
    healthy = f"at {'least' if is_least else 'most'} {f'{bound:.0%}' if unit == 'share' else f'{bound:g}'}"
    is_healthy = None if value is None else value >= bound if is_least else value <= bound
    return LatentTest(name, value, unit, healthy, is_healthy)


def _suggested_changes(run: RunMetrics, kind: Kind) -> list[SettingChange]:
    """What to change, the likeliest first; nothing for a healthy run."""
    changes: dict[str, tuple[Any, str]] = {}
    if kind in ("collapse", "over-regularized"):
        changes = _less_kl_weight(run)
    elif kind == "noise-dominated":
        changes = _smaller_variance(run)
    elif kind == "deterministic" and run.chooses_noise:
        why = (
            "only where uncertainty is needed: an epoch with noise is chosen then, though validation was better without"
        )
        changes = {"training.noise_learning_rate": (None, why)}
    elif kind == "deterministic" and run.settings["training.deterministic_fraction"] > DEFAULT.deterministic_fraction:
        why = "only where uncertainty is needed: the noise then begins after a third of the run"
        changes = {"training.deterministic_fraction": (DEFAULT.deterministic_fraction, why)}
    elif kind == "decoder ignores z" and run.was_improving:
        why = "validation was still improving, and a decoder needs epochs to learn to use z"
        changes = {"training.max_epochs": (max(20, 2 * run.settings["training.max_epochs"]), why)}
    if not changes and kind not in ("healthy", "deterministic"):
        changes = _smaller_steps(run)
    return [SettingChange(name, run.settings[name], value, why) for name, (value, why) in changes.items()]


def _less_kl_weight(run: RunMetrics) -> dict[str, tuple[Any, str]]:
    """A target that can be met, a small β at the start, and means that cannot shrink."""
    settings, changes = run.settings, dict[str, tuple[Any, str]]()
    if run.target is None and settings["training.beta"] > DEFAULT.beta:
        why = "a fixed β is too large for this log; with a target the run adapts it"
        changes["training.kl_target"] = (run.good_target, why)
    elif run.target is not None and run.target < run.good_target:
        why = f"{run.target:g} nats are too few"
        if run.target <= run.min_kl:
            why = f"no KL below {run.min_kl:g} can be reached, so β grew until nothing was learned"
        changes["training.kl_target"] = (run.good_target, why)
    if settings["training.beta"] > DEFAULT.beta:
        changes["training.beta"] = (DEFAULT.beta, "β moves by at most 2 % a step, so a large start falls too late")
    if run.has_narrow_means:
        changes["model.mean_scale"] = (MEAN_SCALE, "means of a fixed scale cannot shrink")
    if settings["training.deterministic_fraction"] == 0:
        why = "the decoder learns to use z before noise and KL begin"
        changes["training.deterministic_fraction"] = (DEFAULT.deterministic_fraction, why)
    return changes


def _smaller_variance(run: RunMetrics) -> dict[str, tuple[Any, str]]:
    """σ is learned only under noise; large steps push its logarithm to the bound."""
    settings, changes = run.settings, dict[str, tuple[Any, str]]()
    if run.health.clamped_share or settings["training.learning_rate"] > FAST_LEARNING_RATE:
        changes |= _smaller_steps(run)
    if run.noise_share < MIN_NOISE_SHARE:
        why = f"only {run.noise_share:.0%} of the epochs had full noise, too few to learn σ"
        if settings["training.deterministic_fraction"] > DEFAULT.deterministic_fraction:
            changes["training.deterministic_fraction"] = (DEFAULT.deterministic_fraction, why)
        if settings["training.kl_anneal_fraction"] != DEFAULT.kl_anneal_fraction:
            changes["training.kl_anneal_fraction"] = (DEFAULT.kl_anneal_fraction, "the noise then rises in steps")
    if run.has_narrow_means:
        changes["model.mean_scale"] = (MEAN_SCALE, "means as large as the prior are larger than σ")
    if run.target is not None and run.target < run.good_target:
        changes["training.kl_target"] = (run.good_target, "a higher KL is a smaller σ")
    return changes


def _smaller_steps(run: RunMetrics) -> dict[str, tuple[Any, str]]:
    rate = min(run.settings["training.learning_rate"] / 3, FAST_LEARNING_RATE)
    return {
        "training.learning_rate": (float(f"{rate:.2g}"), "large steps make σ and the weights unstable"),
        "training.max_epochs": (2 * run.settings["training.max_epochs"], "smaller steps need more of them"),
    }
