"""A run compared with its deterministic ablation on the same queries, with MC dropout and without."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import BASELINES, small_model
from variseq.errors import InputError, PosteriorCollapseWarning
from variseq.estimator import VariationalAttention, compare, load
from variseq.evaluation.results import Results
from variseq.events.simulate import Simulation
from variseq.log import Log, LogPart, read
from variseq.ranking.calibration import NUM_SAMPLES

Parts = tuple[LogPart, LogPart, LogPart]
pytestmark = pytest.mark.slow
ROWS = ["variseq", "variseq, dropout", "ablation", "ablation, dropout", *BASELINES]


def fit(parts: Parts, folder: Path | None = None, **training: Any) -> VariationalAttention:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PosteriorCollapseWarning)
        return small_model(max_epochs=3, **training).fit(parts[0], parts[1], folder, verbose=0)


@pytest.fixture(scope="module")
def variational(shop_parts: Parts) -> VariationalAttention:
    """Has not learned from the validation events."""
    return fit(shop_parts, refit_fraction=0.0)


@pytest.fixture(scope="module")
def ablation(shop_parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> VariationalAttention:
    folder = tmp_path_factory.mktemp("runs") / "ablation"
    fit(shop_parts, folder, refit_fraction=0.0, deterministic_fraction=1.0)
    return load(folder)


@pytest.fixture(scope="module")
def results(variational: VariationalAttention, ablation: VariationalAttention) -> Results:
    return variational.evaluate(k=5, compare_with={"ablation": ablation}, mc_dropout=True)


def test_competitors_are_rows_between_the_model_and_the_baselines_with_every_number(results: Results) -> None:
    rows = results.table["rows"]
    assert [row["model"] for row in rows] == ROWS
    for row in rows[:4]:
        assert all(math.isfinite(row[name]) for name in ("nll", "brier", "ece_top1", "ece_top5", "ndcg@5"))
        for kind in ("by_history_length", "by_item_popularity"):
            assert [one["group"] for one in row[kind]] == [one["group"] for one in rows[0][kind]]
            assert all(one["nll"] is not None for one in row[kind] if one["num_queries"])


def test_competitor_is_evaluated_as_if_alone_with_its_own_calibration(
    results: Results, ablation: VariationalAttention
) -> None:
    alone = ablation.evaluate(k=5)["variseq"]
    np.testing.assert_array_equal(results["ablation"].metric("nll"), alone.metric("nll"))
    np.testing.assert_array_equal(results["ablation"].rank, alone.rank)
    assert ablation.evaluate(k=5).evaluations[0].model == "variseq", "a comparison leaves no name behind"


def test_every_row_has_the_same_queries(results: Results) -> None:
    for other in results.evaluations[1:]:
        np.testing.assert_array_equal(other.user, results["variseq"].user)
        np.testing.assert_array_equal(other.target, results["variseq"].target)
        assert other.protocol == results["variseq"].protocol


def test_differences_are_paired_for_every_competitor_and_no_baseline(results: Results) -> None:
    found = results.table["comparisons"]
    assert [one["compared_with"] for one in found[::2]] == ROWS[1:4]
    assert {one["metric"] for one in found} == {"nll", "ndcg@5"}
    for one in found:
        rows = [results.row(one[role])[one["metric"]] for role in ("model", "compared_with")]
        assert one["difference"] == pytest.approx(rows[0] - rows[1], abs=1e-9)
        assert one["p_value"] <= one["p_value_holm"] <= 1


def test_dropout_row_differs_and_comes_again(results: Results, variational: VariationalAttention) -> None:
    plain, dropped = results["ablation"].metric("nll"), results["ablation, dropout"].metric("nll")
    assert not np.allclose(plain, dropped)
    again = variational.evaluate(k=5, mc_dropout=True)
    assert [one.model for one in again.evaluations] == [*ROWS[:2], *BASELINES]
    np.testing.assert_array_equal(again["variseq, dropout"].metric("nll"), results["variseq, dropout"].metric("nll"))
    assert variational._engine().model.calibration.num_samples == NUM_SAMPLES


def test_dropout_is_refused_where_validation_was_trained_on(
    fitted: VariationalAttention, ablation: VariationalAttention
) -> None:
    with pytest.raises(InputError, match=r"refitted with the validation events, so MC dropout .*'refit_fraction': 0"):
        fitted.evaluate(mc_dropout=True)
    with pytest.raises(InputError, match="differ in: whether a refit used the validation events"):
        fitted.evaluate(compare_with={"ablation": ablation})


@pytest.mark.parametrize("name", ["variseq", "popular"])
def test_name_that_is_taken_is_refused(
    variational: VariationalAttention, ablation: VariationalAttention, name: str
) -> None:
    with pytest.raises(InputError, match=f"Two rows would have the name '{name}'"):
        variational.evaluate(compare_with={name: ablation})


def test_run_of_another_log_or_split_is_refused_with_what_differs(
    variational: VariationalAttention, shop: Simulation, shop_log: Log
) -> None:
    by_time = fit(shop_log.split("time", test=0.2, valid=0.2), refit_fraction=0.0)
    with pytest.raises(InputError, match=r"differ in: where validation and test begin\."):
        variational.evaluate(compare_with={"by time": by_time})
    frame = shop.events().to_pandas()
    without_one = read(frame[frame["item_id"] != frame["item_id"].iloc[0]].reset_index(drop=True))
    fewer = fit(without_one.split("leave-one-out"), refit_fraction=0.0)
    with pytest.raises(InputError, match=r"'variseq' and 'fewer' cannot be compared.*differ in: items, "):
        variational.evaluate(compare_with={"fewer": fewer})


def test_model_that_cannot_be_evaluated_is_refused(variational: VariationalAttention, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not fitted"):
        variational.evaluate(compare_with={"new": small_model()})
    for given in ({"ablation": "runs/ablation"}, [small_model()]):
        with pytest.raises(InputError, match="compare_with needs models by name"):
            variational.evaluate(compare_with=given)  # type: ignore[arg-type]
    variational.save(tmp_path / "bare", with_histories=False)
    with pytest.raises(InputError, match="'bare' was saved without histories"):
        variational.evaluate(compare_with={"bare": load(tmp_path / "bare")})


def test_compare_gives_the_difference_of_the_evaluation(
    variational: VariationalAttention, ablation: VariationalAttention, results: Results, tmp_path: Path
) -> None:
    for name, model in (("variational", variational), ("ablation", ablation)):
        model.save(tmp_path / name)
    found = compare(tmp_path / "variational", tmp_path / "ablation", "nll", 5)
    (beside,) = [
        one for one in results.table["comparisons"] if (one["compared_with"], one["metric"]) == ("ablation", "nll")
    ]
    assert (found.difference, found.p_value) == pytest.approx((beside["difference"], beside["p_value"]))
