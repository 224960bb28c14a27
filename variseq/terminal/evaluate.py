"""A run folder and what is asked of it into a printed evaluation, with other runs beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from variseq.errors import InputError
from variseq.estimator import VariationalAttention, load
from variseq.events.options import ColumnNames, ReadOptions
from variseq.log import Log, read


@dataclass(frozen=True)
class Asked:
    """See `VariationalAttention.evaluate`; the runs of `beside` are rows that are called as the folder was written."""

    k: int
    targets: str
    exclude_seen: bool | None
    users: str | None
    beside: list[Path]
    dropout: bool
    test_file: str | None = None
    columns: ColumnNames | None = None


def read_test_file(path: str, model: VariationalAttention, columns: ColumnNames | None = None) -> Log:
    """A log of events to be judged on, read as the log of the run was, but for the limits on rare users and items."""
    checkpoint = model.checkpoint
    assert checkpoint is not None
    return read(path, options=options_of_test_file(checkpoint.manifest["log"].get("options", {}), columns))


def options_of_test_file(of_log: dict[str, Any], columns: ColumnNames | None = None) -> ReadOptions:
    """The options of a log without the limits on rare users and items, which would hide test events."""
    changes: dict[str, Any] = {"min_user_events": 1, "min_item_events": 1}
    return ReadOptions(**{**of_log, **changes, **({} if columns is None else {"columns": columns})})


def evaluate_run(run: Path, asked: Asked, json: Path | None) -> str:
    """The table with its notes; with `json` the whole of it is written there."""
    if json is not None and (json.is_dir() or not json.parent.is_dir()):
        fault = "it is a folder" if json.is_dir() else f"the folder {json.parent} does not exist"
        raise InputError(f"--json {json}: {fault}. Give the name of a file in a folder that exists.")
    twice = [folder for folder in asked.beside if asked.beside.count(folder) > 1]
    if twice:
        raise InputError(f"--beside {twice[0]} is given twice. Give each run once.")
    model = load(run)
    if asked.columns is not None and asked.test_file is None:
        raise InputError("--columns names the columns of a test file. Give one with --test-file, or leave it out.")
    given = None if asked.test_file is None else read_test_file(asked.test_file, model, asked.columns)
    results = model.evaluate(
        given,
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
