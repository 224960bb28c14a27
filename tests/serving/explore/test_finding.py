"""Finding somebody: users by the start of an id, histories of chosen titles, and what is seen of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.serving.explore.conftest import HOSTILE, START
from tests.serving.explore.visit import Visit
from tests.serving.server_process import LocalServer, event

Open = Callable[..., Any]


def test_start_of_an_id_suggests_users(visit: Open, stocked: LocalServer) -> None:
    with visit() as tab:
        tab.type("#user-input", "rea")
        suggested = tab.texts("#user-options li")
        assert suggested == stocked.client.get("/v1/users?prefix=rea").json()["users"] == ["reader", "ready"]
        tab.press("ArrowDown", "ArrowDown", "Enter")
        assert tab.text("#history-facts").startswith("User ready: 5 events")
        assert tab.page.url.endswith("#user=ready")


def test_history_of_a_user_shows_what_the_api_tells(reader: Visit, stocked: LocalServer) -> None:
    told = stocked.client.get("/v1/users/reader").json()["events"]
    assert reader.events() == [one["title"] or one["item_id"] for one in told]
    details = reader.page.eval_on_selector_all("#events .details", "all => all.map(one => one.textContent)")[::-1]
    assert details[2] == "4 Jan 2024, 10:00 UTC · purchase · 7"
    assert details[-1].endswith("Not in the catalog")
    shapes = reader.page.eval_on_selector_all(".event", "all => all.map(one => one.classList.toString())")
    assert sum("kind-1" in names for names in shapes) == 4
    assert sum("unknown" in names for names in shapes) == 1
    assert reader.text("#plot-legend").startswith("view\ncart\npurchase") or "purchase" in reader.text("#plot-legend")


def test_ids_and_titles_are_text_and_never_markup(visit: Open) -> None:
    with visit("#user=reader") as tab:
        assert HOSTILE in tab.events()
        assert tab.page.locator("img").count() == 0
        tab.choose("#item-input", "Toys")
        assert tab.page.locator("img").count() == 0


def test_composed_history_asks_for_the_chosen_titles(visit: Open, stocked: LocalServer) -> None:
    with visit() as tab:
        for text in ("Toys no. 1", "Books no. 2", "Garden no. 7"):
            tab.choose("#item-input", text)
        searched = [
            stocked.client.get("/v1/items", params={"search": text}).json()["items"][0]
            for text in ("Toys no. 1", "Books no. 2", "Garden no. 7")
        ]
        assert tab.events() == [item["title"] for item in searched]
        asked = [body["history"] for body in tab.asked]
        assert [item["item_id"] for item in searched] in asked
        answer = stocked.recommend(history=[item["item_id"] for item in searched])
        assert tab.titles() == [one["title"] for one in answer["recommendations"]]
        assert tab.page.is_disabled("input[name=scale][value=time]")
        assert tab.page.is_checked("input[name=scale][value=order]")


def test_search_without_a_match_says_so(visit: Open) -> None:
    with visit() as tab:
        tab.type("#user-input", "nobody")
        assert tab.text("#user-hint") == "No user id starts with nobody."
        tab.type("#item-input", "no such title")
        assert tab.text("#item-hint") == "Nothing is called no such title."


def test_real_times_and_equal_steps_place_events_differently(visit_new: Open) -> None:
    places = "all => all.map(one => Number(one.getAttribute('x1')))"
    with visit_new("#user=reader") as tab:
        by_time = tab.page.eval_on_selector_all(".stem", places)
        # The last event is 19 days after the one before, all others one day apart.
        assert (by_time[-1] - by_time[-2]) / (by_time[1] - by_time[0]) == pytest.approx(19, rel=0.01)
        assert any("Jan" in words for words in tab.texts(".tick-words"))
        tab.page.check("input[name=scale][value=order]")
        tab.settle()
        by_order = tab.page.eval_on_selector_all(".stem", places)
        assert by_order[-1] - by_order[-2] == pytest.approx(by_order[1] - by_order[0])


def test_thousand_events_fit_are_zoomed_and_zoomed_out(visit_new: Open) -> None:
    with visit_new("#user=longest") as tab:
        assert tab.page.locator("#events li").count() == 1000
        assert tab.page.locator(".stem").count() == 1000
        for _ in range(5):
            tab.click("#zoom-in")
        assert 20 < tab.page.locator(".stem").count() < 300
        tab.page.focus(".timeline-frame")
        tab.press("Home")
        assert tab.page.get_attribute(".timeline-frame", "aria-valuetext").startswith("1 of 1000: ")
        assert tab.page.locator(".event.picked").count() == 1
        tab.click("#zoom-all")
        assert tab.page.locator(".stem").count() == 1000


def test_event_at_the_pointer_is_named_and_a_click_picks_it(visit_new: Open, stocked: LocalServer) -> None:
    title = stocked.client.get("/v1/users/ready").json()["events"][2]["title"]
    with visit_new("#user=ready") as tab:
        stem = tab.page.locator(".stem").nth(2)
        x, y = float(stem.get_attribute("x1") or 0), float(stem.get_attribute("y2") or 0)
        tab.page.hover(".timeline", position={"x": x, "y": y})
        tab.settle()
        assert tab.texts(".timeline .label") == [title]
        tab.page.click(".timeline", position={"x": x, "y": y})
        tab.settle()
        assert tab.text("#picked").startswith(f"3. {title}, 2 Jan 2024, 12:00 UTC, purchase, value 7")


def test_new_event_is_in_the_answer_after_reloading(visit: Open, stocked: LocalServer) -> None:
    with visit("#user=other") as tab:
        assert tab.text("#history-facts").startswith("User other: 1 event,")
        stocked.add(event("other-new", "other", "i33", START + 999))
        tab.click("#reload")
        assert tab.text("#history-facts").startswith("User other: 2 events,")
        assert tab.titles() == [one["title"] for one in stocked.recommend("other")["recommendations"]]
        assert tab.text("#changes") != ""
