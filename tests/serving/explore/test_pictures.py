"""Pictures beside titles, and the colors of the map by content, as a browser shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.serving.explore.conftest import DESKTOP
from tests.serving.explore.test_map_and_model import map_of
from tests.serving.explore.visit import PAUSE_MILLISECONDS, Visit
from tests.serving.server_process import LocalServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Open = Callable[..., Any]
DRAWN = """
    all => all.map(one => one.clientWidth === 40 && one.clientHeight === 40 &&
        one.getContext("2d").getImageData(one.width / 2, one.height / 2, 1, 1).data[3] > 0)
"""
"""Whether anything is drawn in the middle of each picture."""

ITEMS_WITH = {f"i{number:02}" for number in range(9)}


@pytest.fixture
def with_pictures(browser: Browser, pictured: LocalServer) -> Iterator[Visit]:
    """A tab with the key of the server with pictures."""
    context = browser.new_context(viewport=DESKTOP)
    key = pictured.client.headers["authorization"].removeprefix("Bearer ")
    context.add_init_script(f"sessionStorage.setItem('variseq-key', '{key}')")
    with Visit(context, pictured.address, "#user=reader", expected=(404,)) as tab:
        yield tab
    context.close()


def test_pictures_stand_beside_titles_and_each_is_fetched_once(with_pictures: Visit, pictured: LocalServer) -> None:
    tab, fetched = with_pictures, Counter[str]()
    tab.page.set_viewport_size({"width": 1440, "height": 2000})
    tab.settle(2 * PAUSE_MILLISECONDS)
    tab.page.on("request", lambda request: fetched.update([request.url] if request.url.endswith("/image") else []))
    tab.page.reload()
    tab.settle(2 * PAUSE_MILLISECONDS)
    # The history is i00, i07, i14, i21, i28, shown from the end; there are pictures of i00 to i08.
    assert tab.page.eval_on_selector_all("#events .picture", DRAWN) == [False, False, False, True, True]
    listed = pictured.recommend("reader")["recommendations"]
    drawn = tab.page.eval_on_selector_all("#recommendations .picture", DRAWN)
    assert drawn == [one["item_id"] in ITEMS_WITH for one in listed]
    shown = {"i00", "i07", "i14", "i21", "i28", *(one["item_id"] for one in listed)}
    assert {url.split("/")[-2] for url in fetched} == shown
    tab.click("#events li:nth-child(2) .strike")
    tab.settle(2 * PAUSE_MILLISECONDS)
    assert max(fetched.values()) == 1


def test_picture_that_is_out_of_sight_is_not_fetched(with_pictures: Visit) -> None:
    tab, fetched = with_pictures, Counter[str]()
    tab.page.set_viewport_size({"width": 1440, "height": 300})
    tab.settle(2 * PAUSE_MILLISECONDS)
    tab.page.on("request", lambda request: fetched.update([request.url]))
    tab.page.reload()
    tab.settle(2 * PAUSE_MILLISECONDS)
    assert not [url for url in fetched if url.endswith("/i00/image")]
    tab.page.locator("#events li:last-child").scroll_into_view_if_needed()
    tab.settle(2 * PAUSE_MILLISECONDS)
    assert [url for url in fetched if url.endswith("/i00/image")]


def test_similar_items_have_pictures(with_pictures: Visit) -> None:
    tab = with_pictures
    tab.click("#map-items li:first-child button")
    tab.click("#map-picked >> text=Similar items")
    assert tab.page.locator("#map-picked .similar .picture").count() == 5


def test_page_without_pictures_asks_for_none(visit_new: Open) -> None:
    with visit_new() as tab:
        asked: list[str] = []
        tab.page.on("request", lambda request: asked.append(request.url))
        tab.go("#user=reader")
        assert asked
        assert not [url for url in asked if url.endswith("/image")]
        assert tab.page.locator(".picture:visible").count() == 0


def test_map_is_colored_by_content_where_that_is_chosen(visit_new: Open, stocked: LocalServer) -> None:
    items = map_of(stocked)
    count = Counter(one["cluster"] for one in items)
    with visit_new() as tab:
        by_category = tab.page.locator("#map-legend button").all_inner_texts()
        tab.page.check("input[name=map-color][value=content]", force=True)
        tab.settle(PAUSE_MILLISECONDS)
        by_content = tab.page.locator("#map-legend button").all_inner_texts()
        assert sum(int(words.rsplit(" ", 1)[1]) for words in by_content) == sum(count.values())
        assert all(words.startswith(("like ", "other")) for words in by_content)
        tab.page.check("input[name=map-color][value=category]", force=True)
        tab.settle(PAUSE_MILLISECONDS)
        assert tab.page.locator("#map-legend button").all_inner_texts() == by_category
