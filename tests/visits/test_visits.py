"""Visits: sets of events without order, read from a gap or a column, split whole, and forecast as sets."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import variseq
from tests.visits.clinic import Clinic, clinic
from variseq import ReadOptions
from variseq.errors import InputError, PosteriorCollapseWarning
from variseq.evaluation.baselines import LastItemTransitions, OwnLatest
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.splits import Part, by_time, by_user_time, leave_one_out
from variseq.evaluation.visits import VisitRanks
from variseq.model.network import Network, NetworkConfig
from variseq.model.posterior import preferences, value_estimates
from variseq.ranking.counts import OwnHistory, own_history
from variseq.ranking.visits import VisitProbability
from variseq.sequences.batches import make_batch, training_windows
from variseq.sequences.histories import Histories, last_items

DAY = 86_400 * 1_000_000
VISITS = st.lists(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), max_size=5), min_size=1, max_size=4)


def histories_of(people: list[list[list[int]]], gap: int | None = 0) -> Histories:
    """People, their visits, the items of each; visits are a day apart, and their events at one time."""
    flat = [[(item, number * DAY) for number, visit in enumerate(visits) for item in visit] for visits in people]
    histories = Histories.of_items([[item for item, _ in events] for events in flat])
    times = np.array([time for events in flat for _, time in events], dtype=np.int64)
    return replace(histories, timestamp=times, visit_gap=gap)


def sets_of(histories: Histories) -> list[list[int]]:
    """The items of each visit."""
    begin = histories.visits.begin(np.arange(len(histories.visits) + 1)).tolist()
    return [histories.item[first:last].tolist() for first, last in pairwise(begin)]


def network_of(histories: Histories, **fields: Any) -> Network:
    torch.manual_seed(0)
    config = NetworkConfig(
        num_items=6, hidden_size=8, latent_dim=4, has_gaps=True, visit_gap=histories.visit_gap, **fields
    )
    return Network(config).eval()


@given(VISITS)
def test_visits_are_those_that_were_given(people: list[list[list[int]]]) -> None:
    histories = histories_of(people)
    found = sets_of(histories)
    assert [found[first:last] for first, last in pairwise(histories.visits.offsets.tolist())] == people
    assert histories.visits.of(np.arange(histories.num_events)).tolist() == [
        number for number, visit in enumerate(visit for visits in people for visit in visits) for _ in visit
    ]


@given(VISITS, st.integers(0, 2**32 - 1))
def test_order_inside_a_visit_changes_nothing(people: list[list[list[int]]], seed: int) -> None:
    generator = np.random.default_rng(seed)
    shuffled = [[generator.permutation(visit).tolist() for visit in visits] for visits in people]
    one, other = histories_of(people), histories_of(shuffled)
    network = network_of(one)
    torch.testing.assert_close(preferences(network, one)[0], preferences(network, other)[0], rtol=1e-4, atol=1e-5)
    counted = [own_history(each, OwnHistory()).dense(np.ones(6)) for each in (one, other)]
    np.testing.assert_allclose(*counted)
    scores = [LastItemTransitions(6).fit(each).scores(each) for each in (one, other)]
    torch.testing.assert_close(*scores)


@given(VISITS, st.data())
def test_no_preference_sees_the_visit_that_it_forecasts(people: list[list[list[int]]], data: st.DataObject) -> None:
    people = [visits for visits in people if len(visits) >= 2] or [[[1], [2, 3]]]
    changed = [[*visits[:-1], data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=3))] for visits in people]
    found = []
    for each in (histories_of(people), histories_of(changed)):
        windows = training_windows(each, 50, np.random.default_rng(0))
        batch = make_batch(each, windows, np.arange(len(windows.first)), 6)
        found.append(network_of(each)(batch).preference)
    # A token forecasts the visit after it, so the last visit is the input of none.
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@given(VISITS)
def test_targets_of_a_batch_are_the_items_of_the_next_visits(people: list[list[list[int]]]) -> None:
    histories = histories_of([[[0]], *people])
    windows = training_windows(histories, 50, np.random.default_rng(0))
    batch = make_batch(histories, windows, np.arange(len(windows.first)), 6)
    assert batch.target_token is not None
    assert batch.token is not None
    wanted = [visit for visits in [[[0]], *people] for visit in visits]
    assert [batch.target_item[batch.target_token == token].tolist() for token in range(batch.num_tokens)] == wanted
    shown = [visit for visits in [[[0]], *people] if visits for visit in [[6], *visits[:-1]]]
    assert [batch.item[batch.token == token].tolist() for token in range(batch.num_tokens)] == shown


@given(st.lists(st.lists(st.integers(0, 5), max_size=6), min_size=1, max_size=4))
def test_visits_of_one_event_are_the_events(people: list[list[int]]) -> None:
    plain = histories_of([[[item] for item in items] for items in people], gap=None)
    visits = replace(plain, visit_gap=0)
    network = network_of(visits)
    torch.testing.assert_close(preferences(network, plain)[0], preferences(network, visits)[0])
    for options in (OwnHistory(), OwnHistory(0.5, 0.0)):
        np.testing.assert_allclose(
            own_history(plain, options).dense(np.ones(6)), own_history(visits, options).dense(np.ones(6))
        )
    one, other = (LastItemTransitions(6).fit(each) for each in (plain, visits))
    torch.testing.assert_close(one.scores(plain), other.scores(visits))
    assert plain.num_repeats() == visits.num_repeats()
    assert [column.tolist() for column in last_items(plain)] == [column.tolist() for column in last_items(visits)]


@given(VISITS)
def test_counts_of_own_visits_equal_a_plain_loop(people: list[list[list[int]]]) -> None:
    options, prior = OwnHistory(decay=0.5, transitions=2.0), np.full(6, 100 / 6)
    found = own_history(histories_of(people), options).dense(prior)
    for row, visits in enumerate(people):
        count = np.zeros(6)
        for number, visit in enumerate(visits):
            weight = 0.5 ** (len(visits) - 1 - number)
            if number:
                last = set(visits[-1])
                weight *= 1 + 2.0 * len(last & set(visits[number - 1])) / len(last)
            for item in visit:
                count[item] += weight
        np.testing.assert_allclose(found[row], (count + 1 / 6) / (count.sum() + 1))


def test_transitions_go_from_each_item_of_a_visit_to_each_of_the_next() -> None:
    histories = histories_of([[[0, 1], [2, 2, 3]], [[0], [4]]])
    baseline = LastItemTransitions(6).fit(histories)
    matrix = np.zeros((6, 6))
    matrix[np.repeat(np.arange(6), np.diff(baseline.offsets)), baseline.follower] = baseline.count
    assert matrix[0].tolist() == [0, 0, 1.0, 0.5, 1.0, 0]
    assert matrix[1].tolist() == [0, 0, 1.0, 0.5, 0, 0]


def _reference(people: np.ndarray, rank: np.ndarray, k: int) -> float:
    return float(np.mean([np.mean(rank[people == visit] <= k) for visit in np.unique(people)]))


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 30), st.booleans()), min_size=1, max_size=30),
    st.integers(1, 12),
)
def test_metrics_of_visits_equal_plain_sets(rows: list[tuple[int, int, bool]], k: int) -> None:
    visit = np.sort(np.array([row[0] for row in rows]))
    # Ranks of a visit are different numbers.
    rank = np.array([4.0 * number + row[1] % 4 + 1 for number, row in enumerate(rows)])
    repeat = np.array([row[2] for row in rows])
    ranks = VisitRanks(visit, rank, repeat, np.where(repeat, np.inf, rank), np.ones(len(rows), dtype=bool))
    found = {
        name: (value * weight).sum() / weight.sum()
        for name, (value, weight) in ranks.metrics(k).items()
        if weight.any()
    }
    hits = [(rank[visit == one] <= k).sum() for one in np.unique(visit)]
    sizes = [(visit == one).sum() for one in np.unique(visit)]
    assert found["recall"] == pytest.approx(_reference(visit, rank, k))
    assert found["precision"] == pytest.approx(np.mean([hit / k for hit in hits]))
    assert found["jaccard"] == pytest.approx(np.mean([h / (s + k - h) for h, s in zip(hits, sizes, strict=True)]))
    for name, inside in (("recall_repeats", repeat), ("recall_new", ~repeat)):
        if inside.any():
            assert found[name] == pytest.approx(_reference(visit[inside], rank[inside], k))


@pytest.mark.parametrize(
    "split",
    [leave_one_out, lambda h: by_time(h, 0.3, 0.3), lambda h: by_user_time(h, 0.4, 0.4)],
    ids=["leave-one-out", "time", "user-time"],
)
def test_a_visit_is_whole_in_one_part(split: Callable[[Histories], tuple[Part, Part, Part]]) -> None:
    generator = np.random.default_rng(0)
    people = [[generator.integers(0, 6, generator.integers(1, 5)).tolist() for _ in range(6)] for _ in range(20)]
    histories = histories_of(people)
    begins = set(histories.visits.begin(np.arange(len(histories.visits) + 1)).tolist())
    for part in split(histories):
        assert set(part.history_end.tolist()) | set(part.target_end.tolist()) <= begins
        queries = part.queries("all")
        before = part.histories_before(queries)
        for row, position in enumerate(queries.position.tolist()):
            assert before.history(row).timestamp.max(initial=-1) < histories.timestamp[position]


def test_the_last_targets_are_the_items_of_the_last_visit_each_once() -> None:
    _, _, test = leave_one_out(histories_of([[[0], [1], [2, 3, 2]], [[4], [4], [5]]]))
    queries = test.queries("last")
    assert test.histories.item[queries.position].tolist() == [2, 3, 5]


def test_an_evaluation_scores_a_visit_as_each_of_its_items() -> None:
    _, _, test = leave_one_out(histories_of([[[0, 1], [1, 2], [1, 3, 5]], [[4, 3, 5], [4, 0], [5]]]))
    baseline = OwnLatest(6).fit(test.history())
    found = evaluate(baseline, test, EvaluationOptions(k=2, targets="all", exclude_seen=False))
    assert found.visits is not None
    assert found.visits.is_repeat.tolist() == [True, False, False, True]
    # The own items are 1, 2 and 0 of the first person; 3, 4 and 5 are new to her.
    assert found.rank[0] <= 2
    assert np.isinf(found.visits.rank_among_new).tolist() == found.visits.is_repeat.tolist()
    assert (found.visits.rank_among_new[1:3] <= 3).all()
    assert (found.rank[1:3] > 3).all()


def read_clinic(events: pa.Table, **options: Any) -> variseq.log.Log:
    return variseq.read(events, options=ReadOptions(**options))


def test_a_column_and_a_gap_make_the_same_visits() -> None:
    events = clinic(20).events
    by_column = read_clinic(events, columns={"visit": "encounter"})
    by_gap = read_clinic(events, visit_gap="1h")
    of_column, of_gap = by_column.histories.visits, by_gap.histories.visits
    assert of_column.offsets.tolist() == of_gap.offsets.tolist()
    for log in (by_column, by_gap):
        assert log.histories.num_events == events.num_rows
    one, other = ([sorted(visit) for visit in sets_of(log.histories)] for log in (by_column, by_gap))
    assert one == other


def test_check_counts_visits_and_does_not_warn_of_their_ties() -> None:
    events = clinic(20).events
    found = read_clinic(events, columns={"visit": "encounter"}).check()
    assert found.num_visits == 20 * 8
    assert not any("share their time" in text for text in found.warnings)


def test_two_visits_that_begin_at_one_time_stay_two() -> None:
    table = pa.table(
        {"user": ["a"] * 4 + ["b"], "item": [1, 2, 3, 4, 1], "ts": [5, 5, 5, 9, 5], "v": ["x", "y", "x", "z", None]}
    )
    log = read_clinic(table, columns={"visit": "v"})
    assert log.histories.visits.lengths.tolist() == [3, 1]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"columns": {"visit": "encounter"}}, ["overlap", "'x'", "'y'", "visit_gap"]),
        ({"columns": {"visit": "nowhere"}}, ["nowhere", "encounter"]),
        ({"columns": {"visit": "encounter"}, "visit_gap": "1h"}, ["encounter", "visit_gap", "one"]),
    ],
)
def test_visits_that_cannot_be_are_one_clear_error(options: dict[str, Any], named: list[str]) -> None:
    table = pa.table({"user": ["a"] * 3, "item": [1, 2, 3], "ts": [1, 5, 9], "encounter": ["x", "y", "x"]})
    with pytest.raises(InputError) as raised:
        read_clinic(table, **options)
    assert all(word in str(raised.value) for word in named)


def test_a_column_called_visit_is_taken_only_by_choice() -> None:
    table = pa.table({"user": ["a"] * 3, "item": [1, 2, 3], "ts": [1, 5, 9], "visit": ["x", "x", "y"]})
    assert read_clinic(table).histories.visit_gap is None


@given(st.lists(st.floats(1e-6, 0.3), min_size=3, max_size=3), st.integers(0, 2**32 - 1))
def test_the_probability_of_a_visit_rises_with_that_of_an_event(p: list[float], seed: int) -> None:
    generator = np.random.default_rng(seed)
    histories = histories_of([[[0, 1], [1]]] * 100)
    shown = generator.dirichlet(np.ones(6), 100)
    link = VisitProbability.fit(shown, generator.random((100, 6)) < shown, histories, 1.0)
    found = link.probability(np.sort(np.array(p))[None], histories.rows(np.array([0])))
    assert (np.diff(found[0]) >= 0).all()
    assert (found >= 0).all()
    assert (found <= 1).all()


@pytest.fixture(scope="module")
def people() -> Clinic:
    return clinic()


@pytest.fixture(scope="module")
def model(people: Clinic, tmp_path_factory: pytest.TempPathFactory) -> tuple[variseq.VariationalAttention, Path]:
    log = read_clinic(people.events, visit_gap="1h")
    train, valid, _ = log.split(by="leave-one-out")
    folder = tmp_path_factory.mktemp("clinic") / "run"
    fitted = variseq.VariationalAttention(size="tiny", training={"max_epochs": 4, "num_refits": 1})
    with warnings.catch_warnings():
        # New items come by chance here, so there is nothing that the network could learn.
        warnings.simplefilter("ignore", PosteriorCollapseWarning)
        return fitted.fit(train, valid, folder=folder, verbose=0), folder


def _truth(people: Clinic, model: variseq.VariationalAttention) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    """Of each person of the test part, what the last visit holds, by item id; and the ids of the people."""
    histories, users = model._histories(), model.vocabulary.users.to_pylist()
    holds, sets = np.zeros((len(users), people.probability.shape[1]), dtype=bool), sets_of(histories)
    for row, end in enumerate(histories.visits.offsets[1:].tolist()):
        holds[row, model.vocabulary.item_ids(np.array(sets[end - 1]))] = True
    return np.array(users), holds, users


def test_the_recall_of_the_true_probabilities_is_nearly_reached(
    people: Clinic, model: tuple[variseq.VariationalAttention, Path]
) -> None:
    user, holds, _ = _truth(people, model[0])
    results = model[0].evaluate(k=8)
    assert results.row("variseq")["visit_recall@8"] >= 0.95 * people.recall(user, holds, 8)
    assert results.row("variseq")["num_visits"] == len(user)
    assert "own-latest-first" in str(results)


def test_probabilities_of_the_next_visit_are_those_of_the_simulation(
    people: Clinic, model: tuple[variseq.VariationalAttention, Path]
) -> None:
    """Of items that people often have; the visit after all that are known is asked for."""
    users = model[0].vocabulary.users.to_pylist()
    table = model[0].recommend(users, k=5, next="visit", reasons=False).to_pandas()
    truth = people.probability[table["user_id"], table["item_id"]]
    assert abs(table["probability"].mean() - truth.mean()) < 0.05
    by_thirds = np.array_split(np.argsort(table["probability"].to_numpy()), 3)
    for third in by_thirds:
        assert abs(table["probability"].to_numpy()[third].mean() - truth[third].mean()) < 0.08
    assert (table["probability_low"] <= table["probability"]).all()
    assert (table["probability"] <= 1).all()


def test_a_visit_may_be_given_as_a_list(model: tuple[variseq.VariationalAttention, Path]) -> None:
    visits = model[0].recommend(history=[[1, 2, 3], [3, 4]], k=4)
    shuffled = model[0].recommend(history=[[3, 1, 2], [4, 3]], k=4)
    events = [{"item_id": item, "timestamp": 1_600_000_000 + 9_999 * (n > 2)} for n, item in enumerate([1, 2, 3, 3, 4])]
    assert visits.item_id == shuffled.item_id
    np.testing.assert_allclose(visits.probability, shuffled.probability, rtol=1e-5)
    assert set(model[0].recommend(history=events, k=4).item_id) & set(visits.item_id)


def test_the_next_visit_of_a_log_without_visits_is_refused(fitted: variseq.VariationalAttention) -> None:
    with pytest.raises(InputError, match="visit_gap"):
        fitted.recommend(history=[fitted.vocabulary.items[0].as_py()], next="visit")


def test_a_saved_run_keeps_its_visits(model: tuple[variseq.VariationalAttention, Path]) -> None:
    loaded = variseq.load(model[1])
    one, other = (each.recommend([3], k=5, next="visit", reasons=False) for each in (model[0], loaded))
    assert one.item_id == other.item_id
    assert one.probability.tolist() == other.probability.tolist()


def test_the_exported_engine_answers_as_the_run_does(
    model: tuple[variseq.VariationalAttention, Path], tmp_path: Path
) -> None:
    from variseq.export import export
    from variseq.inference.engine import load_engine
    from variseq.ranking.engine import Request
    from variseq.ranking.options import RecommendOptions

    engine, own = load_engine(export(model[1], tmp_path / "exported")), model[0]._engine()
    request = Request(RecommendOptions(k=6, next="visit"), attention=True)
    for history in ([[1, 2, 3], [3, 4]], [[7]], [], [[5, 6], [5], [6, 8, 9, 10]]):
        given = variseq.sequences.given_history.given_history(history)
        (one,), (other,) = own.answer([(own.given(given), request)]), engine.answer([(engine.given(given), request)])
        assert not isinstance(one, InputError)
        assert not isinstance(other, InputError)
        assert one.recommendations.item_id == other.recommendations.item_id
        assert one.recommendations.reasons == other.recommendations.reasons
        np.testing.assert_allclose(one.recommendations.probability, other.recommendations.probability, rtol=1e-3)
        assert other.attention is not None
        assert len(other.attention) == sum(map(len, history))


def test_a_value_is_estimated_without_the_values_of_its_own_visit() -> None:
    histories = histories_of([[[0, 1], [2, 3], [4, 5]], [[1], [1, 0]]])
    histories = replace(histories, value=np.arange(histories.num_events, dtype=np.float32))
    changed = histories.value.copy()
    changed[[4, 5]] += 9.0  # the last visit of the first person
    network = network_of(histories, has_values=True)
    windows = training_windows(histories, 50, np.random.default_rng(0))
    found = []
    for values in (histories.value, changed):
        batch = make_batch(replace(histories, value=values), windows, np.arange(len(windows.first)), 6)
        found.append(network.values(batch).mean)
    assert len(found[0]) == histories.num_events
    torch.testing.assert_close(*found)


def test_an_estimate_of_one_event_is_that_of_the_batch() -> None:
    histories = histories_of([[[0, 1], [2, 3], [4, 5]]])
    histories = replace(histories, value=np.arange(histories.num_events, dtype=np.float32))
    network = network_of(histories, has_values=True)
    windows = training_windows(histories, 50, np.random.default_rng(0))
    of_batch = network.values(make_batch(histories, windows, np.arange(1), 6)).mean
    target = histories.select(np.array([5]), np.array([6]))
    alone = histories.select(np.array([0]), np.array([4])).followed_by(target)
    assert value_estimates(network, alone)[0][0] == pytest.approx(of_batch[5].item(), abs=1e-5)


def test_gaps_are_those_between_visits(model: tuple[variseq.VariationalAttention, Path]) -> None:
    histories = histories_of([[[0, 1], [2, 3], [4, 5]], [[1], [1, 0]]])
    begins = histories.visit_begins()
    assert begins.item.tolist() == [0, 2, 4, 1, 1]
    assert np.diff(begins.timestamp[:3]).tolist() == [DAY, DAY]
    table = model[0].when(users=[0, 1])
    days = (table["median"] - table["last_event"]).dt.total_seconds() / 86_400
    assert days.between(15, 45).all()  # a visit every thirty days


def test_report_has_the_recall_of_visits_and_the_attention_over_them(
    model: tuple[variseq.VariationalAttention, Path],
) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    from variseq.reports.report import report_data, report_figures
    from variseq.reports.style import LIGHT, png

    data = report_data(model[0], 20)
    assert data.results is not None
    figures = {one.name: one for _, found in report_figures(data) for one in found}
    row = data.results.row("variseq")
    for name in ("visit_recall_repeats@20", "visit_recall_new@20"):
        groups = [group for group in row["by_history_length"] if group[name] is not None]
        assert {group["group"] for group in groups} >= {"21-50"}
        assert min(group[name] for group in groups) <= row[name] <= max(group[name] for group in groups)
        assert f"{row[name]:.3f} (best baseline" in figures["visits"].finding
    assert "visits" in figures["attention"].how_to_read
    for name in ("visits", "attention"):
        assert png(figures[name], LIGHT).startswith(b"\x89PNG")
