"""A run and settings into a running server, of one process or several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from variseq.output.printable import printable
from variseq.serving.app import Application
from variseq.serving.exporting import exported_model
from variseq.serving.first_start import import_run
from variseq.serving.keys import read_keys
from variseq.serving.logs import LogLines, log_as_json
from variseq.serving.server import address_of, run, take_port
from variseq.serving.settings import ServeSettings, serve_settings, server_environment
from variseq.serving.stores.opening import open_store
from variseq.serving.workers import run_workers


def serve_run(flags: dict[str, Any], config: Path | None) -> None:
    """Serve until a signal. Raises VariseqError and OSError where the server cannot start."""
    settings = serve_settings(flags, server_environment(), config)
    if settings.keys is not None:
        read_keys(settings.keys)
    exported_model(settings.run)
    lines = LogLines()
    log_as_json(lines)
    try:
        if settings.workers > 1:
            _serve_by_workers(settings)
            return
        listener = take_port(settings)
        application = Application(settings, lines)
        _tell(import_run(settings, application.services.store))
        run(application, listener, lambda: _announce(settings, address_of(listener)))
    finally:
        lines.close()


def _serve_by_workers(settings: ServeSettings) -> None:
    listener = take_port(settings)
    store = open_store(settings.store)
    try:
        _tell(import_run(settings, store))
    finally:
        store.close()
    address = address_of(listener)
    run_workers(settings, listener, lambda: _announce(settings, address))


def _announce(settings: ServeSettings, address: str) -> None:
    typer.echo(f"Serving {printable(settings.run)} at {address}  (explorer: /explore, API: /docs)")


def _tell(text: str | None) -> None:
    if text is not None:
        typer.echo(printable(text))
