"""A run into a file of the vectors of its items or users, with a bar where it takes long."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from variseq.estimator import load


def write_vectors(run: Path, out: Path, of: str) -> None:
    """Writes the file and prints what is in it."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"Vectors of {of}", total=None)
        num_rows = load(run).vectors_to_file(out, of, lambda done, total: bar.update(task, completed=done, total=total))
    Console().print(f"{num_rows:,} vectors of {of}: {out}", highlight=False, soft_wrap=True)
