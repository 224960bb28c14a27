"""Commands for the people in a log: what a run guarantees them or gives away, and how one of them is erased."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

commands = typer.Typer(rich_markup_mode=None)


@commands.command()
def privacy(
    run: Annotated[Path, typer.Argument(help="Folder of a run or an export.")],
    files: Annotated[bool, typer.Option("--files", help="Check that the folder holds nothing else.")] = False,
) -> None:
    """What a run guarantees to the people in its log. The exit code is 1 where it guarantees nothing."""
    from variseq.artifacts.folder import is_private, read_manifest
    from variseq.output.console import console
    from variseq.output.printable import printable
    from variseq.privacy.guarantee import faults_of, guarantee, leaks_of_run

    manifest = read_manifest(run)
    if not is_private(manifest):
        console().print(leaks_of_run(run), soft_wrap=True)
        raise typer.Exit(1)
    console().print(guarantee(manifest["privacy"]), soft_wrap=True)
    if files:
        faults = faults_of(run)
        for fault in faults:
            console().print(printable(fault), soft_wrap=True)
        if faults:
            raise typer.Exit(1)
        console().print("The folder holds the private tables and the public catalog, and nothing else.")


@commands.command()
def erase(
    runs: Annotated[Path, typer.Option(help="Folder of runs; all below it is searched.")],
    receipts: Annotated[Path, typer.Option(help="Folder of receipts and their secret key; made if it is not there.")],
    user: Annotated[list[str] | None, typer.Option(help="A user id; repeatable.")] = None,
    store: Annotated[str | None, typer.Option(help="URL of the store of a server.")] = None,
    backup: Annotated[
        list[Path] | None, typer.Option(help="A copy of a store, a table, or a folder of runs; repeatable.")
    ] = None,
    exposures: Annotated[Path | None, typer.Option(help="Folder of exposures of a server.")] = None,
    refit: Annotated[bool, typer.Option("--refit", help="Fit the runs again that have learned from them.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what holds them.")] = False,
) -> None:
    """Erase people from stores, runs, tables, exposures and backups, and write a receipt that names nobody."""
    from variseq.terminal.erase_people import EraseOptions, erase_people

    users, backups = tuple(dict.fromkeys(user or ())), tuple(backup or ())
    erase_people(EraseOptions(users, runs, receipts, store, backups, exposures, refit, dry_run))


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
