"""The table of operations into an OpenAPI 3.1 document; schemas are made of the types that decode and encode."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from variseq.events.vocabulary import MAX_ID_BYTES
from variseq.serving.operations import Operation
from variseq.serving.refusals import ErrorAnswer

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
    429: "Too many requests; Retry-After says when to come again.",
    500: "Something went wrong inside the server.",
    503: "Not now; Retry-After says when to come again.",
}
OF_ALL = (400, 403, 429, 500)
WITH_KEY = (401,)
WITH_BODY = (408, 413, 415)
REFERENCE = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"{(\w+)}")
_ID = {"type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES, "description": "percent-encoded; a slash, too"}


def openapi(operations: Sequence[Operation[Any]]) -> dict[str, Any]:
    """The document."""
    types = [ErrorAnswer]
    for one in operations:
        types += [kind for kind in (one.body, one.answer, one.query) if kind is not None and kind not in types]
    schemas, components = msgspec.json.schema_components(types, ref_template=REFERENCE)
    schema_of = {str(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    paths: dict[str, Any] = {}
    for one in operations:
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
            "responses": {str(status): _refused(status, about) for status, about in DESCRIPTIONS.items()},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def _operation(one: Operation[Any], schema_of: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    statuses = {*OF_ALL, *one.statuses, *(WITH_KEY if one.role else ()), *(WITH_BODY if one.body else ())}
    document: dict[str, Any] = {
        "operationId": f"{one.method.lower()}{re.sub('[^a-z0-9]+', '_', one.path.lower()).rstrip('_')}",
        "summary": one.summary,
        "responses": {"200": _answered(one, schema_of)}
        | {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(statuses)},
    }
    if one.role is None:
        document["security"] = []
    else:
        document["description"] = f"Needs a key with the role {one.role}, where the server has keys."
    parameters = [_in_path(name) for name in _PARAMETER.findall(one.path)]
    if one.query is not None:
        properties = components[one.query.__name__]["properties"]
        parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in properties.items()]
    if parameters:
        document["parameters"] = parameters
    if one.body is not None:
        content = {"application/json": {"schema": schema_of[str(one.body)]}}
        document["requestBody"] = {"required": True, "content": content}
    return document


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": _ID}


def _answered(one: Operation[Any], schema_of: dict[str, Any]) -> dict[str, Any]:
    schema = schema_of[str(one.answer)] if one.answer is not None else {"type": "string"}
    headers = {"X-Request-Id": {"schema": {"type": "string"}}}
    return {"description": "Done.", "headers": headers, "content": {one.media_type: {"schema": schema}}}


def _refused(status: int, about: str) -> dict[str, Any]:
    document: dict[str, Any] = {
        "description": about,
        "content": {"application/json": {"schema": {"$ref": REFERENCE.format(name="ErrorAnswer")}}},
    }
    if status in (429, 503):
        document["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}}
    return document
