"""Bootstrap intervals, permutation tests and paired comparisons over users."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation.scored import GivenScores
from tests.evaluation.some_evaluations import true_forecasts
from tests.evaluation.test_evaluate import random_part, random_scores
from variseq.errors import InputError
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.evaluation import Evaluation
from variseq.evaluation.results import Results, difference_sentences
from variseq.evaluation.significance import (
    UserColumns,
    compare,
    holm,
    mean_interval,
    means_by_user,
    paired_differences,
    percentile_interval,
    resampled_sums,
    resampled_tables,
    sign_flip_p_value,
)


def test_interval_has_the_width_of_the_normal_approximation() -> None:
    value = np.random.default_rng(0).normal(size=4_000)
    low, high = mean_interval(np.arange(4_000), value)
    half_width = 1.96 * value.std() / np.sqrt(4_000)
    assert low == pytest.approx(value.mean() - half_width, abs=0.15 * half_width)
    assert high == pytest.approx(value.mean() + half_width, abs=0.15 * half_width)


def test_interval_covers_the_true_mean_about_95_times_in_100() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for repeat in range(100):
        low, high = mean_interval(np.arange(60), generator.exponential(size=60), num_resamples=400, seed=repeat)
        covered += low <= 1 <= high
    assert 86 <= covered <= 100


def test_users_are_resampled_not_queries() -> None:
    user = np.repeat(np.arange(40), 50)
    of_user = np.random.default_rng(2).normal(size=40)
    many = mean_interval(user, np.repeat(of_user, 50))
    once = mean_interval(np.arange(40), of_user)
    assert many == pytest.approx(once)


def test_every_user_counts_once_however_many_targets_there_are() -> None:
    means = means_by_user(np.array([7, 7, 7, 9]), np.array([[1.0], [1.0], [1.0], [0.0]]))
    assert means.tolist() == [[1.0], [0.0]]


def test_resampling_is_the_same_for_a_seed_and_for_any_chunk() -> None:
    columns = np.random.default_rng(0).normal(size=(30, 3))
    first = resampled_sums(columns, num_resamples=50, seed=4)
    np.testing.assert_array_equal(first, resampled_sums(columns, num_resamples=50, seed=4))
    assert not np.array_equal(first, resampled_sums(columns, num_resamples=50, seed=5))
    every, some = np.arange(30), np.array([3, 4, 20])
    blocks = [UserColumns(every, columns[:, :1]), UserColumns(every, columns[:, 1:]), UserColumns(some, columns[some])]
    left, right, of_some = resampled_tables(blocks, 30, num_resamples=50, seed=4)
    np.testing.assert_allclose(np.concatenate([left, right], axis=1), first)
    alone = np.where(np.isin(every, some)[:, None], columns, 0.0)
    np.testing.assert_allclose(of_some, resampled_sums(alone, num_resamples=50, seed=4), atol=1e-12)


def test_percentile_interval_leaves_a_fortieth_on_each_side() -> None:
    assert percentile_interval(np.arange(1_001.0)) == pytest.approx((25.0, 975.0))


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_sign_flip_p_value_is_near_the_exact_one(difference: list[int]) -> None:
    values = np.array(difference, dtype=float)
    observed = abs(values.sum())
    patterns = itertools.product([-1, 1], repeat=len(values))
    exact = np.mean([abs(np.dot(pattern, values)) >= observed for pattern in patterns])
    assert sign_flip_p_value(values, num_permutations=4_000) == pytest.approx(exact, abs=0.04)


def test_p_value_of_nothing_is_uniform_and_of_a_clear_effect_small() -> None:
    generator = np.random.default_rng(0)
    nothing = [sign_flip_p_value(generator.normal(size=30), num_permutations=300) for _ in range(200)]
    assert 2 <= sum(p <= 0.05 for p in nothing) <= 20
    assert sign_flip_p_value(generator.normal(size=200) + 1) < 0.001


def test_comparison_with_itself_finds_no_difference() -> None:
    evaluation = evaluate(GivenScores(random_scores(0)), random_part(0))
    comparison = compare(evaluation, evaluation)
    assert comparison.difference == 0
    assert comparison.interval == (0.0, 0.0)
    assert comparison.p_value == 1


def test_comparison_has_the_sign_of_first_minus_second() -> None:
    part, matrix = random_part(0), random_scores(0)
    queries = part.queries()
    better = matrix.copy()
    start = part.histories.offsets[queries.user]
    row = np.where(queries.position > start, part.histories.item[start], 0)
    better[row, part.histories.item[queries.position]] += 50
    first, second = evaluate(GivenScores(better, name="better"), part), evaluate(GivenScores(matrix), part)
    comparison = compare(first, second, "nll")
    assert (comparison.first, comparison.second) == ("better", "given")
    assert comparison.difference < 0
    assert comparison.interval[1] < 0
    assert comparison.p_value < 0.1  # five users: no pattern of signs can give less than 2 / 32
    assert comparison.num_users == len(queries)


def test_results_of_another_split_part_k_or_target_are_not_compared() -> None:
    part, model = random_part(0), GivenScores(random_scores(0))
    one = evaluate(model, part)
    others = [
        evaluate(model, random_part(1)),
        evaluate(model, part, EvaluationOptions(k=5)),
        evaluate(model, part, EvaluationOptions(targets="first")),
        evaluate(model, part, EvaluationOptions(exclude_seen=False)),
        dataclasses.replace(one, protocol=one.protocol | {"trained_on": "training and validation"}),
        dataclasses.replace(one, protocol=one.protocol | {"part": "valid"}),
    ]
    for other in others:
        with pytest.raises(InputError, match="were not evaluated alike"):
            compare(one, other)


def test_probabilities_of_a_model_without_them_are_not_compared() -> None:
    part, matrix = random_part(0), random_scores(0)
    with_probabilities = evaluate(GivenScores(matrix), part)
    without = evaluate(GivenScores(matrix, gives_probabilities=False), part)
    with pytest.raises(InputError, match="has no metric 'nll'"):
        compare(with_probabilities, without, "nll")
    assert compare(with_probabilities, without).p_value == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_p_value_and_keeps_the_order(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(before <= after <= 1 for before, after in zip(p_values, corrected, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(corrected)[order]) >= 0).all()
    assert min(corrected) == pytest.approx(min(1.0, len(p_values) * min(p_values)))


LENGTHS = np.arange(400) % 30


def with_lower_nll(evaluation: Evaluation, nats: float, name: str) -> Evaluation:
    """The same lists, each target said to be more probable."""
    noise = np.random.default_rng(0).normal(scale=0.1, size=len(evaluation.rank))
    forecasts = replace(evaluation.forecasts, nll=evaluation.forecasts.nll - nats + noise)
    return replace(evaluation, model=name, forecasts=forecasts)


def test_differences_are_model_minus_competitor_for_nll_and_ndcg_of_every_competitor() -> None:
    model = true_forecasts(LENGTHS)
    records = paired_differences(model, [with_lower_nll(model, 0.5, "better"), with_lower_nll(model, -0.5, "worse")])
    assert [(one["compared_with"], one["metric"]) for one in records] == [
        ("better", "nll"), ("better", "ndcg@3"), ("worse", "nll"), ("worse", "ndcg@3"),
    ]  # fmt: skip
    better, same, worse, _ = records
    assert better["difference"] == pytest.approx(0.5, abs=0.03)
    assert worse["difference"] == pytest.approx(-0.5, abs=0.03)
    assert better["interval"][0] < better["difference"] < better["interval"][1]
    assert (same["difference"], same["interval"], same["p_value"]) == (0.0, [0.0, 0.0], 1.0)
    assert better["num_users"] == len(LENGTHS)


def test_differences_are_those_of_the_comparison_of_two_corrected_for_their_number() -> None:
    model = true_forecasts(LENGTHS)
    competitors = [with_lower_nll(model, 0.01, "one"), with_lower_nll(model, 0.5, "two")]
    records = paired_differences(model, competitors)
    alone = [compare(model, competitor, metric) for competitor in competitors for metric in ("nll", "ndcg")]
    assert [one["difference"] for one in records] == [one.difference for one in alone]
    assert [one["p_value"] for one in records] == [one.p_value for one in alone]
    assert [one["p_value_holm"] for one in records] == holm([one.p_value for one in alone])
    assert records[2]["p_value_holm"] > records[2]["p_value"]


def test_metric_without_a_number_for_each_query_is_left_out() -> None:
    model = true_forecasts(LENGTHS)
    never = replace(model.forecasts, nll=np.where(np.arange(len(LENGTHS)) == 7, np.inf, model.forecasts.nll))
    for competitor in (replace(model, forecasts=never), replace(model, forecasts=None)):
        assert [one["metric"] for one in paired_differences(model, [competitor])] == ["ndcg@3"]


def test_results_compare_with_competitors_only_and_print_a_line_for_each() -> None:
    model = true_forecasts(LENGTHS)
    competitor, baseline = with_lower_nll(model, 0.5, "other"), replace(model, model="popular")
    assert Results([model, baseline]).table["comparisons"] == []
    results = Results([model, competitor, baseline], num_competitors=1)
    assert {one["compared_with"] for one in results.table["comparisons"]} == {"other"}
    assert results.table["comparisons"] == paired_differences(model, [competitor])
    (line,) = [line for line in str(results).splitlines() if " minus " in line]
    assert line == difference_sentences(results.table["comparisons"])[0]
    assert line.startswith("true minus 'other', paired by 400 users: nll +0.5")
    assert "; ndcg@3 +0.0000 (+0.0000 to +0.0000), p (Holm) = 1.0000" in line


def test_row_that_is_not_there_is_refused_with_those_that_are() -> None:
    model = true_forecasts(LENGTHS)
    results = Results([replace(model, model="first"), replace(model, model="second")])
    assert results["second"].model == results.row("second")["model"] == "second"
    for look in (results.__getitem__, results.row):
        with pytest.raises(InputError, match=r"no row 'third'\. They have: first, second"):
            look("third")
