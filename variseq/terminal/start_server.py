"""Start a server of one process or several."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import typer

from variseq.output.printable import printable
from variseq.serving.app import Application
from variseq.serving.keys import read_keys
from variseq.serving.models import exported_model
from variseq.serving.server import Workers, bind_socket, run, url_of
from variseq.serving.settings import ServeSettings, serve_settings
from variseq.serving.stores import open_store
from variseq.serving.stores.protocol import HistoryStore
from variseq.serving.stores.transfer import import_run
from variseq.serving.telemetry import json_logging


def serve_run(flags: dict[str, Any], config: Path | None) -> None:
    """Serve until a signal. Raises VariseqError and OSError where the server cannot start."""
    settings = serve_settings(flags, os.environ, config)
    if settings.keys is not None:
        read_keys(settings.keys)
    exported_model(settings.run, _print)
    with json_logging(), bind_socket(settings) as listener:
        url = url_of(listener)
        if settings.workers > 1:
            store = open_store(settings.store)
            try:
                _import(settings, store)
            finally:
                store.close()
            Workers(settings, listener).run(lambda: _announce(settings, url))
        else:
            application = Application(settings)
            _import(settings, application.services.store)
            run(application, listener, lambda: _announce(settings, url))


def _import(settings: ServeSettings, store: HistoryStore) -> None:
    import_run(store, settings.run, settings.import_histories, _print)


def _announce(settings: ServeSettings, url: str) -> None:
    typer.echo(f"Serving {printable(settings.run)} at {url}  (explorer: /explore, API: /docs)")


def _print(text: str) -> None:
    typer.echo(printable(text))
