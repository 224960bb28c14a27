"""A run folder and what is asked of it into a printed evaluation, with other runs beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from variseq.errors import InputError
from variseq.estimator import load


@dataclass(frozen=True)
class Asked:
    """See `VariationalAttention.evaluate`; the runs of `beside` are rows that are called as the folder was written."""

    k: int
    targets: str
    exclude_seen: bool | None
    users: str | None
    beside: list[Path]
    dropout: bool


def evaluate_run(run: Path, asked: Asked, json: Path | None) -> str:
    """The table with its notes; with `json` the whole of it is written there."""
    if json is not None and (json.is_dir() or not json.parent.is_dir()):
        fault = "it is a folder" if json.is_dir() else f"the folder {json.parent} does not exist"
        raise InputError(f"--json {json}: {fault}. Give the name of a file in a folder that exists.")
    twice = [folder for folder in asked.beside if asked.beside.count(folder) > 1]
    if twice:
        raise InputError(f"--beside {twice[0]} is given twice. Give each run once.")
    results = load(run).evaluate(
        k=asked.k,
        targets=asked.targets,
        exclude_seen=asked.exclude_seen,
        users=asked.users,
        beside={str(folder): load(folder) for folder in asked.beside},
        dropout=asked.dropout,
    )
    if json is not None:
        results.to_json(json)
    return str(results)
