"""A real server with some users and a real headless Chromium, for all tests of the page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.serving.explore.visit import Visit
from tests.serving.server_process import LocalServer, event, serving_here
from variseq.serving.keys import create_key

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DAY_SECONDS = 86_400
START = 1_704_189_600  # 2 January 2024, 10:00 UTC
HOSTILE = "<img src=x onerror=alert(1)>"
DESKTOP = {"width": 1440, "height": 1000}
KINDS = ("view", "cart", "purchase")


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium of the system or of Playwright; VARISEQ_CHROMIUM names another.

    It ends with the tests of the page: while it runs, its event loop runs in this thread, and nobody else's can.
    """
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install 'variseq[test]'")
    with api.sync_playwright() as playwright:
        found = os.environ.get("VARISEQ_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
        found = found or playwright.chromium.executable_path
        if not Path(found).exists():
            pytest.skip("There is no Chromium here. Install it, or name one in VARISEQ_CHROMIUM.")
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="package")
def stocked(bundle_folder: Path) -> Iterator[LocalServer]:
    """A server whose store has users with few, some and very many events."""
    with serving_here(bundle_folder) as server:
        server.add(*history("reader", 12, DAY_SECONDS), event("unknown", "reader", HOSTILE, START + 30 * DAY_SECONDS))
        server.add(*history("ready", 5, 3600), *history("other", 1, 60))
        server.add(*history("longest", 1000, 5000))
        yield server


@pytest.fixture(scope="package")
def pictured(pictured_run: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server with pictures, which asks for the key `pictured.key`."""
    keys = tmp_path_factory.mktemp("keys") / "keys.yaml"
    key = create_key(keys, "page", ["read", "write"])
    with serving_here(pictured_run, images=images, keys=keys) as server:
        server.client.headers["authorization"] = f"Bearer {key}"
        server.add(*history("reader", 5, DAY_SECONDS))
        yield server


def history(user_id: str, num_events: int, step_seconds: int) -> list[dict[str, Any]]:
    """Events that go through the catalog, each third of a kind; the last kind has values."""
    return [
        event(
            f"{user_id}-{place}",
            user_id,
            f"i{place * 7 % 40:02d}",
            START + place * step_seconds,
            event=KINDS[place % 3],
            **({"value": 5.0 + place % 20} if place % 3 == 2 else {}),
        )
        for place in range(num_events)
    ]


@pytest.fixture(scope="package")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """What most tabs share; each has its own session storage."""
    shared = browser.new_context(viewport=DESKTOP)
    yield shared
    shared.close()


@pytest.fixture(scope="package")
def kept(context: BrowserContext, stocked: LocalServer) -> Iterator[Visit]:
    """A tab that goes from one test to the next."""
    with Visit(context, stocked.address) as tab:
        yield tab
    tab.page.close()


@pytest.fixture
def visit(kept: Visit) -> Callable[..., Visit]:
    """Opens a link of the page in that tab: `visit("#user=reader")`."""
    return lambda link="", **options: kept.again(link, **options)


@pytest.fixture
def visit_new(context: BrowserContext, stocked: LocalServer) -> Callable[..., Visit]:
    """Opens the page in a tab of its own."""
    return lambda link="", **options: Visit(context, stocked.address, link, **options)


@pytest.fixture
def visit_alone(browser: Browser, stocked: LocalServer) -> Iterator[Callable[..., Visit]]:
    """The same with storage and properties of its own: `visit_alone(color_scheme="dark")`."""
    contexts = []

    def open_alone(link: str = "", **properties: Any) -> Visit:
        contexts.append(browser.new_context(**{"viewport": DESKTOP, **properties}))
        return Visit(contexts[-1], stocked.address, link)

    yield open_alone
    for one in contexts:
        one.close()


@pytest.fixture(scope="package")
def reader(context: BrowserContext, stocked: LocalServer) -> Iterator[Visit]:
    """A tab that stays at one user, for tests that only look."""
    with Visit(context, stocked.address, "#user=reader") as tab:
        yield tab
