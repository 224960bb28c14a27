"""The time of the request, from the histories to the answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from tests.model.some_networks import NUM_ITEMS, small_network
from variseq.errors import InputError
from variseq.estimator import VariationalAttention
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.significance import require_same_protocol
from variseq.evaluation.splits import Part, leave_one_out
from variseq.ranking.calibration import Calibration
from variseq.recommend.calibrate import Calibrator, calibrate
from variseq.recommend.network_model import ModelRecommender, count_events, mixture_model
from variseq.sequences.histories import Histories

HOUR = 3_600_000_000
OPTIONS = EvaluationOptions(k=5, exclude_seen=False)


def habits(by_hour: bool, num_users: int = 150, seed: int = 0, by_weekend: bool = False) -> Part:
    """Everybody has a morning and an evening item of their own, or one of weekdays and weekends, or two at random."""
    generator = np.random.default_rng(seed)
    own = np.stack([generator.choice(NUM_ITEMS, 2, replace=False) for _ in range(num_users)])
    is_evening = generator.random((num_users, 16)) < 0.5
    which = is_evening if by_hour else generator.random((num_users, 16)) < 0.5
    if by_weekend:
        which = np.tile(np.arange(16) % 7 // 2 == 1, (num_users, 1))  # the first day of 1970 was a Thursday
    histories = Histories.of_items(np.take_along_axis(own, which.astype(int), axis=1).tolist())
    hour = 24 * np.arange(16) + np.where(is_evening, 19, 7) + generator.uniform(-1, 1, size=(num_users, 16))
    histories = replace(histories, timestamp=(HOUR * hour).astype(np.int64).ravel())
    return leave_one_out(histories, NUM_ITEMS)[1]


def calibrated(part: Part, calendar: str = "UTC") -> tuple[Calibration, float, float]:
    """The calibration of an untrained network, and −log p without and with the time of the request."""
    untuned = mixture_model(small_network(), count_events(NUM_ITEMS, part.history()), Calibration(0))
    found = calibrate(untuned, part, OPTIONS, calendar)
    return found.calibration, found.validation["nll"], found.validation["nll_at_request"]


def test_model_that_knows_the_time_predicts_what_depends_on_the_hour() -> None:
    calibration, without, known = calibrated(habits(by_hour=True))
    assert calibration.at_request is not None
    assert calibration.at_request.own is not None
    assert calibration.at_request.own.hour > 0
    assert known < 0.5 < without


def test_weekends_count_for_little_on_weekdays_where_people_live_otherwise_then() -> None:
    calibration, without, known = calibrated(habits(by_hour=False, by_weekend=True))
    assert calibration.at_request is not None
    assert calibration.at_request.own is not None
    assert calibration.at_request.own.weekend < 0.5
    assert known < 0.5 * without


def test_hour_is_not_used_where_it_does_not_matter_nor_without_a_calendar() -> None:
    calibration, without, known = calibrated(habits(by_hour=False))
    assert calibration.at_request is not None
    assert calibration.at_request.own is not None
    assert calibration.at_request.own.hour == 0
    assert known == pytest.approx(without, abs=0.05)
    relative = calibrated(habits(by_hour=True), "none")[0]
    assert relative.at_request is not None
    assert relative.at_request.own is not None
    assert not relative.at_request.own.has_calendar


def test_calibration_without_the_time_is_the_same_whether_the_log_has_times_or_not() -> None:
    part = habits(by_hour=True)
    order = Histories.of_items([part.histories.history(user).item.tolist() for user in range(len(part.histories))])
    untuned = mixture_model(small_network(), count_events(NUM_ITEMS, part.history()), Calibration(0))
    network_alone = replace(part, histories=replace(part.histories, timestamp=order.timestamp))
    ordered, timed = (Calibrator(untuned, one, OPTIONS).fit() for one in (network_alone, part))
    assert ordered.at_request is None
    with pytest.raises(InputError, match="no times"):
        ordered.require_at_request("The model")
    assert replace(timed, at_request=None).own == ordered.own
    assert Calibration.from_json(timed.to_json()) == timed


def test_histories_keep_their_request_time() -> None:
    part = habits(by_hour=True, num_users=6)
    queries = part.queries()
    known = part.histories_before(queries, request_time=True)
    assert known.request_time is not None
    np.testing.assert_array_equal(known.request_time, part.histories.timestamp[queries.position])
    some = known.rows(np.array([4, 1])).latest(3)
    np.testing.assert_array_equal(some.request_time, known.request_time[[4, 1]])
    np.testing.assert_array_equal(some.joined(known.history(2)).request_time, known.request_time[[4, 1, 2]])
    np.testing.assert_array_equal(some.log_gap, known.log_gap[[4, 1]])
    assert part.histories_before(queries).log_gap is None


def test_results_with_and_without_the_time_are_not_compared() -> None:
    part = habits(by_hour=True)
    model = ModelRecommender(mixture_model(small_network(), count_events(NUM_ITEMS, part.history()), Calibration(0)))
    both = [evaluate(model, part, replace(OPTIONS, request_time=known)) for known in (False, True)]
    with pytest.raises(InputError):
        require_same_protocol(both)


@pytest.mark.unchecked
def test_evaluation_with_the_time_says_so_and_has_a_baseline_that_knows_it(fitted: VariationalAttention) -> None:
    plain, known = fitted.evaluate(k=3), fitted.evaluate(k=3, request_time=True)
    assert "the time of each request" in str(known)
    assert "the time of each request" not in str(plain)
    assert {one.model for one in known.evaluations} - {one.model for one in plain.evaluations} == {"own-by-hour"}
    assert known.row("popular")["nll"] == plain.row("popular")["nll"]
    assert known.row("variseq")["nll"] != plain.row("variseq")["nll"]


def test_answer_depends_on_when_it_is_wanted(fitted: VariationalAttention) -> None:
    users = fitted.vocabulary.users.to_pylist()[:1]
    latest = int(fitted.checkpoint.histories.history(0).timestamp[-1] / 1e6)
    soon, late, same = (
        fitted.recommend(users, k=4, at=at).to_pandas()["probability"]
        for at in (latest + 1, latest + 1e6, datetime.fromtimestamp(latest + 1, UTC).isoformat())
    )
    np.testing.assert_array_equal(soon, same)
    assert not np.allclose(soon, late, rtol=1e-4)
    assert len(fitted.recommend(users, k=4, at="now")) == 4


@pytest.mark.parametrize(
    ("at", "match"),
    [
        (0, "before the latest event"),
        ("1990-01-01T00:00:00Z", "before the latest event"),
        ("tomorrow", "no time"),
        ("2026-01-01T00:00:00", "no zone"),
        ("3000-01-01T00:00:00Z", "a year in the future"),
        (True, "no time"),
    ],
)
def test_time_that_cannot_be_is_refused(fitted: VariationalAttention, at: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        fitted.recommend(fitted.vocabulary.users.to_pylist()[:2], at=at)


def test_history_without_times_cannot_be_asked_for_at_a_time(fitted: VariationalAttention) -> None:
    items = fitted.vocabulary.items.to_pylist()[:2]
    with pytest.raises(InputError, match="times of the events"):
        fitted.recommend(history=items, at="now")
    events = [{"item_id": item, "timestamp": 1_700_000_000 + step} for step, item in enumerate(items)]
    with pytest.raises(InputError, match="before the latest event"):
        fitted.recommend(history=events, at=1_700_000_000)
    assert len(fitted.recommend(history=events, at=1_700_000_001, k=3)) == 3


def test_answer_after_years_is_the_one_after_the_longest_known_time() -> None:
    part = habits(by_hour=True)
    calibration = calibrated(part)[0].at_request
    assert calibration is not None
    history = part.history().rows(np.arange(3))
    longest = calibration.log_gaps[1]
    assert longest < 22
    late = replace(history, request_time=history.timestamp[history.offsets[1:] - 1] + 9 * 365 * 24 * HOUR)
    assert calibration.log_gap(late) == pytest.approx([longest] * 3)
    assert Calibration.from_json(replace(Calibration(), at_request=calibration).to_json()).at_request == calibration
