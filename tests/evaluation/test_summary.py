"""The numbers of an evaluation: over all queries, by group, and as a table."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation.scored import GivenScores
from tests.evaluation.some_evaluations import calibration_error, true_forecasts
from tests.evaluation.test_evaluate import NUM_ITEMS, random_part, random_scores
from variseq.errors import InputError
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.evaluation import Evaluation
from variseq.evaluation.groups import SizeThirds, by_length, group_users
from variseq.evaluation.results import Results, evaluation_table, format_table, notes_on
from variseq.evaluation.significance import mean_interval
from variseq.evaluation.summary import summarize
from variseq.ranking.attributes import range_ends
from variseq.ranking.calibration import ConformalThresholds, length_group

LENGTHS = np.repeat([0, 1, 2, 4, 8, 15, 40, 300], [90, 80, 70, 200, 100, 60, 30, 5])
NAMES = ["0", "1", "2", "3-5", "6-10", "11-20", "21-50", "201+"]


def test_history_lengths_have_a_row_each_with_every_promised_number() -> None:
    evaluation = true_forecasts(LENGTHS)
    rows = summarize(evaluation, num_resamples=200, seed=3)["by_history_length"]
    assert [row["group"] for row in rows] == NAMES
    assert [row["num_queries"] for row in rows] == [90, 80, 70, 200, 100, 60, 30, 5]
    forecasts, inside = evaluation.forecasts, LENGTHS == 4
    row = rows[3]
    assert row["ndcg@3"] == pytest.approx(evaluation.metric("ndcg")[inside].mean())
    assert row["recall@3"] == pytest.approx(evaluation.metric("recall")[inside].mean())
    assert (row["nll"], row["brier"], row["entropy"]) == pytest.approx(
        tuple(values[inside].mean() for values in (forecasts.nll, forecasts.brier, forecasts.entropy))
    )
    top, hit = forecasts.top_probability[inside], forecasts.top_is_target[inside]
    assert row["ece_top1"] == pytest.approx(calibration_error(top[:, 0], hit[:, 0]))
    assert row["ece_top3"] == pytest.approx(calibration_error(top.ravel(), hit.ravel()))
    for name in ("ndcg@3", "recall@3", "nll", "brier", "entropy", "ece_top1", "ece_top3"):
        low, high = row[f"{name}_interval"]
        assert low <= row[name] <= high


def test_interval_of_a_group_is_about_that_of_its_users_alone() -> None:
    evaluation = true_forecasts(LENGTHS)
    inside = LENGTHS == 4
    low, high = summarize(evaluation, num_resamples=2000)["by_history_length"][3]["ndcg@3_interval"]
    alone = mean_interval(evaluation.user[inside], evaluation.metric("ndcg")[inside])
    assert (low, high) == pytest.approx(alone, abs=0.015)


def test_uncertainty_of_true_forecasts_falls_with_the_history() -> None:
    rows = summarize(true_forecasts(LENGTHS), num_resamples=20)["by_history_length"]
    assert (np.diff([row["entropy"] for row in rows if row["is_compared"]]) < 0).all()


def test_groups_of_few_users_are_shown_but_not_compared() -> None:
    summary = summarize(true_forecasts(LENGTHS), num_resamples=100)
    rows, found = summary["by_history_length"], summary["group_gaps"]["history_length"]["ndcg@3"]
    assert [row["group"] for row in rows if not row["is_compared"]] == ["201+"]
    compared = {row["group"]: row["ndcg@3"] for row in rows if row["is_compared"]}
    assert compared[found["worst_group"]] == found["worst"] == min(compared.values())
    assert compared[found["best_group"]] == found["best"] == max(compared.values())
    assert found["gap"] == pytest.approx(found["best"] - found["worst"])
    assert found["gap_interval"][0] < found["gap"] < found["gap_interval"][1]


def test_worst_calibration_is_the_largest_error() -> None:
    summary = summarize(true_forecasts(LENGTHS), num_resamples=50)
    found = summary["group_gaps"]["history_length"]["ece_top1"]
    errors = {row["group"]: row["ece_top1"] for row in summary["by_history_length"] if row["is_compared"]}
    assert errors[found["worst_group"]] == max(errors.values())
    assert errors[found["best_group"]] == min(errors.values())
    assert found["gap"] == pytest.approx(max(errors.values()) - min(errors.values()))


def test_error_of_true_forecasts_is_what_chance_explains() -> None:
    errors, by_chance = [], []
    for seed in range(12):
        for row in summarize(true_forecasts(LENGTHS, seed=seed), num_resamples=2)["by_history_length"][:6]:
            errors.append(row["ece_top3"])
            by_chance.append(row["ece_top3_noise_floor"])
    assert np.mean(errors) == pytest.approx(np.mean(by_chance), rel=0.1)


def test_nothing_is_compared_with_one_large_group() -> None:
    summary = summarize(true_forecasts(np.array([3] * 50 + [9] * 10)), num_resamples=20)
    assert set(summary["group_gaps"]["history_length"].values()) == {None}


def test_unseen_targets_are_shown_but_not_compared() -> None:
    summary = summarize(true_forecasts(LENGTHS), num_resamples=20)
    assert summary["by_item_popularity"][0]["group"] == "unseen"
    assert not summary["by_item_popularity"][0]["is_compared"]
    assert len(summary["by_item_popularity"]) == 4


def test_calibration_by_popularity_goes_by_the_recommended_item() -> None:
    evaluation = true_forecasts(LENGTHS)
    forecasts = evaluation.forecasts
    row = summarize(evaluation, num_resamples=20)["by_item_popularity"][1]
    low, high = map(int, row["group"].split("-"))
    inside = (evaluation.top_item_count >= low) & (evaluation.top_item_count <= high)
    expected = calibration_error(forecasts.top_probability[inside], forecasts.top_is_target[inside])
    assert row["ece_top3"] == pytest.approx(expected)
    assert row["num_queries"] == int(((evaluation.target_count >= low) & (evaluation.target_count <= high)).sum())


def test_users_with_targets_in_several_groups_count_in_each() -> None:
    lengths = np.tile([2, 9], 40)
    evaluation = true_forecasts(lengths, user=np.repeat(np.arange(40), 2))
    rows = summarize(evaluation, num_resamples=20)["by_history_length"]
    assert [row["num_users"] for row in rows] == [40, 40]


def test_user_columns_have_groups_with_unknown_for_those_without_a_value() -> None:
    evaluation = true_forecasts(LENGTHS)
    country = [None if user < 25 else "DE" if user < 300 else "FR" for user in range(len(LENGTHS) + 50)]
    table = evaluation_table([evaluation], 50, user_groups=group_users({"country": country}))
    row = json.loads(json.dumps(table, allow_nan=False))["rows"][0]
    assert {one["group"]: one["num_users"] for one in row["by_user_column"]["country"]} == {
        "DE": 275, "FR": len(LENGTHS) - 300, "unknown": 25
    }  # fmt: skip
    ndcg = evaluation.metric("ndcg")
    assert row["by_user_column"]["country"][2]["ndcg@3"] == pytest.approx(ndcg[:25].mean())
    found = row["group_gaps"]["user_column"]["country"]["ndcg@3"]
    assert found["worst_group"] == "unknown", "they have the shortest histories"


def test_printed_results_name_the_worst_group_and_those_too_small() -> None:
    country = ["DE" if user < 300 else "FR" if user > 310 else "LI" for user in range(len(LENGTHS))]
    printed = str(Results([true_forecasts(LENGTHS)], None, group_users({"country": country})))
    assert "By country, ndcg@3: worst" in printed
    assert "By country, not compared because of fewer than 20 users: LI (11)." in printed


def test_one_group_is_said_to_have_nothing_to_be_compared_with() -> None:
    groups = group_users({"plan": ["free"] * len(LENGTHS)})
    notes = notes_on(summarize(true_forecasts(LENGTHS), 20, 0, groups), 3)
    assert any("fewer than two groups have at least 20 users" in note for note in notes)


def test_too_many_texts_are_refused_and_twenty_are_not() -> None:
    cities = [f"city {place}" for place in range(21)]
    with pytest.raises(InputError, match=r"'city' .* 21 different values .* At most 20 groups"):
        group_users({"city": [*cities, None]})
    assert len(group_users({"city": [*cities[:20], None]})["city"].names) == 21


def test_numbers_are_cut_into_thirds_and_few_numbers_stay_apart() -> None:
    groups = group_users({"age": [float(age) for age in range(30)], "is_new": [0.0] * 28 + [1.0, float("nan")]})
    assert groups["age"].names == ("0 to 9", "10 to 19", "20 to 29")
    assert groups["is_new"].names == ("0", "1", "unknown")
    assert np.bincount(groups["is_new"].index).tolist() == [28, 1, 1]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60))
def test_thirds_never_part_equal_numbers_and_none_is_empty(numbers: list[int]) -> None:
    number = np.array(numbers, dtype=np.float64)
    ends = range_ends(number, 3)
    third = np.searchsorted(ends, number, side="left")
    assert set(third.tolist()) == set(range(len(ends) + 1))
    assert len(ends) + 1 == min(3, len(set(numbers))) or len(set(numbers)) > 3
    assert len(ends) <= 2


@given(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.integers(0, 50))
def test_any_size_has_a_place_among_the_thirds(sizes: list[int], size: int) -> None:
    thirds = SizeThirds.of(np.array(sizes), "none")
    place = int(thirds.index(np.array([size]))[0])
    assert (place == -1) == (size == 0 and 0 not in sizes) or not any(sizes)
    assert thirds.index(np.array(sizes)).max() == len(thirds.names) - 1


@given(st.lists(st.integers(0, 500), min_size=1, max_size=40))
def test_lengths_are_in_the_group_whose_name_holds_them(lengths: list[int]) -> None:
    groups = by_length(np.array(lengths))
    for length, place in zip(lengths, groups.index, strict=True):
        low, _, high = groups.names[place].replace("+", "-100000").partition("-")
        assert int(low) <= length <= int(high or low)


def thresholds_for(evaluation_lengths: np.ndarray) -> ConformalThresholds:
    """Of masses that are uniform, as those of `true_forecasts` are."""
    mass = np.random.default_rng(0).permutation(np.linspace(0, 1, 3000))
    return ConformalThresholds.fit(mass, length_group(np.resize(evaluation_lengths, len(mass))), len(mass))


def test_sets_of_the_model_alone_are_looked_at_over_all_and_by_length() -> None:
    evaluation = true_forecasts(np.repeat(LENGTHS, 5))
    table = evaluation_table([evaluation, evaluation], 50, thresholds=thresholds_for(LENGTHS))
    model, other = table["rows"]
    low, high = model["conformal_coverage_90_interval"]
    assert low < 0.9 < high
    assert low < model["conformal_coverage_90"] < high
    assert sum(row["conformal_coverage_90"] * row["num_queries"] for row in model["by_history_length"]) == (
        pytest.approx(model["conformal_coverage_90"] * len(evaluation.rank))
    )
    low, high = model["conformal_coverage_90_by_chance"]
    assert low < 0.9 < high
    assert other["conformal_coverage_90"] is other["conformal_coverage_90_by_chance"] is None
    assert {row["conformal_coverage_90"] for row in other["by_history_length"]} == {None}


def test_target_that_may_not_be_recommended_is_in_no_set() -> None:
    evaluation = true_forecasts(LENGTHS)
    seen = np.arange(len(LENGTHS)) % 4 == 0
    forecasts = dataclasses.replace(evaluation.forecasts, mass_before=np.where(seen, 1.0, 0.1))
    evaluation = dataclasses.replace(evaluation, target_was_seen=seen, forecasts=forecasts)
    everything = ConformalThresholds(np.ones_like(thresholds_for(LENGTHS).mass))
    np.testing.assert_array_equal(evaluation.is_covered(everything), ~seen)
    _, high = summarize(evaluation, 20, thresholds=thresholds_for(LENGTHS))["conformal_coverage_90_by_chance"]
    assert high <= 0.75


def test_model_without_probabilities_has_no_sets() -> None:
    with pytest.raises(InputError, match="gives no probabilities"):
        true_forecasts(LENGTHS, forecasts=None).is_covered(thresholds_for(LENGTHS))


def test_selective_ndcg_gains_where_low_entropy_means_accuracy() -> None:
    evaluation = true_forecasts(LENGTHS)
    summary, ndcg = summarize(evaluation, num_resamples=300), evaluation.metric("ndcg")
    certain = np.argsort(evaluation.forecasts.entropy)[: -(-len(ndcg) // 2)]
    assert summary["selective_ndcg@3"] == pytest.approx(ndcg[certain].mean())
    assert summary["selective_ndcg_gain"] == pytest.approx(ndcg[certain].mean() / ndcg.mean() - 1)
    low, high = summary["selective_ndcg_gain_interval"]
    assert 0 < low < summary["selective_ndcg_gain"] < high


def test_model_that_is_equally_uncertain_of_all_gains_nothing() -> None:
    evaluation = true_forecasts(LENGTHS)
    same = dataclasses.replace(evaluation.forecasts, entropy=np.ones(len(LENGTHS)))
    summary = summarize(dataclasses.replace(evaluation, forecasts=same), num_resamples=50)
    assert summary["selective_ndcg_gain"] == pytest.approx(0)
    assert summary["selective_ndcg_gain_interval"] == pytest.approx([0, 0])


CATEGORIES = [("even", "small") if item % 2 else ("odd",) for item in range(NUM_ITEMS)]


def evaluated(targets: str = "all", gives_probabilities: bool = True, name: str = "given") -> Evaluation:
    model = GivenScores(random_scores(3), gives_probabilities, name)
    return evaluate(model, random_part(3), EvaluationOptions(k=10, targets=targets, item_categories=CATEGORIES))


def test_summary_can_be_written_as_json_and_holds_every_promised_number() -> None:
    summary = summarize(evaluated(), num_resamples=100)
    promised = (
        "ndcg@10 ndcg@10_interval recall@10 mrr nll brier ece_top1 ece_top10 catalog_coverage@10 gini@10 novelty@10 "
        "diversity@10 num_queries unseen_targets repeat_targets cold_queries by_history_length by_item_popularity "
        "group_gaps by_user_column selective_ndcg@10 selective_ndcg_gain "
        "conformal_coverage_90 entropy"
    )
    assert set(promised.split()) <= set(summary)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_summary_means_are_over_users_and_intervals_hold_them() -> None:
    evaluation = evaluated()
    summary = summarize(evaluation, num_resamples=300, seed=2)
    ndcg = evaluation.metric("ndcg")
    of_users = [ndcg[evaluation.user == user].mean() for user in np.unique(evaluation.user)]
    assert summary["ndcg@10"] == pytest.approx(np.mean(of_users))
    for name in ("ndcg@10", "recall@10", "mrr", "nll", "brier"):
        low, high = summary[f"{name}_interval"]
        assert low <= summary[name] <= high
    assert summary["nll_interval"] == pytest.approx(
        mean_interval(evaluation.user, evaluation.metric("nll"), num_resamples=300, seed=2)
    )


def test_summary_calibration_errors_are_those_of_the_lists() -> None:
    evaluation = evaluated()
    summary = summarize(evaluation, num_resamples=50)
    top, hit = evaluation.forecasts.top_probability, evaluation.forecasts.top_is_target
    filled = evaluation.top_item >= 0
    assert summary["ece_top1"] == pytest.approx(calibration_error(top[:, 0], hit[:, 0]))
    assert summary["ece_top10"] == pytest.approx(calibration_error(top[filled], hit[filled]))
    for name in ("ece_top1", "ece_top10"):
        low, high = summary[f"{name}_interval"]
        assert 0 <= low <= high <= 1


def test_groups_hold_every_query_once() -> None:
    evaluation = evaluated()
    summary = summarize(evaluation, num_resamples=50)
    for kind in ("history_length", "item_popularity"):
        rows = summary[f"by_{kind}"]
        assert sum(row["num_queries"] for row in rows) == summary["num_queries"]
        assert sum(row["num_queries"] * row["ndcg@10"] for row in rows) == pytest.approx(
            evaluation.metric("ndcg").sum()
        )
    assert summary["by_history_length"][0]["group"] == "0"
    assert summary["by_history_length"][0]["num_queries"] == summary["cold_queries"] > 0


def test_summary_of_k_1_and_of_nothing_but_unseen_targets() -> None:
    evaluation = evaluate(GivenScores(random_scores(0)), random_part(0), EvaluationOptions(k=1))
    assert summarize(evaluation, num_resamples=20)["ndcg@1"] == evaluation.metric("recall").mean()
    unseen = dataclasses.replace(evaluation, target_count=np.zeros_like(evaluation.target_count))
    summary = summarize(unseen, num_resamples=20)
    assert summary["group_gaps"]["item_popularity"]["ndcg@1"] is None
    assert [row["group"] for row in summary["by_item_popularity"]] == ["unseen"]
    assert summary["unseen_targets"] == len(evaluation.rank)


def test_table_has_one_protocol_and_a_row_a_model() -> None:
    table = evaluation_table([evaluated(name="one"), evaluated(name="two", gives_probabilities=False)], 50)
    assert [row["model"] for row in table["rows"]] == ["one", "two"]
    assert list(table["rows"][0]) == list(table["rows"][1]), "what is not defined is None"
    for name in ("nll", "brier", "entropy", "ece_top1", "ece_top10", "selective_ndcg_gain", "risk_coverage_area"):
        assert table["rows"][0][name] is not None
        assert table["rows"][1][name] is None
    assert table["protocol"]["k"] == 10
    assert len(table["protocol"]["split_hash"]) == 64
    json.dumps(table, allow_nan=False)
    text = format_table(table)
    low, high = table["rows"][0]["ndcg@10_interval"]
    assert f"{low:.4f}–{high:.4f}" in text
    assert "one" in text
    assert "two" in text


def test_table_of_results_that_were_not_measured_alike_is_refused() -> None:
    with pytest.raises(InputError, match="were not evaluated alike"):
        evaluation_table([evaluated(), evaluated(targets="first")])
    with pytest.raises(InputError, match="no evaluation"):
        evaluation_table([])


def test_metric_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match=r"has no metric 'auc'\. It has: ndcg, recall, mrr, nll, brier"):
        evaluated().metric("auc")
