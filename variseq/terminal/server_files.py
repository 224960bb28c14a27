"""Commands for the files of a server: its API keys, and copies of its store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from variseq.errors import InputError
from variseq.output.printable import printable

keys_commands = typer.Typer(help="API keys of a server.", no_args_is_help=True, rich_markup_mode=None)
backup_commands = typer.Typer(rich_markup_mode=None)


@keys_commands.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="Who gets the key.")],
    role: Annotated[list[str], typer.Option(help="read, write, erase or admin; repeatable.")],
    file: Annotated[Path, typer.Option(help="File of keys; made if it is not there.")],
) -> None:
    """Make a key, show it once, and keep its hash in the file."""
    from variseq.serving.keys import create_key as make_key

    key = make_key(file, name, role)
    typer.echo(f"The key {name!r} is shown only once; its hash is in {printable(file)}.", err=True)
    typer.echo(key)


@backup_commands.command()
def backup(
    store: Annotated[str, typer.Argument(help="URL of the store: sqlite:///events.db")],
    target: Annotated[Path, typer.Argument(help="File for the copy.")],
) -> None:
    """Copy a store as it is at one moment, while a server uses it."""
    from variseq.serving.stores.sqlite import SqliteStore
    from variseq.serving.stores.transfer import back_up
    from variseq.terminal.read_options import open_durable_store

    opened = open_durable_store(store)
    try:
        if not isinstance(opened, SqliteStore):
            raise InputError("variseq backup copies a SQLite file. Copy a PostgreSQL database with pg_dump.")
        back_up(opened, target)
    finally:
        opened.close()
    typer.echo(f"Backup: {printable(target)}")
