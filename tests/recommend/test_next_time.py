"""The fit of the time to the next event reaches simulated truths and is fair to its baselines."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
import torch

from variseq.errors import InputError
from variseq.estimator import VariationalAttention
from variseq.evaluation.next_time import Gaps, forecast_gaps, gap_nll, gaps_of, score_gaps
from variseq.evaluation.splits import by_time, leave_one_out
from variseq.log import LogPart
from variseq.ranking.next_time import PREFIX, GapMixture
from variseq.recommend.next_time import fit_next_time
from variseq.sequences.histories import Histories

DAY_SECONDS = 86_400.0
KINDS = ((np.log(60), 0.5), (np.log(7_200), 1.0), (np.log(300_000), 0.7))
"""Mean and standard deviation of the log gap of each kind of person."""


def with_gaps(gaps: list[np.ndarray], begin: np.ndarray) -> Histories:
    """Histories of random items with these gaps in seconds."""
    generator = np.random.default_rng(1)
    plain = Histories.of_items([generator.integers(5, size=len(one) + 1).tolist() for one in gaps])
    seconds = [start + np.concatenate([[0], np.cumsum(one)]) for start, one in zip(begin, gaps, strict=True)]
    return replace(plain, timestamp=np.concatenate(seconds).astype(np.int64) * 1_000_000)


def log_normal(mean: float, deviation: float) -> object:
    def log_survival(seconds: np.ndarray) -> np.ndarray:
        standard = (np.log(np.maximum(seconds, 1e-9)) - mean) / deviation
        return torch.special.log_ndtr(-torch.from_numpy(standard)).numpy()

    return log_survival


def test_forecast_reaches_the_truth_within_five_per_cent() -> None:
    generator = np.random.default_rng(0)
    kind = generator.integers(len(KINDS), size=400)
    gaps = [np.floor(np.exp(generator.normal(*KINDS[one], size=20))) for one in kind]
    train, valid, test = leave_one_out(with_gaps(gaps, generator.integers(0, 10**7, size=400)))
    fit = fit_next_time(train, valid, is_refitted=True, seed=0)
    assert fit is not None
    found = forecast_gaps(fit, train, test)
    asked = gaps_of(test, 1.0)
    truth = np.zeros(len(asked))
    for number, (mean, deviation) in enumerate(KINDS):
        is_kind = kind == number
        truth[is_kind] = gap_nll(log_normal(mean, deviation), asked.rows(is_kind))
    numbers = found.summary()
    assert numbers["gap_nll"] == pytest.approx(truth.mean(), rel=0.05)
    assert numbers["gap_interval_coverage_90"] == pytest.approx(0.9, abs=0.04)
    assert all(one["gap_nll"] > numbers["gap_nll"] for one in numbers["gap_baselines"].values())


def test_those_who_leave_are_expected_to_leave_where_the_split_is_by_time() -> None:
    generator = np.random.default_rng(0)
    leaves_after = generator.geometric(0.15, size=800)
    gaps = [np.floor(np.exp(generator.normal(np.log(DAY_SECONDS), 0.5, size=one))) for one in leaves_after]
    log = with_gaps(gaps, generator.uniform(0, 100 * DAY_SECONDS, size=800))
    within = np.flatnonzero(log.timestamp < 100 * DAY_SECONDS * 1e6)
    ends = np.searchsorted(within, log.offsets)
    train, valid, test = by_time(log.select(log.offsets[:-1], log.offsets[:-1] + np.diff(ends)), "15d", "15d")
    fit = fit_next_time(train, valid, is_refitted=False, seed=0)
    assert fit is not None
    gaps_at_cut = gaps_of(test, fit.unit)
    gaps_at_cut = gaps_at_cut.rows(gaps_at_cut.elapsed > 0)
    survival = fit.after_each(test.histories, gaps_at_cut.event).log_survival
    returns = 1 - np.exp(survival(gaps_at_cut.limit) - survival(gaps_at_cut.elapsed))
    assert 0.02 < 1 - gaps_at_cut.is_open.mean() < 0.5
    assert returns.mean() == pytest.approx(1 - gaps_at_cut.is_open.mean(), abs=0.05)
    assert score_gaps(survival, gaps_at_cut).covered.mean() == pytest.approx(0.9, abs=0.05)
    found = forecast_gaps(fit, train, test)
    assert found is not None
    assert found.ended.sum() == pytest.approx(1 - found.is_open.mean())
    np.testing.assert_allclose(found.expected["variseq"], found.ended, atol=0.05)


def test_gaps_of_a_time_split_begin_and_end_with_the_part() -> None:
    histories = replace(
        Histories.of_items([[0, 0, 0], [0, 0], [0]]),
        timestamp=np.array([0, 50, 75, 10, 98, 60], dtype=np.int64) * 1_000_000,
    )
    train, _, test = by_time(histories, test=90_000_000, valid=70_000_000)
    closed_and_open = gaps_of(train, 1.0)
    assert closed_and_open.lower.tolist() == [50, 20, 60, 10]
    assert closed_and_open.is_open.tolist() == [False, True, True, True]
    found = gaps_of(test, 1.0)
    assert found.lower.tolist() == [88, 23, 0, 38]
    assert found.elapsed.tolist() == [80, 15, 0, 30]
    assert found.is_open.tolist() == [False, True, True, True]


def test_true_distribution_is_calibrated_at_every_level_also_where_most_gaps_are_zero() -> None:
    mixture = GapMixture(np.zeros((20_000, 1)), np.zeros((20_000, 1)), np.zeros((20_000, 1)))
    drawn = np.random.default_rng(0).uniform(size=20_000)
    lower = np.floor(drawn / (1 - drawn))
    nothing, everything = np.zeros(20_000), np.full(20_000, np.inf)
    gaps = Gaps(np.arange(20_000), lower, lower + 1, nothing, everything)
    assert (lower == 0).mean() > 0.45
    scores = score_gaps(mixture.log_survival, gaps)
    assert scores.covered.mean() == pytest.approx(0.9, abs=0.01)
    for level in (0.0, 0.1, 0.5, 0.95, 1.0):
        assert scores.reached(level).mean() == pytest.approx(level, abs=0.01)
    seen_until = np.where(lower < 3, gaps.upper, np.inf)
    cut = replace(gaps, lower=np.minimum(lower, 3.0), upper=seen_until)
    assert score_gaps(mixture.log_survival, cut).covered.mean() == pytest.approx(0.9, abs=0.01)


def test_log_without_times_has_no_forecast_and_says_so(
    shop_parts: tuple[LogPart, LogPart, LogPart], fitted: VariationalAttention
) -> None:
    part = shop_parts[0].part
    plain = replace(part.histories, timestamp=np.arange(part.histories.num_events) * 1_000_000)
    train, valid, _ = leave_one_out(plain, part.num_items)
    before = torch.get_rng_state()
    assert fit_next_time(train, valid, is_refitted=True, seed=0) is None
    assert fit_next_time(*(one.part for one in shop_parts[:2]), is_refitted=True, seed=0) is not None
    assert torch.equal(before, torch.get_rng_state())
    silent = VariationalAttention("tiny")
    counts = {name: one for name, one in fitted.checkpoint.counts.items() if not name.startswith(PREFIX)}
    silent.checkpoint = replace(fitted.checkpoint, counts=counts)
    with pytest.raises(InputError, match="forecasts no times"):
        silent.when(users=["u000"])
    assert silent.evaluate().gaps is None


def test_answer_counts_from_the_time_that_is_given(fitted: VariationalAttention) -> None:
    users = ["u000", "nobody"]
    last = fitted.when(users)["last_event"][0]
    now, later = fitted.when(users), fitted.when(users, at=last + timedelta(days=5), level=0.5, within=["2d"])
    assert last < now["low"][0] < now["median"][0] < now["high"][0]
    assert later["low"][0] > last + timedelta(days=5)
    assert 0 < later["within 2d"][0] < now["within 7d"][0] <= now["within 30d"][0] <= 1
    assert later.loc[1].drop("user_id").isna().all()
    with pytest.raises(InputError, match="before the latest event"):
        fitted.when(users, at=last - timedelta(days=1))
    with pytest.raises(InputError, match="without times"):
        fitted.when(history=fitted.vocabulary.item_ids([1, 2]))
    with pytest.raises(InputError, match="not both"):
        fitted.when()
