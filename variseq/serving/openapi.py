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
from variseq.serving.http import JSON, ErrorResponse, Page, RequestContext, Route, encode

DESCRIPTIONS = {
    400: "The request is not of the right form, or contradicts itself.",
    401: "There is no valid key.",
    403: "The key has no role for this, or the host is not answered without keys.",
    404: "There is no such thing.",
    405: "The path does not take this method.",
    408: "The body did not come in time.",
    409: "It contradicts what is there; nothing was changed.",
    413: "The body is too large.",
    415: "The body is no JSON.",
    429: "Too many requests; try again after Retry-After seconds.",
    500: "Something went wrong inside the server.",
    503: "Not now; try again after Retry-After seconds.",
}
OF_ALL, WITH_KEY, WITH_BODY = (400, 403, 429, 500), (401,), (408, 413, 415)
REFERENCE = "#/components/schemas/{name}"
HTML = b"text/html; charset=utf-8"
REVALIDATE = b"no-cache"
_PARAMETER = re.compile(r"{(\w+)}")
_ID = {"type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES, "description": "percent-encoded; a slash, too"}


def document_routes(routes: Sequence[Route[Any]]) -> list[Route[Any]]:
    """The routes of the document and of its page."""
    document = openapi(routes)
    page = Page(docs_page(document), HTML, POLICY, REVALIDATE)
    return [
        page_route("/openapi.json", "Describe the API", "read", Page(encode(document), JSON), dict[str, Any]),
        page_route("/docs", "Describe the API", "read", page),
    ]


def page_route(path: str, summary: str, role: Any, page: Page, answer: Any = None) -> Route[Any]:
    """A route whose response never changes."""

    async def handler(services: Any, context: RequestContext) -> Page:
        return page

    return Route("GET", path, summary, role, handler, answer)


def openapi(routes: Sequence[Route[Any]]) -> dict[str, Any]:
    """The document."""
    types = [ErrorResponse]
    for one in routes:
        types += [kind for kind in (one.body, one.answer, one.query) if kind is not None and kind not in types]
    schemas, components = msgspec.json.schema_components(types, ref_template=REFERENCE)
    schema_of = {str(kind): schema for kind, schema in zip(types, schemas, strict=True)}
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
            "responses": {str(status): _error_response(status, about) for status, about in DESCRIPTIONS.items()},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def _operation(one: Route[Any], schema_of: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    statuses = {*OF_ALL, *one.statuses, *(WITH_KEY if one.role else ()), *(WITH_BODY if one.body else ())}
    schema = schema_of[str(one.answer)] if one.answer is not None else {"type": "string"}
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
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _ID} for name in _PARAMETER.findall(one.path)
    ]
    if one.query is not None:
        properties = components[one.query.__name__]["properties"]
        parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in properties.items()]
    if parameters:
        document["parameters"] = parameters
    if one.body is not None:
        content = {"application/json": {"schema": schema_of[str(one.body)]}}
        document["requestBody"] = {"required": True, "content": content}
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
h2{margin-top:2.5rem;font-size:1.1rem;font-family:ui-monospace,monospace;overflow-wrap:anywhere}
b{padding:.1rem .5rem;border:1px solid;border-radius:.3rem;margin-right:.5rem}
table{border-collapse:collapse;width:100%}
td,th{text-align:left;vertical-align:top;border-top:1px solid #8888;padding:.3rem .6rem .3rem 0}
code{font-family:ui-monospace,monospace;overflow-wrap:anywhere}
"""
_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_DIGEST}'; frame-ancestors 'none'; base-uri 'none'".encode()
LIMITS = {
    "minimum": "from",
    "exclusiveMinimum": "above",
    "maximum": "to",
    "minLength": "from",
    "maxLength": "to",
    "minItems": "from",
    "maxItems": "to",
    "pattern": "like",
    "maxProperties": "to",
}


def docs_page(document: dict[str, Any]) -> bytes:
    """The document as an HTML page in UTF-8."""
    info = {name: escape(text) for name, text in document["info"].items()}
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{info['title']} API</title><style>{STYLE}</style></head><body>"
        f"<h1>{info['title']} API {info['version']}</h1>"
        f"<p>{info['description']} The whole as <a href='/openapi.json'>OpenAPI 3.1</a>.</p>"
    ]
    responses = document["components"]["responses"]
    for path, methods in document["paths"].items():
        parts += [_operation_html(method, path, one, responses) for method, one in methods.items()]
    parts.append("<h1>Types</h1>")
    for name, schema in document["components"]["schemas"].items():
        parts.append(f'<h2 id="{escape(name)}">{escape(name)}</h2><p>{escape(schema.get("description", ""))}</p>')
        required = schema.get("required", [])
        rows = [
            [f"<code>{escape(field)}</code>", _type(kind), "needed" if field in required else _default(kind)]
            for field, kind in schema.get("properties", {}).items()
        ]
        parts.append(_table(["field", "type", ""], rows))
    parts.append("</body></html>")
    return "".join(parts).encode("utf-8")


def _operation_html(method: str, path: str, operation: dict[str, Any], responses: dict[str, Any]) -> str:
    about = escape(operation.get("description", "Open to everybody."))
    text = f"<h2><b>{method.upper()}</b>{escape(path)}</h2><p>{escape(operation['summary'])}. {about}</p>"
    if "requestBody" in operation:
        text += f"<p>Body: {_type(operation['requestBody']['content']['application/json']['schema'])}</p>"
    if "parameters" in operation:
        rows = [
            [f"<code>{escape(one['name'])}</code>", one["in"], _type(one["schema"])] for one in operation["parameters"]
        ]
        text += _table(["parameter", "in", "type"], rows)
    rows = []
    for status, response in operation["responses"].items():
        found = responses[status] if "$ref" in response else response
        kinds = ", ".join(_type(content["schema"]) for content in found["content"].values())
        rows.append([status, escape(found["description"]), kinds])
    return text + _table(["status", "meaning", "type"], rows)


def _table(heads: list[str], rows: list[list[str]]) -> str:
    """A table of cells that are HTML already."""
    head = "".join(f"<th>{text}</th>" for text in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _default(field: dict[str, Any]) -> str:
    return f"<code>{escape(json.dumps(field['default']))}</code>" if "default" in field else ""


def _type(schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[1])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"<code>{escape(json.dumps(one))}</code>" for one in schema["enum"])
    limits = [f"{word} {escape(str(schema[key]))}" for key, word in LIMITS.items() if key in schema]
    if "description" in schema:
        limits.append(escape(schema["description"]))
    limited = f" ({', '.join(limits)})" if limits else ""
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}{limited}"
    return f"{escape(str(schema.get('type', 'any')))}{limited}"
