"""Off-policy evaluation of one or several target policies, with intervals over people and reasons to refuse."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.errors import InputError
from variseq.evaluation.significance import NUM_RESAMPLES, percentile_interval, resampled_sums
from variseq.exposures.table import Exposures
from variseq.off_policy.estimators import (
    ESTIMATORS,
    IPS,
    ON_POLICY,
    RIPS,
    WHOLE_LIST,
    WHOLE_LIST_SNIPS,
    Columns,
    Estimator,
    sums_of,
)
from variseq.off_policy.logged import LoggedLists, logged_lists
from variseq.off_policy.policies import TargetPolicy, TargetProbabilities
from variseq.off_policy.weights import Kind, WeightDiagnostics, diagnose, importance_weights

Interval = tuple[float, float]
CHECKED = (RIPS, WHOLE_LIST)
"""They differ from IPS where rewards of items do not add up."""
Resampled = dict[str, Float[np.ndarray, " resample"]]


@dataclass(frozen=True)
class Estimate:
    """What one estimator finds. A number that is refused, or that cannot be known, is None.

    Args:
        estimator: Its name.
        value: Expected sum of rewards of a list.
        interval: 95 % bootstrap interval over people; None for the direct method, whose bias no resample shows.
        difference: Value minus the mean of the logging policy.
        difference_interval: Its interval, from the same resamples.
        refusal: Why there is no number, or why it is not to be trusted.
    """

    estimator: str
    value: float | None
    interval: Interval | None = None
    difference: float | None = None
    difference_interval: Interval | None = None
    refusal: str | None = None

    def num_exposures_for(self, precision: float, num_exposures: int) -> int | None:
        """How many exposures an interval of ± precision times the value needs, if people and policies stay as they are.

        The width of an interval falls with the root of their number.
        """
        if self.interval is None or not self.value:
            return None
        reach = (self.interval[1] - self.interval[0]) / 2
        return int(np.ceil(num_exposures * (reach / (precision * abs(self.value))) ** 2))


@dataclass(frozen=True)
class PolicyEvaluation:
    """One target policy.

    Args:
        policy: Its name.
        estimates: One for each estimator.
        diagnostics: Of each kind of weights.
        checks: Differences that are 0 where rewards of items add up: RIPS and whole-list IPS minus IPS.
        left_out: Exposures for which its probabilities cannot be known, by reason.
        weights: The item weights of all rows that were drawn.
    """

    policy: str
    estimates: list[Estimate]
    diagnostics: list[WeightDiagnostics]
    checks: list[Estimate]
    left_out: dict[str, int]
    weights: Float[np.ndarray, " row"]

    def estimate(self, name: str) -> Estimate:
        """The estimate of an estimator by its name."""
        return next(one for one in self.estimates if one.estimator == name)

    @property
    def is_refused(self) -> bool:
        """Whether no estimator has a number with an interval to trust."""
        return all(one.refusal is not None for one in self.diagnostics)


@dataclass(frozen=True)
class PolicyDifference:
    """Two target policies on the same exposures: the first minus the second, by each estimator."""

    first: str
    second: str
    estimates: list[Estimate]


@dataclass(frozen=True)
class OffPolicyEvaluation:
    """All that was found.

    Args:
        num_exposures: How many exposures were evaluated.
        num_rows: How many rows they have.
        num_users: How many people they were given to.
        num_rewarded: How many rewards are not 0.
        num_without_propensity: Exposures that were left out for that.
        on_policy: The mean of the logging policy itself.
        policies: One for each target policy.
        differences: Of each two of them.
    """

    num_exposures: int
    num_rows: int
    num_users: int
    num_rewarded: int
    num_without_propensity: int
    on_policy: Estimate
    policies: list[PolicyEvaluation]
    differences: list[PolicyDifference]

    def to_json(self) -> dict[str, Any]:
        """All of it but for the weights."""
        found = dict(vars(self))
        found["on_policy"] = vars(self.on_policy)
        found["policies"] = [
            {
                "policy": one.policy,
                "estimates": [vars(estimate) for estimate in one.estimates],
                "checks": [vars(check) for check in one.checks],
                "diagnostics": {kind.kind: kind.to_json() for kind in one.diagnostics},
                "left_out": one.left_out,
            }
            for one in self.policies
        ]
        found["differences"] = [
            {"first": one.first, "second": one.second, "estimates": [vars(estimate) for estimate in one.estimates]}
            for one in self.differences
        ]
        return found


def evaluate_policies(
    exposures: Exposures,
    policies: Sequence[TargetPolicy],
    show_refused: bool = False,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> OffPolicyEvaluation:
    """Estimate what each policy would have earned on these exposures.

    Rewards of whole lists are estimated by the weights of whole lists alone.

    Args:
        exposures: Lists with propensities and rewards.
        policies: Target policies, each with a name of its own. All are evaluated on the exposures that all know.
        show_refused: Give numbers even where diagnostics refuse them; the refusal stays.
        num_resamples: Bootstrap resamples of people.
        seed: Of the resamples.

    Returns:
        Estimates, diagnostics and differences.

    Raises:
        InputError: Propensities are missing or impossible, two policies have one name, or a policy shares nothing with
            the log.
    """
    names = [one.name for one in policies]
    if not names or len(set(names)) < len(names):
        raise InputError(f"The policies are {names}. Give at least one, and each once.")
    lists = logged_lists(exposures)
    estimators = _estimators(lists)
    targets = [one.probabilities(lists) for one in policies]
    known = _known_to_all(lists, targets)
    kept = lists.only(known)
    targets = [_some(one, known, known[lists.exposures.row_exposure]) for one in targets]
    weights = [importance_weights(kept, target) for target in targets]
    for policy, of_policy in zip(policies, weights, strict=True):
        is_free = ~kept.exposures.is_pinned
        if is_free.any() and not of_policy[0].row[is_free].any():
            raise InputError(
                f"The policy {policy.name} shows none of the items that were logged, in any list. Check that it is of "
                "the same catalog and of the same people."
            )
    sums = [sums_of(kept, *one) for one in zip(targets, weights, strict=True)]
    resampled = _resampled(sums, num_resamples, seed)
    found = []
    for policy, target, of_policy, columns, again in zip(policies, targets, weights, sums, resampled, strict=True):
        used = {one.kind for one in estimators}
        diagnostics = [diagnose(kept, one) for one in of_policy if one.kind in used]
        totals = {name: float(column.sum()) for name, column in columns.items()}
        ratios = _Ratios(totals, again, {one.kind: one.refusal for one in diagnostics}, show_refused)
        free = of_policy[0].row[~kept.exposures.is_pinned]
        one = PolicyEvaluation(
            policy.name,
            [ratios.estimate(one) for one in estimators if one.numerator in columns],
            diagnostics,
            [ratios.minus(one, ratios, IPS) for one in CHECKED if one.numerator in columns and IPS in estimators],
            dict(target.left_out),
            free,
        )
        found.append((one, ratios))
    log = kept.exposures
    return OffPolicyEvaluation(
        num_exposures=log.num_exposures,
        num_rows=len(log.item),
        num_users=kept.num_users,
        num_rewarded=int((log.reward != 0).sum()),
        num_without_propensity=lists.num_without_propensity,
        on_policy=found[0][1].estimate(ON_POLICY),
        policies=[one for one, _ in found],
        differences=[_difference(estimators, *pair) for pair in itertools.combinations(found, 2)],
    )


def _estimators(lists: LoggedLists) -> Sequence[Estimator]:
    """What is unbiased for the rewards of these lists. Raises InputError where the probabilities of it are missing."""
    log = lists.exposures
    # In lists of one item all weights are the same.
    if not log.rewards_lists or lists.lengths.max() <= 1:
        return ESTIMATORS
    if np.isnan(log.propensity_at_rank[~log.is_pinned]).any():
        raise InputError(
            "Rewards of whole lists need the probability of each item at its rank, and the log has none. Serve lists "
            "with strategy 'softmax', or reward single items."
        )
    return (WHOLE_LIST_SNIPS, WHOLE_LIST)


def _known_to_all(lists: LoggedLists, targets: Sequence[TargetProbabilities]) -> Bool[np.ndarray, " exposure"]:
    """The exposures whose probabilities all targets know. Raises InputError where there is none."""
    known = np.ones(lists.exposures.num_exposures, dtype=bool)
    for target in targets:
        known &= lists.per_exposure((np.isnan(target.in_list) & ~lists.exposures.is_pinned).astype(float)) == 0
    if not known.any():
        reasons = [f"{num:,} {reason}" for one in targets for reason, num in one.left_out.items()]
        raise InputError(
            f"No list is left to evaluate: {'; '.join(reasons) or 'the policies know different ones'}. Check the "
            "policy and the log."
        )
    return known


@dataclass(frozen=True, eq=False)
class _Ratios:
    """Sums of one policy over all people, and over resamples of them, of which estimators are ratios."""

    total: dict[str, float]
    resampled: Resampled
    refusals: dict[Kind, str | None]
    show_refused: bool

    def estimate(self, estimator: Estimator) -> Estimate:
        """The value, and its difference to the logging policy."""
        minus = self.minus(estimator, self, ON_POLICY)
        if minus.value is None:
            return minus
        value, samples = self._values(estimator)
        has_interval = estimator.kind is not None or estimator == ON_POLICY
        interval = _interval(samples) if has_interval else None
        return replace(
            minus, value=value, interval=interval, difference=minus.value, difference_interval=minus.interval
        )

    def minus(self, estimator: Estimator, other: _Ratios, subtracted: Estimator) -> Estimate:
        """The difference of two estimators, named by the first, from the same resamples."""
        refusal = self._refusal(estimator) or other._refusal(subtracted)
        if refusal is not None and not self.show_refused:
            return Estimate(estimator.name, None, refusal=refusal)
        value, samples = self._values(estimator)
        other_value, other_samples = other._values(subtracted)
        has_interval = estimator.kind is not None
        interval = _interval(samples - other_samples) if has_interval else None
        return Estimate(estimator.name, value - other_value, interval, refusal=refusal)

    def _refusal(self, estimator: Estimator) -> str | None:
        return None if estimator.kind is None else self.refusals[estimator.kind]

    def _values(self, estimator: Estimator) -> tuple[float, Float[np.ndarray, " resample"]]:
        below = self.resampled[estimator.denominator]
        samples = np.divide(
            self.resampled[estimator.numerator], below, out=np.full(len(below), np.nan), where=below > 0
        )
        return self.total[estimator.numerator] / self.total[estimator.denominator], samples


def _difference(
    estimators: Sequence[Estimator], minuend: tuple[PolicyEvaluation, _Ratios], other: tuple[PolicyEvaluation, _Ratios]
) -> PolicyDifference:
    (first, of_first), (second, of_second) = minuend, other
    shared = [one for one in estimators if one.numerator in of_first.total and one.numerator in of_second.total]
    return PolicyDifference(first.policy, second.policy, [of_first.minus(one, of_second, one) for one in shared])


def _interval(samples: Float[np.ndarray, " resample"]) -> Interval | None:
    """The central 95 %; None where some resamples have no value."""
    return None if np.isnan(samples).any() else percentile_interval(samples)


def _resampled(sums: Sequence[Columns], num_resamples: int, seed: int) -> list[Resampled]:
    """Sums over people drawn with replacement, the same people for all policies."""
    columns = np.stack([column for one in sums for column in one.values()], axis=1)
    found = iter(resampled_sums(columns, num_resamples, seed).T)
    return [{name: next(found) for name in one} for one in sums]


def _some(
    target: TargetProbabilities, exposures: Bool[np.ndarray, " exposure"], rows: Bool[np.ndarray, " row"]
) -> TargetProbabilities:
    """The probabilities at some of the exposures."""
    if exposures.all():
        return target
    of_all, next_of_all = target.expected, target.expected_next

    def expected(
        predicted: Float[np.ndarray, "fold item"], fold: Int[np.ndarray, " kept"]
    ) -> Float[np.ndarray, " kept"]:
        assert of_all is not None
        every = np.zeros(len(exposures), dtype=fold.dtype)
        every[exposures] = fold
        return of_all(predicted, every)[exposures]

    def expected_next(predicted: Float[np.ndarray, "fold item"], index: int) -> Float[np.ndarray, "kept fold"]:
        assert next_of_all is not None
        return next_of_all(predicted, index)[exposures]

    return replace(
        target,
        at_rank=target.at_rank[rows],
        in_list=target.in_list[rows],
        expected=None if of_all is None else expected,
        expected_next=None if next_of_all is None else expected_next,
    )
