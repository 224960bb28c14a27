"""The commands serve, export, backup and keys; nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from variseq.errors import InputError, MissingDependencyError
from variseq.output.printable import printable

serving = typer.Typer(rich_markup_mode=None)
keys = typer.Typer(help="API keys of a server.", no_args_is_help=True, rich_markup_mode=None)


@serving.command()
def serve(
    run: Annotated[Path | None, typer.Argument(help="Folder of a finished run, or of an export.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; 127.0.0.1 otherwise.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 8000 otherwise, 0 takes a free one.")] = None,
    store: Annotated[
        str | None, typer.Option(help="URL of the store of histories; sqlite:///events.db otherwise.")
    ] = None,
    import_histories: Annotated[
        str | None, typer.Option(help="auto, yes or no: import the run's histories; auto: into an empty store.")
    ] = None,
    model_dir: Annotated[Path | None, typer.Option(help="Folder of models that can replace the run.")] = None,
    keys: Annotated[Path | None, typer.Option(help="File of API keys; see `variseq keys create`.")] = None,
    audit_log: Annotated[Path | None, typer.Option(help="File for the audit log.")] = None,
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
        float | None, typer.Option(help="Time between not ready and the end of listening.")
    ] = None,
    cache_megabytes: Annotated[float | None, typer.Option(help="Decoded histories in RAM, a worker.")] = None,
    max_connections: Annotated[int | None, typer.Option(help="Open connections, a worker.")] = None,
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
        from variseq.terminal.serve import serve_run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("variseq"):
            raise
        raise MissingDependencyError(error.name or "a library", "serve") from error
    serve_run(flags, config)


@serving.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the export; into the run otherwise.")] = None,
    quantize: Annotated[bool, typer.Option("--quantize", help="Weights of the encoder in 8 bits.")] = False,
) -> None:
    """Export a run, so that it is served without torch."""
    from variseq.export import export as export_run

    typer.echo(f"Export: {printable(export_run(run, out, quantize))}")


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="Who gets the key.")],
    role: Annotated[list[str], typer.Option(help="read, write, erase or admin; may be given several times.")],
    file: Annotated[Path, typer.Option(help="File of keys; made if it is not there.")],
) -> None:
    """Make a key, show it once, and keep its hash in the file."""
    from variseq.serving.keys import create_key as make_key

    key = make_key(file, name, role)
    typer.echo(f"The key {name!r} is shown only once; its hash is in {printable(file)}.", err=True)
    typer.echo(key)


@serving.command()
def backup(
    store: Annotated[str, typer.Argument(help="URL of the store: sqlite:///events.db")],
    target: Annotated[Path, typer.Argument(help="File for the copy.")],
) -> None:
    """Copy a store as it is at one moment, while a server uses it."""
    from variseq.serving.stores.transfer import back_up
    from variseq.terminal.read_options import open_file_store

    opened = open_file_store(store)
    try:
        back_up(opened, target)
    finally:
        opened.close()
    typer.echo(f"Backup: {printable(target)}")
