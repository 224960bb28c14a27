"""The command `serve`: the settings of a server as options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from variseq.errors import InputError, MissingDependencyError

commands = typer.Typer(rich_markup_mode=None)


@commands.command()
def serve(
    run: Annotated[Path | None, typer.Argument(help="Folder of a finished run, or of an export.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; 127.0.0.1 otherwise.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 8000 otherwise, 0 takes a free one.")] = None,
    store: Annotated[str | None, typer.Option(help="URL of the store; sqlite:///events.db otherwise.")] = None,
    import_histories: Annotated[
        str | None, typer.Option(help="Import the run's histories: yes, no, or auto (into an empty store).")
    ] = None,
    model_dir: Annotated[Path | None, typer.Option(help="Folder of models that can replace the run.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the pictures that the table of items names.")] = None,
    keys: Annotated[Path | None, typer.Option(help="File of API keys; see `variseq keys create`.")] = None,
    audit_log: Annotated[Path | None, typer.Option(help="File for the audit log.")] = None,
    exposures: Annotated[Path | None, typer.Option(help="Folder for lists that were answered.")] = None,
    exposures_days: Annotated[int | None, typer.Option(help="Days to keep it; for ever otherwise.")] = None,
    experiment: Annotated[Path | None, typer.Option(help="YAML file with arms.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; 1 otherwise.")] = None,
    rate_limit: Annotated[float | None, typer.Option(help="Requests a second for each key and worker.")] = None,
    burst: Annotated[int | None, typer.Option(help="Requests at once; twice the rate otherwise.")] = None,
    queue_length: Annotated[int | None, typer.Option(help="Requests that may wait for the model.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Requests answered in one pass.")] = None,
    batch_users: Annotated[int | None, typer.Option(help="Users in one request of /v1/recommend/batch.")] = None,
    timeout_seconds: Annotated[float | None, typer.Option(help="Time for an answer.")] = None,
    request_timeout_seconds: Annotated[float | None, typer.Option(help="Time for a client to send a request.")] = None,
    keep_alive_seconds: Annotated[float | None, typer.Option(help="Time an idle connection is kept open.")] = None,
    shutdown_grace_seconds: Annotated[
        float | None, typer.Option(help="From not ready to the end of listening.")
    ] = None,
    cache_megabytes: Annotated[float | None, typer.Option(help="Decoded histories in RAM, a worker.")] = None,
    max_connections: Annotated[int | None, typer.Option(help="Open connections, a worker.")] = None,
    strategy: Annotated[str | None, typer.Option(help="Of requests: greedy, softmax or thompson.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the softmax: small is close to greedy.")] = None,
    pool: Annotated[int | None, typer.Option(help="Items among which the softmax draws.")] = None,
    uniform_share: Annotated[float | None, typer.Option(help="Share of the last place for the whole pool.")] = None,
    log_requests: Annotated[bool | None, typer.Option(help="A line on stderr for each request.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with these same names.")] = None,
) -> None:
    """Answer over HTTP: events in, the very next answer reflects them. Each option is also VARISEQ_SERVE_<NAME>."""
    flags = {name: value for name, value in locals().items() if name != "config"}
    if sys.platform == "win32":
        raise InputError(
            "The server does not run on Windows: it needs the sockets and file locks of Linux and macOS. Run it in WSL "
            "or in a container."
        )
    try:
        from variseq.terminal.start_server import serve_run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("variseq"):
            raise
        raise MissingDependencyError(error.name or "a library", "serve") from error
    serve_run(flags, config)
