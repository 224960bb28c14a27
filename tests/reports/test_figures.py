"""Figures of a report: their captions, and that they can be drawn."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.some_evaluations import true_forecasts
from tests.evaluation.test_summary import LENGTHS, thresholds_for
from tests.model.reference import attention_over_events
from variseq.evaluation.next_time import GapForecasts, Gaps, score_gaps
from variseq.evaluation.results import Results
from variseq.model.network import Network, NetworkConfig
from variseq.ranking.next_time import GapMixture
from variseq.sequences.histories import Histories

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from variseq.reports.catalog_figures import item_map, on_a_plane
from variseq.reports.evaluation_figures import (
    accuracy_by_group,
    coverage_by_history,
    risk_coverage_curve,
    uncertainty_by_history,
)
from variseq.reports.gap_figures import gap_calibration, gap_lengths
from variseq.reports.model_figures import attention_at_every_event, example_user, kl_by_position
from variseq.reports.style import DARK, LIGHT, ReportFigure, new_figure, plain, png
from variseq.reports.tables import evaluation_grids


def epoch(number: int, is_best: bool, alarms: list[str]) -> dict[str, object]:
    health = {
        "kl": 2.0,
        "active_share": 0.05,
        "swap_gap": 0.01,
        "kl_per_position": [1.0, 2.0, *[None] * 8],
        "kl_per_dimension": [0.1, 0.2],
    }
    return {"epoch": number, "is_best": is_best, "alarms": alarms, "health": health}


def network(attention: str = "additive", max_seq_len: int = 50) -> Network:
    torch.manual_seed(0)
    config = NetworkConfig(num_items=20, hidden_size=8, latent_dim=4, attention=attention, max_seq_len=max_seq_len)  # type: ignore[arg-type]
    return Network(config).eval()


def test_positions_that_no_history_reaches_are_left_out() -> None:
    assert "1: 2.0 nats" in kl_by_position([epoch(0, True, [])]).alt


@pytest.mark.parametrize("form", ["additive", "dot"])
@pytest.mark.parametrize("max_seq_len", [5, 50])
def test_last_row_of_the_heatmap_is_the_because_of_a_recommendation(form: str, max_seq_len: int) -> None:
    history = Histories.of_items([[3, 1, 4, 1, 5, 9, 2, 6]])
    weights = attention_at_every_event(network(form, max_seq_len), history)
    (expected,) = attention_over_events(network(form, max_seq_len), history)
    num_events = min(8, weights.shape[1])
    np.testing.assert_allclose(weights[-1, -num_events:], expected[-num_events:], atol=1e-6)


def test_attention_of_every_row_sums_to_one_and_never_looks_ahead() -> None:
    weights = attention_at_every_event(network(), Histories.of_items([list(range(12))]))
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    assert (weights[np.triu_indices(len(weights), k=1)] == 0).all()


@pytest.mark.parametrize(("lengths", "user"), [([30, 15, 20], 1), ([1, 2, 30], 2), ([20, 20], 0)])
def test_example_user_is_the_first_that_fits(lengths: list[int], user: int) -> None:
    assert example_user(np.array(lengths)) == user


def test_item_map_is_the_same_each_time() -> None:
    vectors = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
    np.testing.assert_array_equal(on_a_plane(vectors), on_a_plane(vectors))


def test_too_few_items_for_a_map_are_said_to_be_so() -> None:
    absent = item_map(np.eye(3, dtype=np.float32), None, None)
    assert "at least 8 items" in absent.missing


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.text(max_size=40))
def test_any_title_can_be_drawn(title: str) -> None:
    short = plain(title, 12)
    assert len(short) <= 12
    assert "\n" not in short


def test_title_with_formula_signs_is_drawn_as_it_is() -> None:
    def draw(style):  # type: ignore[no-untyped-def]
        figure, (axes,) = new_figure(style, 2.0)
        axes.set_yticks([0], labels=[plain("$\\frac{1$ 銀 $", 20)])
        return figure

    assert png(ReportFigure("p", "t", "r", "s", "a", draw), LIGHT).startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def results() -> Results:
    model = true_forecasts(LENGTHS, model="variseq")
    popular = true_forecasts(LENGTHS, seed=1, model="popular")
    knn = true_forecasts(LENGTHS, seed=2, model="item-knn", forecasts=None)
    return Results([model, popular, knn], None, None, thresholds_for(LENGTHS))


@pytest.mark.slow
@pytest.mark.parametrize("made", [accuracy_by_group, uncertainty_by_history, coverage_by_history, risk_coverage_curve])
def test_picture_can_be_drawn_in_light_and_dark(made, results: Results) -> None:  # type: ignore[no-untyped-def]
    picture = made(results)
    light = png(picture, LIGHT)
    assert light == png(picture, LIGHT)
    assert light != png(picture, DARK)


def test_uncertainty_says_how_it_changes_and_for_how_many_users(results: Results) -> None:
    picture = uncertainty_by_history(results)
    assert picture.title == "Uncertainty falls as history grows"
    assert "the entropy falls by" in picture.finding
    assert "3-5: " in picture.finding
    assert "(200 users)" in picture.finding


def test_title_promises_no_fall_where_there_is_none(results: Results) -> None:
    model = results.evaluations[0]
    rising = dataclasses.replace(model.forecasts, entropy=10 - model.forecasts.entropy)
    picture = uncertainty_by_history(Results([dataclasses.replace(model, forecasts=rising)]))
    assert picture.title == "Uncertainty as history grows"
    assert "the entropy rises by" in picture.finding


def test_coverage_names_the_groups_that_leave_out_what_was_wanted(results: Results) -> None:
    model = results.evaluations[0]
    never = dataclasses.replace(model.forecasts, mass_before=np.where(LENGTHS == 4, 0.99, 0.5))
    picture = coverage_by_history(
        Results([dataclasses.replace(model, forecasts=never)], None, None, results.thresholds)
    )
    assert "3-5 (0.0%)" in picture.finding
    assert "201+ (" not in picture.finding.split("By history length")[0], "5 users say nothing"


@pytest.fixture(scope="module")
def gaps() -> GapForecasts:
    """Gaps with a median of an hour, a fifth of them open after four hours; by the truth, and by a late forecast."""
    drawn = np.random.default_rng(0).uniform(size=2000)
    lower = np.floor(3600 * drawn / (1 - drawn))
    is_open = lower >= 14_400
    upper, nothing = np.where(is_open, np.inf, lower + 1), np.zeros(2000)
    seen = Gaps(np.arange(2000), np.minimum(lower, 14_400), upper, nothing, np.full(2000, 14_401.0))
    edges = np.array([0.0, 60, 3600, 7200, 86_400, np.inf])
    scores, expected = {}, {}
    for name, median in (("variseq", 3600.0), ("own-median-gap", 36_000.0)):
        rows = np.zeros((2000, 1))
        forecast = GapMixture(rows, np.log(median) + rows, rows).log_survival
        scores[name] = score_gaps(forecast, seen)
        expected[name] = -np.diff(np.exp(forecast(np.minimum(edges, 14_401)[None].repeat(2000, axis=0)))).mean(axis=0)
    ended = np.histogram(lower[~is_open], edges)[0] / 2000
    return GapForecasts(scores, is_open, np.ones(2000, np.int64), 1.0, edges, ended, expected)


@pytest.mark.slow
@pytest.mark.parametrize("made", [gap_calibration, gap_lengths])
def test_picture_of_gaps_can_be_drawn(made, gaps: GapForecasts) -> None:  # type: ignore[no-untyped-def]
    assert png(made(gaps), LIGHT) != png(made(gaps), DARK)


def test_gap_pictures_have_the_shares_that_came_and_that_were_forecast(gaps: GapForecasts) -> None:
    shares = re.findall(r"variseq (\d+\.\d)% and (\d+\.\d)%", gap_calibration(gaps).finding)
    np.testing.assert_allclose(np.array(shares, float), [[50, 90]], atol=3)
    named = dict(re.findall(r"(below 1 min|1 to 2 h|still open) (\d+\.\d% and \d+\.\d)%", gap_lengths(gaps).alt))
    of_open = [float(share) for share in named["still open"].split("% and ")]
    np.testing.assert_allclose(of_open, [20, 20], atol=3)
    assert len(named) == 3


def test_without_thresholds_the_picture_is_said_to_be_absent(results: Results) -> None:
    assert "no thresholds" in coverage_by_history(Results(results.evaluations)).missing


def test_tables_hold_the_gaps_and_what_is_not_defined_is_a_dash(results: Results) -> None:
    grids = {grid.title: grid for grid in evaluation_grids(results)}
    gaps = dict(grids["Gap from the best to the worst group (named below)"].rows)
    assert gaps["variseq"][0].interval.startswith("worst: ")
    assert [cell.value for cell in gaps["item-knn"]][1:3] == ["–", "–"]
    uncertainty = dict(grids["Uncertainty (entropy in nats)"].rows)
    assert uncertainty["popular"][-1].value == "–"
    assert uncertainty["variseq"][-1].value != "–"
