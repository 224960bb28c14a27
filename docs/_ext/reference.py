"""The reference pages, written from the code before Sphinx reads the sources."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from sphinx.application import Sphinx

import variseq
from variseq.events.options import ReadOptions
from variseq.model.network import NetworkConfig
from variseq.serving.openapi import openapi
from variseq.serving.routes import API
from variseq.terminal.run_config import SplitConfig
from variseq.training.config import TrainingConfig

RETURNED = ("variseq.log.Log", "variseq.log.LogPart", "variseq.evaluation.results.Results")
"""Classes that the public API returns and that nobody constructs."""
SECTIONS: dict[str, type[BaseModel]] = {
    "read": ReadOptions,
    "split": SplitConfig,
    "model": NetworkConfig,
    "training": TrainingConfig,
}


def _python() -> Iterator[str]:
    yield "# Python API\n\nEverything here is imported from `variseq`. All other modules are internal.\n"
    names = [f"variseq.{name}" for name in variseq.__all__]
    for name in [*names, *RETURNED]:
        module, _, attribute = name.rpartition(".")
        thing = getattr(sys.modules.get(module) or __import__(module, fromlist=[attribute]), attribute)
        if isinstance(thing, type) and issubclass(thing, Exception):
            continue
        kind = "class" if isinstance(thing, type) else "function"
        options = "   :members:\n" if kind == "class" and not issubclass(thing, BaseModel) else ""
        yield f"## {attribute}\n\n```{{eval-rst}}\n.. auto{kind}:: {name}\n{options}```\n"


def _exceptions() -> Iterator[str]:
    yield "# Exceptions and warnings\n\nOn the command line an `InputError` is one message and exit code 2.\n"
    for name in variseq.__all__:
        thing = getattr(variseq, name)
        if isinstance(thing, type) and issubclass(thing, Exception):
            bases = ", ".join(f"`{base.__name__}`" for base in thing.__bases__)
            yield f"## {name}\n\nBases: {bases}\n\n{thing.__doc__}\n"


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _configuration() -> Iterator[str]:
    yield (
        "# Configuration\n\n"
        "A key is set by `--set section.key=value`, or in a YAML file that `--config` names. In Python, `model` and "
        "`training` are dictionaries of `VariationalAttention`, and `read` keys are those of `ReadOptions`.\n\n"
        "The defaults of `model` and `training` depend on `size` and on the log. The table shows the values that hold "
        "where neither changes them. A finished run names all of its values in `config.yaml`.\n"
    )
    for section, options in SECTIONS.items():
        schema = options.model_json_schema(ref_template="{model}")
        yield f"## {section}\n\n| key | type | default | meaning |\n|---|---|---|---|"
        for key, field in options.model_fields.items():
            default = field.get_default(call_default_factory=True)
            shown = "from the log" if default is PydanticUndefined else f"`{_cell(default)}`"
            meaning = field.description or _of_docstring(options, key)
            yield f"| `{section}.{key}` | {_cell(_schema(schema['properties'][key]))} | {shown} | {_cell(meaning)} |"
        yield ""


def _of_docstring(options: type[BaseModel], key: str) -> str:
    """The item of a docstring's list that describes a key."""
    items = re.split(r"^\s*- ", options.__doc__ or "", flags=re.MULTILINE)[1:]
    for item in items:
        names, colon, text = item.partition(": ")
        if colon and f"`{key}`" in names:
            return " ".join(text.split("\n\n")[0].split())
    return ""


def _command_line() -> Iterator[str]:
    command = [sys.executable, "-m", "typer", "variseq.cli", "utils", "docs", "--name", "variseq"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    yield text.replace("# `variseq`", "# Command line", 1)


def _schema(schema: dict[str, Any]) -> str:
    """The type of a JSON schema in a few words."""
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_schema(one) for one in schema["anyOf"])
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " or ".join(json.dumps(value) for value in schema["enum"])
    if schema.get("type") == "array":
        return f"array of {_schema(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


def _linked(schema: dict[str, Any]) -> str:
    """The type, as a link to its table where it has one."""
    text = _schema(schema)
    return f"[{text}](#{text.lower()})" if "$ref" in schema else text


def _table(properties: dict[str, Any]) -> Iterator[str]:
    yield "| field | type | default | meaning |\n|---|---|---|---|"
    for field, about in properties.items():
        default = f"`{_cell(json.dumps(about['default']))}`" if "default" in about else ""
        yield f"| `{field}` | {_cell(_schema(about))} | {default} | {_cell(about.get('description', ''))} |"


def _operation(operation: dict[str, Any]) -> Iterator[str]:
    yield f"{operation.get('summary', '')}\n\n{operation.get('description', '')}\n"
    for part in operation.get("parameters", []):
        yield f"- `{part['name']}` ({part['in']}, {_schema(part['schema'])}) {part.get('description', '')}"
    if body := _json_schema(operation.get("requestBody", {})):
        yield f"- Body: {_linked(body)}"
    for status, answer in operation["responses"].items():
        if schema := _json_schema(answer):
            yield f"- {status}: {_linked(schema)}"
    refused = ", ".join(status for status, answer in operation["responses"].items() if "$ref" in answer)
    yield f"- Errors: {refused}\n" if refused else ""


def _json_schema(part: dict[str, Any]) -> dict[str, Any] | None:
    schema: dict[str, Any] | None = part.get("content", {}).get("application/json", {}).get("schema")
    return schema


def _http() -> Iterator[str]:
    document = openapi(API)
    yield "# HTTP API\n\nA running server gives the same at `/docs`, and as OpenAPI 3.1 at `/openapi.json`.\n"
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"## {method.upper()} {path}\n"
            yield from _operation(operation)
    yield "## Errors\n"
    yield from (
        f"- {status}: {answer['description']}" for status, answer in document["components"]["responses"].items()
    )
    yield "\n## Types\n"
    for name, schema in document["components"]["schemas"].items():
        yield f"### {name}\n\n{schema.get('description', '')}\n"
        yield from _table(schema.get("properties", {}))
        yield ""


def write_pages(app: Sphinx) -> None:
    """Write each page whose text has changed, so that an unchanged page is not read again."""
    pages = {
        "python": _python,
        "exceptions": _exceptions,
        "configuration": _configuration,
        "command-line": _command_line,
        "http": _http,
    }
    folder = Path(app.srcdir) / "reference" / "generated"
    folder.mkdir(exist_ok=True)
    for name, lines in pages.items():
        text, path = "\n".join(lines()), folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _short_signature(
    app: Sphinx, kind: str, name: str, thing: object, options: object, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """The options of a pydantic class are a table of their own."""
    is_model = isinstance(thing, type) and issubclass(thing, BaseModel)
    return ("(**options)", None) if is_model else (signature, returned)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the writing."""
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-signature", _short_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
