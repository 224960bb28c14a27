"""The page for everybody: names, contrast, keyboard, small screens, less motion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.serving.explore.visit import PAUSE_MILLISECONDS, Visit

Open = Callable[..., Any]
LOOK = Path(__file__).with_name("look.js").read_text(encoding="utf-8")
CONTROLS = {"button", "combobox", "slider", "spinbutton", "textbox", "radio", "checkbox", "link", "listbox", "option"}
LEAST_CONTRAST, LEAST_CONTRAST_OF_LARGE = 4.5, 3.0


def look(tab: Visit, name: str) -> Any:
    return tab.page.evaluate(f"() => {LOOK}.{name}()")


def busy(tab: Visit) -> None:
    """Every part of the page in use: settings open, an event picked, one struck out, an item of the map picked."""
    tab.page.click("#settings summary")
    tab.set("#set-strategy", "thompson")
    tab.click("#events li:nth-child(2) .strike")
    tab.click("#events li:nth-child(3) .title")
    tab.page.evaluate("document.getElementById('map-list').open = true")
    tab.click("#map-items li:first-child button")
    tab.click("#map-picked >> text=Similar items")


def test_all_text_has_contrast_in_both_themes_and_every_control_a_name(visit: Open) -> None:
    with visit("#user=reader") as tab:
        busy(tab)
        tab.page.hover("#recommendations li:nth-child(1)")
        tab.settle(2 * PAUSE_MILLISECONDS)
        assert poor(tab, at_least=200) == []
        tab.type("#item-input", "Toys")
        nodes = tab.context.new_cdp_session(tab.page).send("Accessibility.getFullAXTree")["nodes"]
        controls = [node for node in nodes if not node["ignored"] and node["role"]["value"] in CONTROLS]
        assert len(controls) > 40
        assert [node for node in controls if not node.get("name", {}).get("value", "").strip()] == []
        names = {node["name"]["value"] for node in controls if node["role"]["value"] == "combobox"}
        assert {"Find a user", "Add an item (what if)"} <= names


def test_messages_have_contrast_in_both_themes(visit: Open) -> None:
    with visit("#user=nobody", expected=(404,)) as tab:
        tab.page.evaluate("document.getElementById('key-dialog').showModal()")
        tab.type("#key-input", "x")
        assert poor(tab, at_least=10) == []


def poor(tab: Visit, at_least: int) -> list[dict[str, Any]]:
    """Texts that are too near to their ground, in either theme."""
    found = []
    for theme in ("light", "dark"):
        tab.page.emulate_media(color_scheme=theme)
        texts = look(tab, "texts")
        assert len(texts) > at_least
        for one in texts:
            if one["ratio"] < (LEAST_CONTRAST_OF_LARGE if one["isLarge"] else LEAST_CONTRAST):
                found.append({**one, "theme": theme})
    return found


def test_tab_key_reaches_everything_and_focus_is_seen(visit: Open) -> None:
    with visit("#user=ready") as tab:
        busy(tab)
        num_stops = look(tab, "number")
        reached: list[str] = []
        for _ in range(num_stops):
            tab.page.keyboard.press("Tab")
            focused = look(tab, "focused")
            assert focused["isSeen"], reached
            if focused["suggests"]:
                tab.settle()
            reached.append(focused["place"])
        assert reached == [str(place) for place in range(num_stops)]


def test_nothing_is_wider_than_the_screen(visit: Open) -> None:
    with visit() as tab:
        tab.page.set_viewport_size({"width": 360, "height": 800})
        assert look(tab, "reach") <= 0
        tab.go("#user=reader")
        busy(tab)
        for width in (360, 768, 1024, 1440, 1600):
            tab.page.set_viewport_size({"width": width, "height": 800})
            tab.settle()
            assert look(tab, "reach") <= 0, width
            assert look(tab, "outside") == [], width


def test_theme_is_chosen_and_remembered(visit_alone: Open) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    with visit_alone(color_scheme="light") as tab:
        light = tab.page.evaluate(paper)
        tab.click("#theme")
        assert tab.text("#theme") == "Theme: light"
        tab.click("#theme")
        dark = tab.page.evaluate(paper)
        assert dark != light
        tab.page.reload()
        tab.settle()
        assert (tab.text("#theme"), tab.page.evaluate(paper)) == ("Theme: dark", dark)
    with visit_alone(color_scheme="dark") as tab:
        assert (tab.text("#theme"), tab.page.evaluate(paper)) == ("Theme: system", dark)


def test_change_is_announced_and_rows_glide_only_where_motion_is_wanted(visit: Open) -> None:
    with visit("#user=ready") as tab:
        look(tab, "countGlides")
        look(tab, "listen")
        assert tab.page.get_attribute("#changes", "aria-live") == "polite"
        tab.page.emulate_media(reduced_motion="reduce")
        tab.click("#events li:nth-child(1) .strike")
        assert tab.page.evaluate("window.heard") == [tab.text("#changes")]
        assert tab.page.evaluate("window.glides") == 0
        tab.page.emulate_media(reduced_motion="no-preference")
        tab.click("#events li:nth-child(2) .strike")
        assert tab.page.evaluate("window.glides") > 0
