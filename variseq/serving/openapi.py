"""The OpenAPI 3.1 document of the routes, and an HTML page of it without scripts.

Schemas are made from the types that decode requests and encode responses.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from html import escape
from importlib.metadata import version
from typing import Any

import msgspec

from variseq.events.vocabulary import MAX_ID_BYTES
from variseq.serving.http import ERRORS, JSON, ErrorResponse, Page, RequestContext, Route, encode
from variseq.serving.keys import Role

OF_ALL, WITH_KEY, WITH_BODY = (400, 403, 429, 500), (401,), (408, 413, 415)
REFERENCE = "#/components/schemas/{name}"
HTML = b"text/html; charset=utf-8"
REVALIDATE = b"no-cache"
_ID = {"type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES, "description": "percent-encoded; a slash, too"}


def document_routes(routes: Sequence[Route]) -> list[Route]:
    """The routes of the document and of its page."""
    document = openapi(routes)
    return [
        page_route("/openapi.json", "read", Page(encode(document), JSON)),
        page_route("/docs", "read", Page(docs_page(document), HTML, POLICY, REVALIDATE)),
    ]


def page_route(path: str, role: Role | None, page: Page) -> Route:
    """A route whose response never changes."""

    async def handler(services: Any, context: RequestContext) -> Page:
        return page

    return Route("GET", path, role, handler)


def openapi(routes: Sequence[Route]) -> dict[str, Any]:
    """The document."""
    kinds: list[Any] = [ErrorResponse]
    for one in routes:
        of_route = (one.types.get("body"), one.answer, one.types.get("query"))
        kinds += [kind for kind in of_route if kind is not None and kind not in kinds]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=REFERENCE)
    schema_of = {str(kind): schema for kind, schema in zip(kinds, schemas, strict=True)}
    paths: dict[str, Any] = {}
    for one in routes:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, schema_of, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Variseq",
            "version": version("variseq"),
            "description": "Recommendations from histories that are kept here: a new event changes the next answer.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {str(status): _error_response(status, about) for status, (_, about) in ERRORS.items()},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def _operation(one: Route, schema_of: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    body, query = one.types.get("body"), one.types.get("query")
    statuses = {*OF_ALL, *one.statuses, *(WITH_KEY if one.role else ()), *(WITH_BODY if body else ())}
    of_page = {"type": "string"} if one.media_type.startswith("text/") else {}
    schema = of_page if one.answer is None else schema_of[str(one.answer)]
    success = {
        "description": "Done.",
        "headers": {"X-Request-Id": {"schema": {"type": "string"}}},
        "content": {one.media_type: {"schema": schema}},
    }
    document: dict[str, Any] = {
        "operationId": f"{one.method.lower()}{re.sub('[^a-z0-9]+', '_', one.path.lower()).rstrip('_')}",
        "summary": one.summary,
        "responses": {"200": success}
        | {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(statuses)},
    }
    if one.role is None:
        document["security"] = []
    else:
        document["description"] = f"Needs a key with the role {one.role}, where the server has keys."
    names = re.findall(r"{(\w+)}", one.path)
    parameters: list[dict[str, Any]] = [{"name": name, "in": "path", "required": True, "schema": _ID} for name in names]
    if query is not None:
        properties = components[query.__name__]["properties"]
        parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in properties.items()]
    if parameters:
        document["parameters"] = parameters
    if body is not None:
        document["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema_of[str(body)]}}}
    return document


def _error_response(status: int, about: str) -> dict[str, Any]:
    document: dict[str, Any] = {
        "description": about,
        "content": {"application/json": {"schema": {"$ref": REFERENCE.format(name="ErrorResponse")}}},
    }
    if status in (429, 503):
        document["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}}
    return document


STYLE = """
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}
body{max-width:60rem;margin:2rem auto;padding:0 1rem}
h2,h3{overflow-wrap:anywhere}
pre{white-space:pre-wrap;overflow-wrap:anywhere;border-left:.2rem solid #8888;padding-left:1rem}
"""
_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_DIGEST}'; frame-ancestors 'none'; base-uri 'none'".encode()


def docs_page(document: dict[str, Any]) -> bytes:
    """The document as an HTML page in UTF-8: each operation, and each type as a JSON schema."""
    info = {name: escape(text) for name, text in document["info"].items()}
    parts = [
        f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{info["title"]} API</title><style>{STYLE}</style></head><body>
<h1>{info["title"]} API {info["version"]}</h1>
<p>{info["description"]} The whole as <a href="/openapi.json">OpenAPI 3.1</a>.</p>
<h2>Operations</h2>"""
    ]
    for path, operations in document["paths"].items():
        for method, one in operations.items():
            about = escape(f"{one['summary']}. {one.get('description', 'Open to everybody.')}")
            details = {name: one[name] for name in ("parameters", "requestBody") if name in one}
            details["responses"] = {
                status: document["components"]["responses"][status]["description"] if "$ref" in response else response
                for status, response in one["responses"].items()
            }
            parts.append(f"<h3>{method.upper()} {escape(path)}</h3><p>{about}</p>{_linked(details)}")
    parts.append("<h2>Types</h2>")
    parts += [
        f'<h3 id="{escape(name)}">{escape(name)}</h3>{_linked(schema)}'
        for name, schema in document["components"]["schemas"].items()
    ]
    parts.append("</body></html>")
    return "\n".join(parts).encode("utf-8")


def _linked(schema: dict[str, Any]) -> str:
    """JSON as HTML, with links to the types."""
    text = escape(json.dumps(schema, indent=2, ensure_ascii=False), quote=False)
    return "<pre>" + re.sub(r'"#/components/schemas/(\w+)"', r'<a href="#\1">\1</a>', text) + "</pre>"
