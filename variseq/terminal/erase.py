"""The commands `erase` and `verify`: people are removed from everything that holds them, and a receipt proves it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

commands = typer.Typer(rich_markup_mode=None)


@commands.command()
def erase(
    runs: Annotated[Path, typer.Option(help="Folder of runs; all below it is searched.")],
    receipts: Annotated[Path, typer.Option(help="Folder of receipts and their secret key; made if it is not there.")],
    user: Annotated[list[str] | None, typer.Option(help="A user id; repeatable.")] = None,
    store: Annotated[str | None, typer.Option(help="URL of the store of a server.")] = None,
    backup: Annotated[
        list[Path] | None, typer.Option(help="A copy of a store, a table, or a folder of runs; repeatable.")
    ] = None,
    refit: Annotated[bool, typer.Option("--refit", help="Fit the runs again that have learned from them.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what holds them.")] = False,
) -> None:
    """Erase people from stores, runs, tables and backups, and write a receipt that names nobody."""
    from variseq.terminal.erase_people import EraseOptions, erase_people

    erase_people(
        EraseOptions(tuple(dict.fromkeys(user or ())), runs, receipts, store, tuple(backup or ()), refit, dry_run)
    )


@commands.command()
def verify(
    receipt: Annotated[Path, typer.Argument(help="A receipt of `variseq erase`.")],
    run: Annotated[Path | None, typer.Option(help="Compare the data and the weights of this run too.")] = None,
    refit_again: Annotated[
        bool, typer.Option("--refit-again", help="Fit the run again and compare the weights.")
    ] = False,
) -> None:
    """Check a receipt: that it was not altered, that nobody erased is in the data, and what a run holds now."""
    from variseq.terminal.verify_receipt import verify_run

    verify_run(receipt, run, refit_again)
