"""The item map and the health of the model, beside what the API tells of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.serving.explore.visit import PAUSE_MILLISECONDS, Visit, number
from tests.serving.server_process import LocalServer

Open = Callable[..., Any]
MARGIN = 22
"""Pixels around the drawn items."""


def map_of(stocked: LocalServer) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = stocked.client.get("/v1/items/map").json()["items"]
    return items


def places(tab: Visit, items: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Where items are drawn, in pixels of the map."""
    width, height = tab.page.eval_on_selector("#map", "one => [one.clientWidth, one.clientHeight]")
    xs, ys = [one["x"] for one in items], [one["y"] for one in items]
    return {
        one["item_id"]: (
            MARGIN + (one["x"] - min(xs)) / (max(xs) - min(xs)) * (width - 2 * MARGIN),
            height - MARGIN - (one["y"] - min(ys)) / (max(ys) - min(ys)) * (height - 2 * MARGIN),
        )
        for one in items
    }


def loneliest(at: dict[str, tuple[float, float]], among: set[str]) -> str:
    """The item with the most room around it."""
    return max(among, key=lambda one: min(math.dist(at[one], place) for other, place in at.items() if other != one))


def test_every_item_is_on_the_map_in_the_color_of_its_category(reader: Visit, stocked: LocalServer) -> None:
    items = map_of(stocked)
    count = Counter(one["category"] for one in items)
    recommended = {one["item_id"] for one in stocked.recommend("reader")["recommendations"]}
    legend = [words.rsplit(" ", 1) for words in reader.page.locator("#map-legend button").all_inner_texts()]
    assert {name.strip(): int(number) for name, number in legend} == count
    at = places(reader, items)
    for category in count:
        one = loneliest(at, {item["item_id"] for item in items if item["category"] == category} - recommended)
        dot = (
            reader.page.locator("#map-legend button", has_text=category)
            .locator(".dot")
            .evaluate("one => getComputedStyle(one).color")
        )
        assert pixel(reader, *at[one]) == pytest.approx(parts(dot), abs=12), category


def pixel(tab: Visit, x: float, y: float) -> list[int]:
    program = "([x, y]) => [...document.getElementById('map').getContext('2d').getImageData(x, y, 1, 1).data]"
    red, green, blue, strength = tab.page.evaluate(program, [round(x), round(y)])
    return [red, green, blue] if strength > 100 else []


def parts(color: str) -> list[float]:
    """Red, green and blue of a color; the map holds it unmixed, with its strength beside it."""
    return [float(part) for part in color.removeprefix("rgb(").removesuffix(")").split(",")]


def test_pointer_on_an_item_tells_its_title_and_marks(reader: Visit, stocked: LocalServer) -> None:
    items, listed = map_of(stocked), stocked.recommend("reader")["recommendations"]
    at = places(reader, items)
    one = loneliest(at, {item["item_id"] for item in listed})
    reader.page.hover("#map", position={"x": at[one][0], "y": at[one][1]})
    reader.settle()
    rank = next(item["rank"] for item in listed if item["item_id"] == one)
    told = next(item for item in items if item["item_id"] == one)
    assert reader.text("#map-tip").split("\n")[:2] == [told["title"], told["category"]]
    assert f"recommended, rank {rank}" in reader.text("#map-tip")


def test_map_as_a_list_says_what_is_marked_and_finds_the_rest(visit_new: Open, stocked: LocalServer) -> None:
    listed = stocked.recommend("reader")["recommendations"]
    with visit_new("#user=reader") as tab:
        rows = tab.page.locator("#map-items li").all_inner_texts()
        for one, row in zip(listed, rows, strict=False):
            assert one["title"] in row
            assert f"recommended, rank {one['rank']}" in row
        tab.type("#map-filter", "Garden no. 7")
        assert [row.split("\n")[0] for row in tab.page.locator("#map-items li").all_inner_texts()] == ["Garden no. 7"]


def test_picked_item_shows_similar_ones_and_is_taken_next(visit_new: Open, stocked: LocalServer) -> None:
    similar = stocked.client.get("/v1/items/i01/similar?k=5").json()["items"]
    with visit_new("#user=ready") as tab:
        tab.type("#map-filter", "Garden no. 7")
        tab.click("#map-items button")
        tab.click("#map-picked >> text=Similar items")
        assert tab.texts("#map-picked .similar li") == [one["title"] for one in similar]
        tab.click("#map-picked >> text=What if they take this next")
        assert tab.events()[-1] == "Garden no. 7"


def test_category_of_the_legend_is_shown_alone(visit_new: Open) -> None:
    drawn = """
    () => {
      const map = document.getElementById("map");
      const { data } = map.getContext("2d").getImageData(0, 0, map.width, map.height);
      let strength = 0;
      for (let place = 3; place < data.length; place += 4) strength += data[place];
      return strength;
    }
    """
    with visit_new() as tab:
        before = tab.page.evaluate(drawn)
        tab.click("#map-legend button:first-of-type")
        tab.settle(PAUSE_MILLISECONDS)
        assert tab.page.get_attribute("#map-legend button:first-of-type", "aria-pressed") == "true"
        assert tab.page.evaluate(drawn) < 0.7 * before
        tab.click("#map-legend button:first-of-type")
        tab.settle(PAUSE_MILLISECONDS)
        assert tab.page.evaluate(drawn) == before


def test_health_of_the_model_is_what_the_api_tells(reader: Visit, stocked: LocalServer) -> None:
    health = stocked.client.get("/v1/model").json()
    facts = dict(zip(reader.texts(".model-facts dt"), reader.texts(".model-facts dd"), strict=True))
    assert facts["Version"] == health["version"]
    assert facts["Items"] == str(health["network"]["num_items"])
    assert number(facts["NDCG@10 on validation"]) == pytest.approx(health["validation"]["ndcg"], rel=0.01)
    rows = [row.split("\t") for row in reader.page.locator("#model-body tbody tr").all_inner_texts()]
    values = {row[0].split("\n")[0]: row for row in rows}
    posterior = health["posterior"]
    assert number(values["KL"][1]) == pytest.approx(posterior["kl"], rel=0.01)
    assert number(values["Active dimensions"][1]) == pytest.approx(100 * posterior["active_share"], rel=0.01)
    is_good = posterior["swap_gap"] >= 0.05
    assert values["Swap gap"][2].strip() == ("✓ good" if is_good else "✕ below 0.05 nats")
    assert reader.page.locator(".chart").first.locator("rect").count() == len(posterior["kl_per_dimension"])
    told = reader.text("#model-body")
    assert all(alarm in told for alarm in health["alarms"])
    assert ("No alarms" in told) == (not health["alarms"])
