"""The command `privacy`: what a run guarantees, or what an ordinary run gives away of the people in its log."""

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
    from variseq.privacy.guarantee import guarantee, leaks_of_run
    from variseq.privacy.private_folder import faults_of

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
