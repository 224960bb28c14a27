"""Recommendations as the page shows them, beside what the API itself answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from tests.serving.explore.visit import PAUSE_MILLISECONDS, Visit, number, titled
from tests.serving.server_process import LocalServer

Open = Callable[..., Any]
CLOSE = 0.01
"""Numbers are shown with two or three digits."""


def test_rows_are_those_of_the_api(reader: Visit, stocked: LocalServer) -> None:
    answer = stocked.recommend("reader")
    assert reader.titles() == titled(answer)
    assert reader.texts("#recommendations .rank") == [str(one["rank"]) for one in answer["recommendations"]]
    shown = reader.page.eval_on_selector_all(
        "#recommendations .probability strong", "all => all.map(one => one.textContent)"
    )
    intervals = reader.texts("#recommendations .interval")
    for words, interval, one in zip(shown, intervals, answer["recommendations"], strict=True):
        assert number(words) / 100 == pytest.approx(one["probability"], rel=CLOSE)
        low, high = map(number, interval.split("–"))
        assert (low / 100, high / 100) == pytest.approx((one["probability_low"], one["probability_high"]), rel=CLOSE)
    reasons = [f"because of {', '.join(one['reasons'])}" for one in answer["recommendations"] if one["reasons"]]
    told = reader.page.eval_on_selector_all("#recommendations .because", "all => all.map(one => one.textContent)")
    assert told == reasons
    assert answer["model_version"] in reader.text("#model-tag")


def test_bars_and_bands_are_to_one_scale(reader: Visit, stocked: LocalServer) -> None:
    listed = stocked.recommend("reader")["recommendations"]
    most = max(one["probability_high"] for one in listed)
    size = "all => all.map(one => [parseFloat(one.style.left), parseFloat(one.style.width)])"
    bars = reader.page.eval_on_selector_all("#recommendations .filled", size)
    bands = reader.page.eval_on_selector_all("#recommendations .band", size)
    assert [width for _, width in bars] == pytest.approx([100 * one["probability"] / most for one in listed], rel=1e-3)
    assert [left for left, _ in bands] == pytest.approx(
        [100 * one["probability_low"] / most for one in listed], rel=1e-3
    )
    assert [sum(band) for band in bands] == pytest.approx(
        [100 * one["probability_high"] / most for one in listed], rel=1e-3
    )


def test_uncertainty_is_told_in_words_and_in_parts(reader: Visit, stocked: LocalServer) -> None:
    uncertainty = stocked.recommend("reader")["uncertainty"]
    assert reader.text("#uncertainty .sentence").startswith("As uncertain as a choice among ")
    assert " of 40." in reader.text("#uncertainty .sentence")
    likely = number(reader.text("#uncertainty strong"))
    assert likely == pytest.approx(math.exp(uncertainty["total"]), rel=0.05)
    told = [number(words) for words in reader.page.locator("#uncertainty dd").all_inner_texts()]
    assert told == pytest.approx([uncertainty[name] for name in ("total", "aleatoric", "epistemic")], rel=CLOSE)


def test_attention_is_the_strength_of_each_event(reader: Visit, stocked: LocalServer) -> None:
    weights = stocked.recommend("reader", attention=True)["attention"]
    assert len(weights) == 12  # one of the 13 events is not in the catalog
    shares = reader.page.eval_on_selector_all("#events .share", "all => all.map(one => one.textContent)")[::-1]
    assert shares[-1] == ""
    assert [number(share) / 100 for share in shares[:-1]] == pytest.approx(weights, rel=CLOSE, abs=1e-5)
    tops = reader.page.eval_on_selector_all(".stem", "all => all.map(one => Number(one.getAttribute('y2')))")[:12]
    assert tops.index(min(tops)) == weights.index(max(weights))
    if sum(weights) < 0.99:
        start = reader.text("#attended").rsplit(": ", 1)[1]
        assert number(start) / 100 == pytest.approx(1 - sum(weights), rel=CLOSE)
    heights = [max(tops) - top for top in tops]
    expected = [(weight - min(weights)) / (max(weights) - min(weights)) * max(heights) for weight in weights]
    assert heights == pytest.approx(expected, abs=0.5)


@pytest.mark.parametrize("way", ["hover", "focus"])
def test_recommendation_marks_its_reasons_in_the_history(reader: Visit, stocked: LocalServer, way: str) -> None:
    listed = stocked.recommend("reader")["recommendations"]
    place = next(place for place, one in enumerate(listed) if one["reasons"])
    row = reader.page.locator("#recommendations li").nth(place)
    row.hover() if way == "hover" else row.focus()
    reader.settle()
    marked = reader.page.eval_on_selector_all("#events .marked .title", "all => all.map(one => one.textContent)")
    assert set(marked) == set(listed[place]["reasons"])
    assert reader.page.locator(".event.marked").count() == len(marked)
    assert set(reader.texts(".timeline .label")) == set(marked)
    reader.page.mouse.move(5, 5)
    reader.page.evaluate("document.activeElement.blur()")
    reader.settle()
    assert reader.page.locator(".marked").count() == 0


def test_link_with_settings_asks_for_them(visit: Open, stocked: LocalServer) -> None:
    wishes: dict[str, dict[str, Any]] = {
        "k=4": {"k": 4},
        "category=Books": {"categories": ["Books"]},
        "exclude_seen=false": {"exclude_seen": False},
        "exclude_seen=true": {"exclude_seen": True},
        "diversity=0.8": {"diversity": 0.8},
        "strategy=thompson&seed=3": {"strategy": "thompson", "seed": 3},
        "strategy=softmax&seed=4&diversity=0.8": {"strategy": "softmax", "seed": 4},
        "coverage=0.5": {"conformal_level": 0.5},
        "at=2026-11-24T15:00Z": {"at": "2026-11-24T15:00:00Z"},
    }
    with visit() as tab:
        for link, wish in wishes.items():
            tab.go(f"#user=reader&{link}")
            assert tab.titles() == titled(stocked.recommend("reader", **wish)), link


def test_controls_change_the_list_and_the_link(visit: Open, stocked: LocalServer) -> None:
    with visit("#user=reader") as tab:
        tab.page.click("#settings summary")
        tab.set("#set-k", "3")
        tab.set("#set-category", "Toys")
        tab.set("#set-exclude_seen", "false")
        tab.page.focus("#set-diversity")
        tab.press("ArrowRight", "ArrowRight")
        tab.settle(PAUSE_MILLISECONDS)
        wish = {"k": 3, "categories": ["Toys"], "exclude_seen": False, "diversity": 0.1}
        assert tab.titles() == titled(stocked.recommend("reader", **wish))
        assert tab.page.url.endswith("#user=reader&k=3&category=Toys&exclude_seen=false&diversity=0.1")
        assert tab.text("#settings-words") == "3 items, in Toys, history: may come again, diversity 0.1"
        tab.click("text=Usual settings")
        assert tab.titles() == titled(stocked.recommend("reader"))
        assert tab.page.url.endswith("#user=reader")


def test_draws_are_made_again_with_another_seed(visit: Open, stocked: LocalServer) -> None:
    with visit("#user=reader") as tab:
        tab.page.click("#settings summary")
        assert not tab.page.is_visible("#set-seed")
        tab.set("#set-strategy", "thompson")
        assert tab.titles() == titled(stocked.recommend("reader", strategy="thompson", seed=0))
        tab.click("text=Draw again")
        assert tab.titles() == titled(stocked.recommend("reader", strategy="thompson", seed=1))


def test_set_of_a_coverage_puts_other_controls_out_of_use(visit: Open, stocked: LocalServer) -> None:
    with visit("#user=reader") as tab:
        tab.page.click("#settings summary")
        tab.set("#set-coverage", "0.8")
        assert tab.titles() == titled(stocked.recommend("reader", conformal_level=0.8))
        assert all(tab.page.is_disabled(f"#set-{name}") for name in ("k", "diversity", "strategy"))


def test_more_are_shown_without_repeats(visit: Open, stocked: LocalServer) -> None:
    first = stocked.recommend("reader", k=5)
    second = stocked.recommend("reader", k=5, page=first["next_page"])
    with visit("#user=reader&k=5") as tab:
        tab.click("#more")
        assert tab.titles() == titled(first) + titled(second)
        assert len(set(tab.titles())) == 10
