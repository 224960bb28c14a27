"""What changes when an event is struck out or an item added, beside lists that are compared here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.serving.explore.visit import number, titled
from tests.serving.server_process import LocalServer

Open = Callable[..., Any]


def events_of(stocked: LocalServer, user_id: str) -> list[dict[str, Any]]:
    """What somebody did, as the page asks of it: with times, kinds and values."""
    events = stocked.client.get(f"/v1/users/{user_id}").json()["events"]
    return [{name: one[name] for name in ("item_id", "timestamp", "event", "value")} for one in events]


def supposed(item_id: str, after: dict[str, Any]) -> dict[str, Any]:
    """An item that is put in has the time of the event before it."""
    return {"item_id": item_id, "timestamp": after["timestamp"], "event": None, "value": None}


def moves(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The badge of every row, worked out from two answers."""
    ranks = {one["item_id"]: one["rank"] for one in before["recommendations"]}
    badges = []
    for one in after["recommendations"]:
        places = None if one["item_id"] not in ranks else ranks[one["item_id"]] - one["rank"]
        badges.append("new" if places is None else f"▲ {places}" if places > 0 else f"▼ {-places}" if places else "=")
    return badges


def gone(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [title for title in titled(before) if title not in titled(after)]


def test_struck_event_changes_the_list_and_moves_are_shown(visit: Open, stocked: LocalServer) -> None:
    events = events_of(stocked, "ready")
    before, after = stocked.recommend(history=events), stocked.recommend(history=events[:-1])
    with visit("#user=ready") as tab:
        tab.click("#events li:first-child .strike")
        assert tab.titles() == titled(after)
        assert tab.texts("#recommendations .move") == moves(before, after)
        assert tab.texts("#gone .title") == gone(before, after)
        assert "1 event struck out" in tab.text("#what-if-text")
        assert tab.page.locator("#events li.struck").count() == tab.page.locator(".event.struck").count() == 1
        told = tab.text("#changes")
        assert told == "The same 10 items in the same order." or any(f" {way}" in told for way in ("new", "up", "gone"))


def test_probability_changes_are_those_of_two_answers(visit: Open, stocked: LocalServer) -> None:
    events = events_of(stocked, "ready")
    before, after = stocked.recommend(history=events), stocked.recommend(history=events[:-1])
    old = {one["item_id"]: one["probability"] for one in before["recommendations"]}
    expected = [
        100 * (one["probability"] - old[one["item_id"]]) for one in after["recommendations"] if one["item_id"] in old
    ]
    with visit("#user=ready") as tab:
        tab.click("#events li:first-child .strike")
        assert [number(words) for words in tab.texts("#recommendations .difference")] == pytest.approx(
            expected, rel=0.06, abs=0.006
        )
        assert tab.page.locator("#recommendations .before").count() == len(expected)


def test_event_is_put_back_and_the_real_history_returns(visit: Open, stocked: LocalServer) -> None:
    real = titled(stocked.recommend("ready"))
    with visit("#user=ready") as tab:
        tab.click("#events li:first-child .strike")
        tab.click("#events li:first-child .strike")
        assert tab.asked[-1].get("user_id", tab.asked[-2].get("user_id")) == "ready"
        assert not tab.page.is_visible("#what-if")
        assert tab.titles() == real
        tab.click("#events li:first-child .strike")
        tab.click("#undo-edits")
        assert tab.titles() == real
        assert tab.page.url.endswith("#user=ready")
        assert tab.text("#changes") == ""


def test_recommendation_is_taken_next(visit: Open, stocked: LocalServer) -> None:
    events = events_of(stocked, "ready")
    before = stocked.recommend(history=events)
    with visit("#user=ready") as tab:
        taken = stocked.recommend("ready")["recommendations"][1]
        tab.click("#recommendations li:nth-child(2) .add")
        after = stocked.recommend(history=[*events, supposed(taken["item_id"], events[-1])])
        assert tab.events()[-1] == taken["title"]
        assert tab.titles() == titled(after)
        assert tab.texts("#recommendations .move") == moves(before, after)


def test_item_goes_after_the_picked_event(visit: Open, stocked: LocalServer) -> None:
    events = events_of(stocked, "ready")
    with visit("#user=ready") as tab:
        tab.click("#events li:nth-child(4) .title")  # the second oldest of five
        tab.click("#picked >> text=Add an item after this")
        assert tab.page.evaluate("document.activeElement.id") == "item-input"
        tab.choose("#item-input", "Books no. 2")
        expected = [*events[:2], supposed("i02", events[1]), *events[2:]]
        assert any(body.get("history") == expected for body in tab.asked)
        assert tab.titles() == titled(stocked.recommend(history=expected))
        assert tab.page.locator(".event.supposed").count() == 1
        tab.click("#events li:nth-child(4) >> text=Remove")
        assert len(tab.events()) == 5


def test_list_is_compared_with_the_one_before_or_the_real_one(visit: Open, stocked: LocalServer) -> None:
    events = events_of(stocked, "ready")
    real, once, twice = (stocked.recommend(history=events[:end]) for end in (5, 4, 3))
    with visit("#user=ready") as tab:
        tab.click("#events li:nth-child(1) .strike")
        tab.click("#events li:nth-child(2) .strike")
        assert tab.texts("#recommendations .move") == moves(once, twice)
        tab.set("#against", "real")
        assert tab.texts("#recommendations .move") == moves(real, twice)


def test_keyboard_alone_strikes_an_event_out(visit: Open, stocked: LocalServer) -> None:
    events = events_of(stocked, "ready")
    with visit("#user=ready") as tab:
        tab.page.focus(".timeline-frame")
        tab.press("ArrowLeft", "ArrowLeft", "Enter")
        assert tab.titles() == titled(stocked.recommend(history=[*events[:3], *events[4:]]))
        tab.page.focus("#events .strike[tabindex='0']")
        tab.press("ArrowDown", "Enter")
        assert tab.titles() == titled(stocked.recommend(history=[*events[:2], *events[4:]]))
        assert tab.page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("Put back event 3, ")


def test_all_events_struck_out_leave_a_fallback_that_says_so(visit: Open, stocked: LocalServer) -> None:
    with visit("#history=i01") as tab:
        tab.click("#events li .strike")
        answer = stocked.recommend(history=[])
        assert tab.titles() == titled(answer)
        assert answer["fallback"].casefold() in tab.text("#answer-message").casefold()


def test_latest_question_wins(visit: Open, stocked: LocalServer) -> None:
    events = events_of(stocked, "longest")
    with visit("#user=longest") as tab:
        tab.page.evaluate(
            "for (const one of [...document.querySelectorAll('#events .strike')].slice(0, 6)) one.click()"
        )
        tab.settle()
        assert tab.titles() == titled(stocked.recommend(history=events[:-6]))
        assert "6 events struck out" in tab.text("#what-if-text")
