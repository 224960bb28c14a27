"""What the page says when there is nothing, not yet something, or something went wrong; links; keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.serving.conftest import LARGE
from tests.serving.explore.visit import Visit, titled
from tests.serving.server_process import LocalServer, serving_here
from variseq.serving.keys import create_key

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

Open = Callable[..., Any]


def test_first_sight_says_how_to_begin_and_offers_users(visit: Open, stocked: LocalServer) -> None:
    with visit() as tab:
        assert tab.text(".welcome").startswith("Find a user by the start of the id")
        users = stocked.client.get("/v1/users?limit=6").json()["users"]
        tab.settle()
        assert tab.texts(".welcome .picked-buttons button") == [f"User {user}" for user in users]
        assert not tab.page.is_visible("#answer-body")
        assert tab.asked == []
        tab.click(".welcome .picked-buttons button >> nth=0")
        assert tab.titles() == titled(stocked.recommend(users[0]))


def test_empty_history_is_told_as_the_fallback_that_it_is(visit: Open, stocked: LocalServer) -> None:
    with visit() as tab:
        tab.click("text=Start with an empty history")
        answer = stocked.recommend(history=[])
        assert tab.titles() == titled(answer)
        assert tab.text("#answer-message").casefold().rstrip(".") == answer["fallback"].casefold()


def test_unknown_user_is_told_in_the_words_of_the_api(visit: Open, stocked: LocalServer) -> None:
    message = stocked.client.get("/v1/users/nobody").json()["error"]["message"]
    with visit("#user=nobody", expected=(404,)) as tab:
        assert tab.text("#history-message [role=alert]") == message
        assert tab.text("#history-facts") == "User nobody"
        assert tab.page.is_visible(".welcome")


def test_refused_settings_are_told_in_the_words_of_the_api(visit: Open, stocked: LocalServer) -> None:
    refused = stocked.client.post("/v1/recommend", json={"user_id": "reader", "categories": ["Nothing"]})
    with visit("#user=reader&category=Nothing", expected=(400,)) as tab:
        assert tab.text("#answer-message [role=alert]") == refused.json()["error"]["message"]
        assert not tab.page.is_visible("#answer-body")
        tab.page.click("#settings summary")
        tab.click("text=Usual settings")
        assert tab.titles() == titled(stocked.recommend("reader"))


def test_lost_server_is_told_and_tried_again(visit: Open, stocked: LocalServer) -> None:
    with visit("#user=reader") as tab:
        tab.context.set_offline(True)
        tab.click("#events li:nth-child(2) .strike")
        assert tab.text("#answer-message [role=alert]").startswith("The server does not answer.")
        tab.context.set_offline(False)
        tab.wrong.clear()
        tab.click("button >> text=Try again")
        assert tab.page.is_visible("#answer-body")
        assert "1 event struck out" in tab.text("#what-if-text")


def test_slow_answer_shows_that_it_is_waited_for(visit_new: Open) -> None:
    with visit_new() as tab:
        tab.page.route("**/v1/recommend", lambda route: (tab.page.wait_for_timeout(450), route.continue_()))
        tab.page.evaluate("location.hash = '#user=reader'")
        tab.page.wait_for_selector("#answer-message .placeholder")
        tab.settle()
        assert tab.page.locator(".placeholder").count() == 0
        assert len(tab.titles()) == 10


def test_unknown_items_of_a_link_are_kept_and_told(visit: Open) -> None:
    with visit("#history=i01,gone%2C%25,i02") as tab:
        assert tab.events() == ["Garden no. 7", "gone,%", "Books no. 2"]
        assert "1 event not in the catalog left out" in tab.text("#answer-facts")
        assert tab.page.locator("#events li.unknown").count() == 1


def test_link_restores_what_a_colleague_saw(visit: Open, visit_new: Open) -> None:
    with visit("#user=ready") as tab:
        tab.click("#events li:nth-child(2) .strike")
        tab.click("#events li:nth-child(4) .title")
        tab.click("#picked >> text=Add an item after this")
        tab.choose("#item-input", "Books no. 2")
        tab.page.click("#settings summary")
        tab.set("#set-k", "6")
        link, seen, told = tab.page.url.split("/explore")[1], tab.titles(), tab.text("#what-if-text")
        events = tab.events()
    assert link == "#user=ready&without=4&added=2:i02&of=5&k=6"
    with visit_new(link) as other:
        assert other.titles() == seen
        assert other.events() == events
        assert other.text("#what-if-text") == told
        assert other.page.input_value("#set-k") == "6"


def test_edits_of_a_link_are_left_out_when_the_history_has_grown(visit: Open, stocked: LocalServer) -> None:
    with visit("#user=ready&without=4&of=4") as tab:
        assert "has grown since this link was made" in tab.text("#history-message")
        assert tab.titles() == titled(stocked.recommend("ready"))


def test_damaged_link_breaks_nothing(visit: Open) -> None:
    with visit("#user=", expected=(400, 404)) as tab:
        for link in ("#history=", "#k=x&diversity=9&strategy=no&history=i01", "#%%%", "#user=ready&added=x:y&of=5"):
            tab.go(link)
            assert tab.page.is_visible("#history-heading")
            assert tab.page.is_visible("#answer-message > *") or tab.page.is_visible("#answer-body"), link


def test_back_returns_to_the_user_before(visit: Open) -> None:
    with visit("#user=ready") as tab:
        tab.choose("#user-input", "longest")
        assert tab.text("#history-facts").startswith("User longest: 1,000 events")
        tab.page.go_back()
        tab.settle()
        assert tab.text("#history-facts").startswith("User ready: 5 events")


def test_ids_beyond_the_numbers_of_javascript_stay_exact(context: BrowserContext, numbered: LocalServer) -> None:
    user, item = str(LARGE + 7), str(LARGE + 5)
    with Visit(context, numbered.address, f"#user={user}") as tab:
        assert tab.text("#history-facts").startswith(f"User {user}:")
        expected = [one["title"] for one in numbered.recommend(LARGE + 7, k=10)["recommendations"]]
        assert tab.titles() == expected
        asked = [body["user_id"] for body in tab.asked if "user_id" in body]
        assert set(asked) == {user}
        tab.go(f"#history={item}")
        assert tab.titles() == titled(numbered.recommend(history=[LARGE + 5], k=10))
        assert tab.page.locator("#recommendations li").first.get_attribute("data-item") == str(
            numbered.recommend(history=[LARGE + 5], k=1)["recommendations"][0]["item_id"]
        )
        tab.choose("#user-input", str(LARGE + 8))
        assert tab.text("#history-facts").startswith(f"User {LARGE + 8}:")


@pytest.fixture(scope="module")
def guarded(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalServer, str]]:
    folder = tmp_path_factory.mktemp("guarded-explorer")
    key = create_key(folder / "keys.yaml", "page", ["read"])
    with serving_here(bundle_folder, keys=folder / "keys.yaml") as server:
        yield server, key


def test_key_is_asked_for_kept_in_the_tab_and_sent(context: BrowserContext, guarded: tuple[LocalServer, str]) -> None:
    server, key = guarded
    with Visit(context, server.address, "#history=i01", expected=(401,)) as tab:
        assert tab.page.is_visible("#key-dialog")
        assert tab.text("#key-message") == server.client.get("/v1/model").json()["error"]["message"]
        tab.page.keyboard.insert_text("wrong")
        tab.press("Enter")
        assert tab.page.is_visible("#key-dialog")
        tab.page.keyboard.insert_text(key)
        tab.press("Enter")
        assert not tab.page.is_visible("#key-dialog")
        bearer = {"Authorization": f"Bearer {key}"}
        authorized = server.client.post("/v1/recommend", json={"history": ["i01"]}, headers=bearer)
        assert tab.titles() == titled(authorized.json())
        kept = "[Object.values(sessionStorage), Object.values(localStorage), document.cookie]"
        assert tab.page.evaluate(kept) == [[key], [], ""]
        assert key not in tab.page.url
        tab.page.reload()
        tab.settle()
        assert tab.titles() == titled(authorized.json())
        with tab.page.expect_navigation():
            tab.page.click("#forget-key")
        tab.settle()
        assert tab.page.is_visible("#key-dialog")


def test_page_without_a_key_says_what_is_missing(context: BrowserContext, guarded: tuple[LocalServer, str]) -> None:
    server, _ = guarded
    message = server.client.get("/v1/model").json()["error"]["message"]
    with Visit(context, server.address, expected=(401,)) as tab:
        tab.press("Escape")
        tab.settle()
        assert tab.text("#model-message [role=alert] p") == message
        assert tab.text("#map-message [role=alert] p") == message
