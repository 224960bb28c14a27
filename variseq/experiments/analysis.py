"""What follows from an experiment: the split of the users is checked, and each arm is compared to the control."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from variseq.events.report import DAY
from variseq.experiments.experiment import Experiment
from variseq.experiments.intervals import ALPHA, Difference, chi_square_tail
from variseq.experiments.users import ExperimentUsers
from variseq.exposures.folder import iso_time

LEAST_P = 0.001
"""Below it, users were not assigned as the shares say, or a covariate is not one from before the experiment."""
LEAST_USERS = 100
LEAST_REWARDED = 10
"""In each arm, before an interval is given: it rests on the central limit theorem."""
MAX_LOOKS = 400


@dataclass(frozen=True, slots=True)
class ArmResult:
    """An arm: its users, those whose follow-up is over, and their lists and rewards."""

    arm: str
    share: float
    num_users: int
    num_complete: int
    num_exposures: int
    mean_reward: float
    """A user; the primary metric, as users are what is assigned."""
    reward_per_exposure: float


@dataclass(frozen=True, slots=True)
class Look:
    """The adjusted difference as it was at a time, in UTC microseconds, with its always-valid interval."""

    time: int
    difference: Difference
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class ArmComparison:
    """An arm against the control, in mean reward a user.

    Args:
        arm: The arm.
        plain: Difference of the means.
        adjusted: The same by regression on the covariates (CUPED; Deng et al., 2013).
        fixed: Interval of the adjusted difference, valid for one look that was planned before.
        always_valid: Interval of the adjusted difference, valid however often one looks.
        plain_always_valid: The same of the plain difference.
        looks: The adjusted difference at the end of each day, and now.
    """

    arm: str
    plain: Difference
    adjusted: Difference
    fixed: tuple[float, float]
    always_valid: tuple[float, float]
    plain_always_valid: tuple[float, float]
    looks: list[Look]

    @property
    def is_decided(self) -> bool:
        """Whether the always-valid interval leaves out 0."""
        return self.always_valid[0] > 0 or self.always_valid[1] < 0

    @property
    def variance_ratio(self) -> float:
        """Variance of the adjusted difference, as a share of the plain one."""
        return (self.adjusted.standard_error / self.plain.standard_error) ** 2


@dataclass(frozen=True, slots=True)
class ExperimentAnalysis:
    """All that is known of an experiment.

    Args:
        experiment: The experiment.
        metric: What is compared.
        arms: The control first.
        sample_ratio_p: Of the chi-square test of the numbers of users against the shares.
        alpha: Of each interval: 5 % divided by the number of comparisons.
        covariates: By which differences are adjusted.
        unbalanced: Covariates that differ between arms, so that nothing is adjusted by them.
        comparisons: Of each other arm with the control; None where users are too few. Empty where the split is refused.
    """

    experiment: Experiment
    metric: str
    arms: list[ArmResult]
    sample_ratio_p: float
    alpha: float
    covariates: tuple[str, ...]
    unbalanced: tuple[str, ...]
    comparisons: dict[str, ArmComparison | None]

    @property
    def is_refused(self) -> bool:
        """Whether users are split in another way than the shares say, so that nothing may be concluded."""
        return self.sample_ratio_p < LEAST_P

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        compared = {}
        for name, one in self.comparisons.items():
            if one is not None:
                found = asdict(one) | {"is_decided": one.is_decided, "variance_ratio": one.variance_ratio}
                found["looks"] = [asdict(look) | {"time": iso_time(look.time)} for look in one.looks]
                compared[name] = found
        return {
            "experiment": self.experiment.model_dump(exclude_none=True),
            "metric": self.metric,
            "arms": [asdict(arm) for arm in self.arms],
            "sample_ratio_p": self.sample_ratio_p,
            "is_refused": self.is_refused,
            "alpha": self.alpha,
            "covariates": self.covariates,
            "unbalanced": self.unbalanced,
            "comparisons": compared,
        }


def analyze(users: ExperimentUsers, experiment: Experiment) -> ExperimentAnalysis:
    """Check the split, and compare each arm to the control now and at the end of each day.

    A user counts once the follow-up is over. Rewards so far would change with every look, and an always-valid interval
    is for numbers that do not.
    """
    counts = np.bincount(users.arm, minlength=len(experiment.arms))
    expected = len(users) * np.array([arm.share for arm in experiment.arms])
    p = chi_square_tail(float(((counts - expected) ** 2 / expected).sum()), len(counts) - 1)
    now = users.complete(users.end)
    is_balanced = [
        all(_is_balanced(users, now, number, arm) for arm in range(1, len(counts)))
        for number in range(len(users.names))
    ]
    used = np.flatnonzero(is_balanced)
    alpha = ALPHA / (len(counts) - 1)
    refused = p < LEAST_P
    return ExperimentAnalysis(
        experiment,
        users.metric,
        [_arm_result(users, experiment, number, now) for number in range(len(counts))],
        p,
        alpha,
        tuple(name for name, one in zip(users.names, is_balanced, strict=True) if one),
        tuple(name for name, one in zip(users.names, is_balanced, strict=True) if not one),
        {}
        if refused
        else {
            arm.name: _comparison(users, users.covariate[:, used], experiment, number, alpha)
            for number, arm in enumerate(experiment.arms)
            if number
        },
    )


def _arm_result(
    users: ExperimentUsers, experiment: Experiment, number: int, complete: Bool[np.ndarray, " user"]
) -> ArmResult:
    arm, is_in = experiment.arms[number], users.arm == number
    counted = is_in & complete
    reward, num_exposures = float(users.reward[counted].sum()), int(users.num_exposures[counted].sum())
    return ArmResult(
        arm.name,
        arm.share,
        int(is_in.sum()),
        int(counted.sum()),
        num_exposures,
        reward / max(int(counted.sum()), 1),
        reward / max(num_exposures, 1),
    )


def _is_balanced(users: ExperimentUsers, complete: Bool[np.ndarray, " user"], covariate: int, arm: int) -> bool:
    """Whether the arm and the control have the same mean of a covariate, up to chance."""
    column = users.covariate[:, covariate]
    treated, control = (column[complete & (users.arm == one)] for one in (arm, 0))
    if min(len(treated), len(control)) < LEAST_USERS:
        return True
    error = np.sqrt(treated.var(ddof=1) / len(treated) + control.var(ddof=1) / len(control))
    difference = abs(float(treated.mean() - control.mean()))
    return difference == 0 or (error > 0 and chi_square_tail((difference / error) ** 2, 1) >= LEAST_P)


def _comparison(
    users: ExperimentUsers,
    covariate: Float[np.ndarray, "user covariate"],
    experiment: Experiment,
    arm: int,
    alpha: float,
) -> ArmComparison | None:
    """An arm against the control, by all users of both whose follow-up is over; None where they are too few."""
    share = experiment.arms[0].share + experiment.arms[arm].share
    planned = experiment.planned_users * share
    chosen = np.flatnonzero((users.arm == 0) | (users.arm == arm))
    looks = []
    for time in _times(users):
        rows = chosen[users.complete(time)[chosen]]
        found = difference(users.reward[rows], users.arm[rows] == arm, covariate[rows])
        if found is not None:
            looks.append(Look(time, found, found.always_valid(planned, alpha)))
    rows = chosen[users.complete(users.end)[chosen]]
    plain = difference(users.reward[rows], users.arm[rows] == arm, covariate[rows, :0])
    if plain is None or not looks:
        return None
    last = looks[-1]
    return ArmComparison(
        experiment.arms[arm].name,
        plain,
        last.difference,
        last.difference.fixed(alpha),
        last.interval,
        plain.always_valid(planned, alpha),
        looks,
    )


def _times(users: ExperimentUsers) -> list[int]:
    """The end of each day since the first list, and now; only the last ones of very many."""
    return [*range(users.begin + DAY, users.end, DAY), users.end][-MAX_LOOKS:]


def difference(
    reward: Float[np.ndarray, " user"],
    is_treated: Bool[np.ndarray, " user"],
    covariate: Float[np.ndarray, "user covariate"],
) -> Difference | None:
    """The difference of mean rewards, adjusted by a regression of rewards on covariates within the arms.

    What the covariates explain of a chance difference between the arms is taken away, so the variance falls to
    1 - R² of it, and the expectation is the same. That needs covariates from before the treatment.

    Args:
        reward: Of each user.
        is_treated: Whether a user is in the arm; others are in the control.
        covariate: Without columns the plain difference is given.

    Returns:
        The difference; None where users are too few for the central limit theorem.
    """
    arms = [is_treated, ~is_treated]
    if any(int(one.sum()) < LEAST_USERS or int(np.count_nonzero(reward[one])) < LEAST_REWARDED for one in arms):
        return None
    means = [reward[one].mean() for one in arms]
    of_covariates = [covariate[one].mean(axis=0) for one in arms]
    residual = reward - np.where(is_treated, *means)
    centered = covariate - np.where(is_treated[:, None], *of_covariates)
    slope = np.linalg.lstsq(centered, residual, rcond=None)[0] if centered.shape[1] else np.zeros(0)
    residual = residual - centered @ slope
    value = float(means[0] - means[1] - (of_covariates[0] - of_covariates[1]) @ slope)
    lost = 1 + covariate.shape[1]
    variance = sum(float((residual[one] ** 2).sum()) / (int(one.sum()) - lost) / int(one.sum()) for one in arms)
    return Difference(value, float(np.sqrt(variance)), len(reward))
