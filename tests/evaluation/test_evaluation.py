from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from tests.evaluation.scored import GivenScores
from tests.evaluation.test_evaluate import NUM_ITEMS, random_part, random_scores
from variseq.errors import InputError
from variseq.evaluation.calibration import expected_calibration_error
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.evaluation import Evaluation
from variseq.evaluation.results import evaluation_table, format_table
from variseq.evaluation.significance import mean_interval
from variseq.evaluation.summary import summarize

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
    assert evaluation.forecasts is not None
    summary = summarize(evaluation, num_resamples=50)
    top, hit = evaluation.forecasts.top_probability, evaluation.forecasts.top_is_target
    filled = evaluation.top_item >= 0
    assert summary["ece_top1"] == pytest.approx(expected_calibration_error(top[:, 0], hit[:, 0]))
    assert summary["ece_top10"] == pytest.approx(expected_calibration_error(top[filled], hit[filled]))
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
