from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.reference import attention_over_events
from variseq.model.network import Network, NetworkConfig
from variseq.sequences.histories import Histories

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from variseq.reports.catalog_figures import item_map, on_a_plane
from variseq.reports.model_figures import attention_at_every_event, example_user, kl_by_position
from variseq.reports.style import LIGHT, MissingFigure, ReportFigure, new_figure, plain, png


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
    assert isinstance(absent, MissingFigure)
    assert "at least 8 items" in absent.reason


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
