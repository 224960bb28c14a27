"""The server overrides parts of uvicorn that are not promised to stay: a release without them must not go unnoticed."""

from __future__ import annotations

import inspect

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tests.terminal.invoke import refuse
from variseq.serving.server import LimitedHttpProtocol, Server

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
