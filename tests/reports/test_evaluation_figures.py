"""Pictures of groups: what they say and that they can be drawn, also where groups are small."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.evaluation.some_evaluations import true_forecasts
from tests.evaluation.test_groups import LENGTHS, thresholds_for
from variseq.evaluation.results import Results

pytest.importorskip("matplotlib")

from variseq.reports.evaluation_figures import (
    accuracy_by_group,
    coverage_by_history,
    risk_coverage_curve,
    uncertainty_by_history,
)
from variseq.reports.style import DARK, LIGHT, MissingFigure, ReportFigure, png
from variseq.reports.tables import evaluation_grids


@pytest.fixture(scope="module")
def results() -> Results:
    model = true_forecasts(LENGTHS, model="variseq")
    popular = true_forecasts(LENGTHS, seed=1, model="popular")
    knn = true_forecasts(LENGTHS, seed=2, model="item-knn", forecasts=None)
    return Results([model, popular, knn], None, None, thresholds_for(LENGTHS))


@pytest.mark.parametrize("made", [accuracy_by_group, uncertainty_by_history, coverage_by_history, risk_coverage_curve])
def test_picture_can_be_drawn_in_light_and_dark(made, results: Results) -> None:  # type: ignore[no-untyped-def]
    picture = made(results)
    assert isinstance(picture, ReportFigure)
    assert png(picture, LIGHT) != png(picture, DARK)


def test_uncertainty_says_how_it_changes_and_for_how_many_users(results: Results) -> None:
    picture = uncertainty_by_history(results)
    assert picture.title == "Uncertainty falls as history grows"
    assert "the entropy falls by" in picture.finding
    assert "3-5: " in picture.finding
    assert "(200 users)" in picture.finding


def test_title_promises_no_fall_where_there_is_none(results: Results) -> None:
    model = results.evaluations[0]
    assert model.forecasts is not None
    rising = dataclasses.replace(model.forecasts, entropy=10 - model.forecasts.entropy)
    picture = uncertainty_by_history(Results([dataclasses.replace(model, forecasts=rising)]))
    assert picture.title == "Uncertainty as history grows"
    assert "the entropy rises by" in picture.finding


def test_coverage_names_the_groups_that_leave_out_what_was_wanted(results: Results) -> None:
    model = results.evaluations[0]
    assert model.forecasts is not None
    never = dataclasses.replace(model.forecasts, mass_before=np.where(LENGTHS == 4, 0.99, 0.5))
    picture = coverage_by_history(
        Results([dataclasses.replace(model, forecasts=never)], None, None, results.thresholds)
    )
    assert isinstance(picture, ReportFigure)
    assert "3-5 (0.0%)" in picture.finding
    assert "201+ (" not in picture.finding.split("By history length")[0], "5 users say nothing"


def test_without_thresholds_the_picture_is_said_to_be_absent(results: Results) -> None:
    assert isinstance(coverage_by_history(Results(results.evaluations)), MissingFigure)


def test_tables_hold_the_gaps_and_what_is_not_defined_is_a_dash(results: Results) -> None:
    grids = {grid.title: grid for grid in evaluation_grids(results)}
    gaps = dict(grids["Gap from the best to the worst group (named below)"].rows)
    assert gaps["variseq"][0].interval.startswith("worst: ")
    assert [cell.value for cell in gaps["item-knn"]][1:3] == ["–", "–"]
    uncertainty = dict(grids["Uncertainty (entropy in nats)"].rows)
    assert uncertainty["popular"][-1].value == "–"
    assert uncertainty["variseq"][-1].value != "–"
