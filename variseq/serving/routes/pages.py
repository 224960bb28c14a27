"""Pages to look at: the explorer, the documentation, and the OpenAPI document. Read at the start, fixed after that."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from variseq.serving.docs_page import POLICY, docs_page
from variseq.serving.exchange import JSON, Page
from variseq.serving.openapi import openapi
from variseq.serving.operations import Call, Operation
from variseq.serving.schemas import encode
from variseq.serving.services import Services

HTML = b"text/html; charset=utf-8"
MEDIA_TYPES = {
    ".html": HTML,
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
}
EXPLORER_POLICY = b"default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
REVALIDATE = b"no-cache"


def explorer() -> list[Operation[Services]]:
    """The files of the explorer page, each at an address of its own. Open to everybody: they hold no data."""
    operations = []
    for file in sorted(files("variseq.serving").joinpath("explore").iterdir(), key=lambda file: file.name):
        suffix = file.name[file.name.rfind(".") :]
        if not file.is_file() or suffix not in MEDIA_TYPES:
            continue
        path = "/explore" if file.name == "index.html" else f"/explore/{file.name}"
        page = Page(file.read_bytes(), MEDIA_TYPES[suffix], EXPLORER_POLICY, REVALIDATE)
        operations.append(_page("GET", path, page))
    return operations


def documents(operations: Sequence[Operation[Services]]) -> list[Operation[Services]]:
    """The pages that describe the operations."""
    document = openapi(operations)
    pages = {
        "/openapi.json": (Page(encode(document), JSON), dict[str, Any]),
        "/docs": (Page(docs_page(document), HTML, POLICY, REVALIDATE), None),
    }
    return [
        Operation("GET", path, "Describe the API", "read", _giver(page), answer)
        for path, (page, answer) in pages.items()
    ]


def _page(method: str, path: str, page: Page) -> Operation[Services]:
    return Operation(method, path, "Show the explorer", None, _giver(page))


def _giver(page: Page) -> Any:
    async def give(services: Services, call: Call) -> Page:
        return page

    return give
