"""Flags before environment before file; an unknown name is an error wherever it stands."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from variseq.errors import InputError
from variseq.serving.settings import ServeSettings, serve_settings
from variseq.terminal.serve import serve


def test_flags_win_over_environment_and_environment_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("run: from-file\nport: 1\nworkers: 2\nbatch_size: 3\n")
    settings = serve_settings(
        {"port": 3, "host": None}, {"VARISEQ_SERVE_PORT": "2", "VARISEQ_SERVE_WORKERS": "4"}, file
    )
    assert (settings.port, settings.workers, settings.batch_size, str(settings.run)) == (3, 4, 3, "from-file")
    named = serve_settings({}, {"VARISEQ_SERVE_CONFIG": str(file), "OTHER": "x"})
    assert named.batch_size == 3


@pytest.mark.parametrize("place", ["file", "environment", "flags"])
def test_unknown_name_is_an_error(tmp_path: Path, place: str) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("run: x\n" + ("prot: 1\n" if place == "file" else ""))
    environment = {"VARISEQ_SERVE_PROT": "1"} if place == "environment" else {}
    with pytest.raises(InputError, match=r"(?i)'.*prot' in .* is no setting"):
        serve_settings({"prot": 1} if place == "flags" else {}, environment, file)


@pytest.mark.parametrize("text", ["- a", "1: 2", "run: [", "\x00", "!!python/object/apply:os.system ['true']"])
def test_file_that_is_no_mapping_of_names_is_one_message(tmp_path: Path, text: str) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match="configuration"):
        serve_settings({"run": "x"}, {}, file)


@pytest.mark.parametrize(
    ("name", "value"),
    [("port", "-1"), ("port", "high"), ("workers", 65), ("timeout_seconds", 0), ("rate_limit", -1), ("batch_size", 0)],
)
def test_value_that_is_not_allowed_is_one_message(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{name}="):
        serve_settings({"run": "x", name: value}, {})


def test_command_has_a_flag_for_every_setting() -> None:
    assert set(inspect.signature(serve).parameters) == {*ServeSettings.model_fields, "config"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org", ""])
def test_other_machines_are_let_in_only_with_keys(host: str) -> None:
    with pytest.raises(InputError):
        serve_settings({"run": "x", "host": host}, {})
    if host:
        assert serve_settings({"run": "x", "host": host, "keys": "keys.yaml"}, {}).host == host


def test_run_must_be_given() -> None:
    with pytest.raises(InputError, match="no run to serve"):
        serve_settings({}, {})
