"""The OpenAPI document into one page to read: no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from typing import Any

STYLE = """
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}
body{max-width:60rem;margin:2rem auto;padding:0 1rem}
h2{margin-top:2.5rem;font-size:1.1rem;font-family:ui-monospace,monospace;overflow-wrap:anywhere}
b{padding:.1rem .5rem;border:1px solid;border-radius:.3rem;margin-right:.5rem}
table{border-collapse:collapse;width:100%}
td,th{text-align:left;vertical-align:top;border-top:1px solid #8888;padding:.3rem .6rem .3rem 0}
code{font-family:ui-monospace,monospace;overflow-wrap:anywhere}
pre{overflow-x:auto;padding:.6rem;border:1px solid #8888;border-radius:.3rem}
"""
_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_DIGEST}'; frame-ancestors 'none'; base-uri 'none'".encode()


def docs_page(document: dict[str, Any]) -> bytes:
    """The page as UTF-8."""
    schemas = document["components"]["schemas"]
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(document['info']['title'])} API</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(document['info']['title'])} API {escape(document['info']['version'])}</h1>",
        f"<p>{escape(document['info']['description'])} The whole as <a href='/openapi.json'>OpenAPI 3.1</a>.</p>",
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts += _operation(method, path, operation, document)
    parts.append("<h1>Types</h1>")
    for name, schema in schemas.items():
        parts.append(f'<h2 id="{escape(name)}">{escape(name)}</h2><p>{escape(schema.get("description", ""))}</p>')
        parts.append(_fields(schema))
    parts.append("</body></html>")
    return "".join(parts).encode("utf-8")


def _operation(method: str, path: str, operation: dict[str, Any], document: dict[str, Any]) -> list[str]:
    parts = [f"<h2><b>{method.upper()}</b>{escape(path)}</h2><p>{escape(operation['summary'])}. "]
    parts.append(f"{escape(operation.get('description', 'Open to everybody.'))}</p>")
    if "requestBody" in operation:
        parts.append(f"<p>Body: {_type(operation['requestBody']['content']['application/json']['schema'])}</p>")
    if "parameters" in operation:
        rows = "".join(
            f"<tr><td><code>{escape(one['name'])}</code></td><td>{one['in']}</td><td>{_type(one['schema'])}</td></tr>"
            for one in operation["parameters"]
        )
        parts.append(f"<table><tr><th>parameter</th><th>in</th><th>type</th></tr>{rows}</table>")
    rows = ""
    for status, answer in operation["responses"].items():
        found = document["components"]["responses"][status] if "$ref" in answer else answer
        kinds = ", ".join(_type(content["schema"]) for content in found["content"].values())
        rows += f"<tr><td>{status}</td><td>{escape(found['description'])}</td><td>{kinds}</td></tr>"
    parts.append(f"<table><tr><th>status</th><th>meaning</th><th>type</th></tr>{rows}</table>")
    return parts


def _fields(schema: dict[str, Any]) -> str:
    required = schema.get("required", [])
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{_type(field)}</td>"
        f"<td>{'needed' if name in required else _default(field)}</td></tr>"
        for name, field in schema.get("properties", {}).items()
    )
    return f"<table><tr><th>field</th><th>type</th><th></th></tr>{rows}</table>"


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
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}{_limits(schema)}"
    return f"{escape(str(schema.get('type', 'anything')))}{_limits(schema)}"


def _limits(schema: dict[str, Any]) -> str:
    names = {
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
    said = [f"{word} {escape(str(schema[key]))}" for key, word in names.items() if key in schema]
    if "description" in schema:
        said.append(escape(schema["description"]))
    return f" ({', '.join(said)})" if said else ""
