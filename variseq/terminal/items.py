"""The `items` commands: add, update, remove and list items that a run was not trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from variseq.output.printable import printable

if TYPE_CHECKING:
    from variseq.ranking.catalog_changes import CatalogChanges, ChangeCounts
    from variseq.ranking.changed_engine import ChangeableEngine

commands = typer.Typer(help="Items that a run was not trained on.", no_args_is_help=True, rich_markup_mode=None)
RunFolder = Annotated[Path, typer.Argument(help="Folder of a finished run, or of an export.")]


@commands.command("add")
def add(
    run: RunFolder,
    new_items: Annotated[str, typer.Argument(help="File with item_id, title, category, texts, vectors, numbers.")],
) -> None:
    """Add items, or update titles and categories; a server of the run follows within a second."""
    from variseq.events.items import read_new_items
    from variseq.ranking.catalog_changes import details_of

    engines = _engines(run)
    given = details_of(*read_new_items(new_items, engines.trained.vocabulary.items.type))
    counts = _change(run, lambda before: engines.with_items(before, given))
    typer.echo(f"{counts.added:,} added, {counts.updated:,} updated, {counts.unchanged:,} not changed")
    if counts.not_read:
        typer.echo(f"The model does not read: {printable(', '.join(counts.not_read))}")


@commands.command("remove")
def remove(run: RunFolder, item: Annotated[list[str], typer.Argument(help="Item ids.")]) -> None:
    """Remove items: no answer has them any more."""
    engines = _engines(run)
    ids = [engines.trained.vocabulary.parse_item_id(one) for one in item]
    counts = _change(run, lambda before: engines.without_items(before, ids))
    typer.echo(f"{counts.removed:,} removed, {counts.unchanged:,} not changed")


@commands.command("replace")
def replace(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    other_items: Annotated[str, typer.Argument(help="File with item_id, title, category, texts, vectors, numbers.")],
    out: Annotated[Path, typer.Option(help="Folder for the run of the other catalog; must not exist yet.")],
) -> None:
    """Write a run of another catalog, whose items RUN never saw; they are forecast by what is known of them."""
    from variseq.atomic import refuse_existing
    from variseq.estimator import load

    refuse_existing(out)
    other = load(run).with_catalog(other_items)
    other.save(out)
    typer.echo(f"{other.vocabulary.num_items:,} items\nRun: {printable(out)}")


@commands.command("list")
def show(run: RunFolder) -> None:
    """List the items with a change: id, title, categories; and the removed ones."""
    from variseq.artifacts.catalog_changes import read_changes
    from variseq.artifacts.folder import read_manifest

    read_manifest(run)
    changes = read_changes(run)
    for one in changes.items:
        cells = (one.item_id, one.title or "", " | ".join(one.categories or ()))
        typer.echo("\t".join(map(printable, cells)))
    for item_id in changes.removed:
        typer.echo(f"{printable(item_id)}\tremoved")
    typer.echo(f"{len(changes.items):,} added or updated, {len(changes.removed):,} removed", err=True)


def _engines(run: Path) -> ChangeableEngine:
    """The model of a run or an export. Raises CheckpointError."""
    from variseq.artifacts.folder import TABLES, has_file
    from variseq.ranking.changed_engine import ChangeableEngine

    if has_file(run, TABLES):
        from variseq.inference.engine import load_engine

        return ChangeableEngine(load_engine(run))
    from variseq.artifacts.checkpoint import load_checkpoint
    from variseq.recommend.network_model import engine_of

    return ChangeableEngine(engine_of(load_checkpoint(run)))


def _change(run: Path, how: Callable[[CatalogChanges], tuple[CatalogChanges, ChangeCounts]]) -> ChangeCounts:
    """Change the file, while no other process does. Raises what `how` raises, and CheckpointError."""
    from variseq.artifacts.catalog_changes import locked, read_changes, write_changes

    with locked(run):
        before = read_changes(run)
        after, counts = how(before)
        if after != before:
            write_changes(run, after)
    return counts
