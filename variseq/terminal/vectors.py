"""A run into a file of the vectors of its items or users, with a bar where it takes long."""

from __future__ import annotations

from pathlib import Path

from rich.progress import Progress

from variseq.estimator import load
from variseq.output.console import console
from variseq.output.printable import printable


def write_vectors(run: Path, out: Path, of: str) -> None:
    """Writes the file and prints what is in it."""
    shown = console(stderr=True)
    with Progress(console=shown, transient=True, disable=not shown.is_terminal) as bar:
        task = bar.add_task(f"Vectors of {of}", total=None)
        num_rows = load(run).vectors_to_file(out, of, lambda done, total: bar.update(task, completed=done, total=total))
    console().print(f"{num_rows:,} vectors of {of}: {printable(out)}", soft_wrap=True)
