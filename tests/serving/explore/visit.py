"""A tab of a real browser at the explorer page, which notes everything that must not happen."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request

QUIET_MILLISECONDS = 75
PAUSE_MILLISECONDS = 200
"""Longer than the page waits, after something was typed or set, before it asks."""
MOST_MILLISECONDS = 15_000
COUNT_WAITING = """
    const ask = window.fetch;
    window.numWaiting = 0;
    window.fetch = async (...asked) => {
        window.numWaiting += 1;
        try {
            const response = await ask(...asked);
            await response.clone().arrayBuffer();
            return response;
        } finally {
            setTimeout(() => { window.numWaiting -= 1; });
        }
    };
"""
"""Counts what the page waits for, to the last byte. It is told no earlier than that."""
SETTLED = """
    async ({ least, most }) => {
        let quiet = 0, waited = 0;
        while (quiet < least && waited < most) {
            await new Promise((done) => setTimeout(done, 25));
            quiet = window.numWaiting ? 0 : quiet + 25;
            waited += 25;
        }
        return quiet >= least;
    }
"""
"""By the clock of the page itself: on a busy machine it runs late where the page does."""
GO = """
    ({ link, most }) => new Promise((done) => {
        addEventListener("hashchange", () => setTimeout(() => done(true)), { once: true });
        setTimeout(() => done(false), most);
        location.hash = link;
    })
"""

TIDY = """
    document.activeElement.blur();
    for (const one of document.querySelectorAll("details[open]")) one.open = false;
    for (const one of document.querySelectorAll("input[type=text], input[type=search]")) one.value = "";
    for (const one of document.querySelectorAll("dialog[open]")) one.close();
    scrollTo(0, 0);
"""


class Visit:
    """The page opened at an address; leaving it checks that nothing was wrong while it was open.

    `expected` are statuses of answers that the browser will report as errors and that the test is about.
    """

    def __init__(
        self, context: BrowserContext, address: str, link: str = "", *, expected: tuple[int, ...] = ()
    ) -> None:
        self.context, self.address, self.expected, self.is_kept = context, address, expected, False
        self.page: Page = context.new_page()
        self.page.set_default_timeout(MOST_MILLISECONDS)
        self.wrong: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("request", self._note)
        self.page.add_init_script(COUNT_WAITING)
        self.page.goto(f"{address}/explore{link}")
        self.settle()

    def __enter__(self) -> Visit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.is_kept:
            self.page.close()
        if kind is None:
            assert self.wrong == []

    def again(self, link: str, expected: tuple[int, ...] = ()) -> Visit:
        """The same tab at another link, for another test: what was open is closed, what was typed is gone."""
        self.expected, self.is_kept = expected, True
        self.page.bring_to_front()  # Timers of a tab behind another run late.
        self.page.mouse.move(5, 5)
        self.page.evaluate(TIDY)
        for one in ("#", link):
            if self.page.evaluate("one => (location.hash || '#') !== (one || '#')", one):
                self.wrong.clear()
                self.asked.clear()
                self.go(one)
        return self

    def settle(self, least: int = QUIET_MILLISECONDS) -> None:
        """Waits until all that was asked is answered, and nothing more is asked for `least` milliseconds."""
        assert self.page.evaluate(SETTLED, {"least": least, "most": MOST_MILLISECONDS}), "the page goes on asking"

    def go(self, link: str) -> None:
        """To another link of the page than it is at, without loading it again."""
        assert self.page.evaluate(GO, {"link": link, "most": MOST_MILLISECONDS}), f"the page is at {link} already"
        self.settle()

    def click(self, selector: str) -> None:
        self.page.click(selector)
        self.settle()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
        self.settle()

    def choose(self, field: str, text: str) -> None:
        """Types into a field with suggestions and takes the first of them with the keyboard."""
        self.type(field, text)
        self.press("ArrowDown", "Enter")

    def type(self, field: str, text: str) -> None:
        self.page.focus(field)
        self.page.keyboard.insert_text(text)
        self.settle(PAUSE_MILLISECONDS)

    def set(self, field: str, value: str) -> None:
        """Sets a control of the list."""
        is_choice = self.page.evaluate("one => document.querySelector(one).tagName", field) == "SELECT"
        (self.page.select_option if is_choice else self.page.fill)(field, value)
        self.settle(PAUSE_MILLISECONDS)

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def texts(self, selector: str) -> list[str]:
        """Of every element, without what is read out or shown as a badge inside it."""
        return self.page.eval_on_selector_all(
            selector, "all => all.map(one => (one.firstChild?.textContent ?? '').trim())"
        )

    def titles(self) -> list[str]:
        """Of the recommendations, as they are shown."""
        return self.texts("#recommendations .title")

    def events(self) -> list[str]:
        """Titles of the events that are shown, oldest first."""
        return self.texts("#events .title")[::-1]

    def _hear(self, message: ConsoleMessage) -> None:
        is_expected = any(f"status of {status}" in message.text for status in self.expected)
        if message.type == "error" and not is_expected:
            self.wrong.append(f"console: {message.text}")

    def _note(self, request: Request) -> None:
        if urlsplit(request.url)[:2] != urlsplit(self.address)[:2]:
            self.wrong.append(f"left the origin: {request.url}")
        if request.url.endswith("/v1/recommend"):
            self.asked.append(request.post_data_json)


def titled(answer: dict[str, Any]) -> list[str]:
    """Titles of the recommendations in an answer of the API."""
    return [one["title"] for one in answer["recommendations"]]


def number(text: str) -> float:
    """The first number of a text such as '12.3 %' or '−0.30 pts'."""
    digits = text.replace("−", "-").replace("±", "").replace("<", "").replace(",", "").split()[0]
    return float(digits.rstrip("%"))
