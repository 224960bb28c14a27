"""What past holes of other servers were made of is not in this one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import variseq.serving

ROOT = Path(variseq.serving.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
REFUSED = {
    "pickle", "multiprocessing", "marshal", "shelve", "joblib", "dill", "cloudpickle", "torch", "tarfile", "zipfile",
    "shutil", "requests", "httpx", "urllib.request", "http.client", "multipart", "jinja2", "onnx", "ray", "zmq",
}  # fmt: skip
every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))


def imports_of(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@every_file
def test_nothing_is_unpickled_unpacked_fetched_or_rendered_from_a_template(file: Path) -> None:
    """CVE-2025-32434, CVE-2024-50050, CVE-2026-27905, CVE-2023-43654, CVE-2026-33744: none has what it needs here."""
    imported = imports_of(file)
    assert not {name for name in imported if name in REFUSED or name.split(".")[0] in REFUSED}


@every_file
def test_no_form_is_parsed_and_no_file_is_answered_by_its_path(file: Path) -> None:
    """CVE-2024-47874, CVE-2025-62727: of Starlette only the routes are used."""
    of_starlette = {name for name in imports_of(file) if name.startswith("starlette")}
    allowed = ("starlette.routing", "starlette.types")
    assert all(name.startswith(allowed) for name in of_starlette)


@every_file
def test_no_shell_reads_a_command_and_nothing_is_evaluated(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in ("eval", "exec", "compile", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load")
            assert not any(keyword.arg == "shell" for keyword in node.keywords)
