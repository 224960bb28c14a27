"""Imports and calls that made other servers vulnerable are absent; the parts of uvicorn that are overridden exist."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

import variseq.serving
from tests.terminal.invoke import refuse
from variseq.serving.server import LimitedHttpProtocol, Server

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


OF_SERVER = ("capture_signals", "handle_exit", "startup", "on_tick", "shutdown")
OF_PROTOCOL = (
    *("connection_made", "connection_lost", "data_received", "on_message_begin", "on_headers_complete"),
    *("pause_writing", "resume_writing"),
)


@pytest.mark.parametrize(
    ("ours", "theirs", "names"),
    [(Server, uvicorn.Server, OF_SERVER), (LimitedHttpProtocol, HttpToolsProtocol, OF_PROTOCOL)],
)
def test_every_method_that_is_overridden_is_there_with_its_parameters(
    ours: type, theirs: type, names: tuple[str, ...]
) -> None:
    for name in names:
        assert name in vars(ours)
        assert name in vars(theirs), f"uvicorn {uvicorn.__version__} has no {theirs.__name__}.{name}"
        parameters = [list(inspect.signature(inspect.unwrap(vars(one)[name])).parameters) for one in (ours, theirs)]
        assert parameters[0] == parameters[1]


def test_attributes_that_are_read_are_there() -> None:
    server = uvicorn.Server(uvicorn.Config(lambda: None, log_config=None))
    for name in ("should_exit", "force_exit", "server_state", "started"):
        assert hasattr(server, name)
    assert {"connections", "tasks"} <= set(vars(server.server_state))
    assert "shutdown" in vars(HttpToolsProtocol)


def test_server_on_windows_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    refuse("does not run on Windows.*WSL", "serve", "run")
