"""The `evaluate` and `compare` commands: a run on its test part or on a test file, with other runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from variseq.errors import InputError
from variseq.estimator import load
from variseq.evaluation.significance import Comparison
from variseq.events.options import ColumnNames
from variseq.log import read
from variseq.terminal.read_options import options_of_more_events


def refuse_unwritable(json: Path | None) -> None:
    """Raises InputError for a file of `--json` that cannot be made, before any work is done."""
    if json is not None and (json.is_dir() or not json.parent.is_dir()):
        fault = "it is a folder" if json.is_dir() else f"the folder {json.parent} does not exist"
        raise InputError(f"--json {json}: {fault}. Give the name of a file in a folder that exists.")


def evaluate_run(
    run: Path,
    test_file: str | None,
    columns: ColumnNames | None,
    compare_with: list[Path],
    json: Path | None,
    **how: Any,
) -> str:
    """The table with its notes; with `json` the whole of it is written there.

    The runs of `compare_with` are rows with the name of their folder. For `how` see `VariationalAttention.evaluate`.
    """
    refuse_unwritable(json)
    if twice := [folder for folder in compare_with if compare_with.count(folder) > 1]:
        raise InputError(f"--compare-with {twice[0]} is given twice. Give each run once.")
    model = load(run)
    if columns is not None and test_file is None:
        raise InputError("--columns names the columns of a test file. Give one with --test-file, or leave it out.")
    log = None
    if test_file is not None:
        assert model.checkpoint is not None
        options = options_of_more_events(model.checkpoint.manifest["log"].get("options", {}), columns)
        log = read(test_file, options=options)
    results = model.evaluate(log, compare_with={str(folder): load(folder) for folder in compare_with}, **how)
    if json is not None:
        results.to_json(json)
    return str(results)


def comparison_sentence(first: str, second: str, k: int, found: Comparison) -> str:
    """The difference of two runs with its interval, and in words whether it may be chance.

    >>> found = Comparison("ndcg", "variseq", "variseq", 0.012, (0.004, 0.020), 0.003, 500)
    >>> print(comparison_sentence("runs/a", "runs/b", 10, found))
    ndcg@10 of runs/a minus that of runs/b: +0.0120, 95 % interval +0.0040 to +0.0200, p = 0.0030, 500 users.
    The difference is larger than chance explains.
    """
    metric = f"{found.metric}@{k}" if found.metric in ("ndcg", "recall") else found.metric
    low, high = found.interval
    verdict = "is larger than chance explains" if found.p_value < 0.05 else "may be chance"
    return (
        f"{metric} of {first} minus that of {second}: {found.difference:+.4f}, "
        f"95 % interval {low:+.4f} to {high:+.4f}, p = {found.p_value:.4f}, {found.num_users:,} users.\n"
        f"The difference {verdict}."
    )
