from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.evaluation.some_evaluations import true_forecasts
from variseq.errors import InputError
from variseq.evaluation.evaluation import Evaluation
from variseq.evaluation.results import Results, difference_sentences
from variseq.evaluation.significance import compare, holm, paired_differences

LENGTHS = np.arange(400) % 30


def surer(evaluation: Evaluation, nats: float, name: str) -> Evaluation:
    """The same lists, each target said to be more probable."""
    assert evaluation.forecasts is not None
    noise = np.random.default_rng(0).normal(scale=0.1, size=len(evaluation.rank))
    forecasts = replace(evaluation.forecasts, nll=evaluation.forecasts.nll - nats + noise)
    return replace(evaluation, model=name, forecasts=forecasts)


def test_differences_are_model_minus_rival_for_nll_and_ndcg_of_every_rival() -> None:
    model = true_forecasts(LENGTHS)
    records = paired_differences(model, [surer(model, 0.5, "surer"), surer(model, -0.5, "less sure")])
    assert [(one["compared_with"], one["metric"]) for one in records] == [
        ("surer", "nll"), ("surer", "ndcg@3"), ("less sure", "nll"), ("less sure", "ndcg@3"),
    ]  # fmt: skip
    better, same, worse, _ = records
    assert better["difference"] == pytest.approx(0.5, abs=0.03)
    assert worse["difference"] == pytest.approx(-0.5, abs=0.03)
    assert better["interval"][0] < better["difference"] < better["interval"][1]
    assert (same["difference"], same["interval"], same["p_value"]) == (0.0, [0.0, 0.0], 1.0)
    assert better["num_users"] == len(LENGTHS)


def test_differences_are_those_of_the_comparison_of_two_corrected_for_their_number() -> None:
    model = true_forecasts(LENGTHS)
    rivals = [surer(model, 0.01, "one"), surer(model, 0.5, "two")]
    records = paired_differences(model, rivals)
    alone = [compare(model, rival, metric) for rival in rivals for metric in ("nll", "ndcg")]
    assert [one["difference"] for one in records] == [one.difference for one in alone]
    assert [one["p_value"] for one in records] == [one.p_value for one in alone]
    assert [one["p_value_holm"] for one in records] == holm([one.p_value for one in alone])
    assert records[2]["p_value_holm"] > records[2]["p_value"]


def test_metric_without_a_number_for_each_query_is_left_out() -> None:
    model = true_forecasts(LENGTHS)
    assert model.forecasts is not None
    never = replace(model.forecasts, nll=np.where(np.arange(len(LENGTHS)) == 7, np.inf, model.forecasts.nll))
    for rival in (replace(model, forecasts=never), replace(model, forecasts=None)):
        assert [one["metric"] for one in paired_differences(model, [rival])] == ["ndcg@3"]


def test_results_compare_with_rivals_only_and_print_a_line_for_each() -> None:
    model = true_forecasts(LENGTHS)
    rival, baseline = surer(model, 0.5, "twin"), replace(model, model="popular")
    assert Results([model, baseline]).table["comparisons"] == []
    results = Results([model, rival, baseline], num_competitors=1)
    assert {one["compared_with"] for one in results.table["comparisons"]} == {"twin"}
    assert results.table["comparisons"] == paired_differences(model, [rival])
    (line,) = [line for line in str(results).splitlines() if " minus " in line]
    assert line == difference_sentences(results.table["comparisons"])[0]
    assert line.startswith("true minus 'twin', paired by 400 users: nll +0.5")
    assert "; ndcg@3 +0.0000 (+0.0000 to +0.0000), p (Holm) = 1.0000" in line


def test_row_that_is_not_there_is_refused_with_those_that_are() -> None:
    model = true_forecasts(LENGTHS)
    results = Results([replace(model, model="first"), replace(model, model="second")])
    assert results["second"].model == results.row("second")["model"] == "second"
    for look in (results.__getitem__, results.row):
        with pytest.raises(InputError, match=r"no row 'third'\. They have: first, second"):
            look("third")
