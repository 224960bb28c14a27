"""The `evaluate` command: a run on its test part or on a test file, with other runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from variseq.errors import InputError
from variseq.estimator import VariationalAttention, load
from variseq.events.options import ColumnNames, ReadOptions
from variseq.log import Log, read


@dataclass(frozen=True)
class EvaluateRequest:
    """See `VariationalAttention.evaluate`; the runs of `compare_with` are rows with the name of their folder."""

    k: int
    targets: str
    exclude_seen: bool | None
    users: str | None
    compare_with: list[Path]
    mc_dropout: bool
    test_file: str | None = None
    columns: ColumnNames | None = None


def read_test_file(path: str, model: VariationalAttention, columns: ColumnNames | None = None) -> Log:
    """A log to evaluate on, read as the log of the run was, but for the limits on rare users and items."""
    checkpoint = model.checkpoint
    assert checkpoint is not None
    return read(path, options=options_of_test_file(checkpoint.manifest["log"].get("options", {}), columns))


def options_of_test_file(of_log: dict[str, Any], columns: ColumnNames | None = None) -> ReadOptions:
    """The options of a log without the limits on rare users and items, which would hide test events."""
    changes: dict[str, Any] = {"min_user_events": 1, "min_item_events": 1}
    return ReadOptions(**{**of_log, **changes, **({} if columns is None else {"columns": columns})})


def evaluate_run(run: Path, request: EvaluateRequest, json: Path | None) -> str:
    """The table with its notes; with `json` the whole of it is written there."""
    if json is not None and (json.is_dir() or not json.parent.is_dir()):
        fault = "it is a folder" if json.is_dir() else f"the folder {json.parent} does not exist"
        raise InputError(f"--json {json}: {fault}. Give the name of a file in a folder that exists.")
    twice = [folder for folder in request.compare_with if request.compare_with.count(folder) > 1]
    if twice:
        raise InputError(f"--compare-with {twice[0]} is given twice. Give each run once.")
    model = load(run)
    if request.columns is not None and request.test_file is None:
        raise InputError("--columns names the columns of a test file. Give one with --test-file, or leave it out.")
    log = None if request.test_file is None else read_test_file(request.test_file, model, request.columns)
    results = model.evaluate(
        log,
        k=request.k,
        targets=request.targets,
        exclude_seen=request.exclude_seen,
        users=request.users,
        compare_with={str(folder): load(folder) for folder in request.compare_with},
        mc_dropout=request.mc_dropout,
    )
    if json is not None:
        results.to_json(json)
    return str(results)
