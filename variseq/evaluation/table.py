"""Turns evaluations of several models into one table: for JSON, and for people."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from variseq.errors import InputError
from variseq.evaluation.bootstrap import NUM_RESAMPLES
from variseq.evaluation.evaluation import Evaluation
from variseq.evaluation.significance import require_same_protocol


def evaluation_table(
    evaluations: Sequence[Evaluation], num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """`{"protocol": {...}, "rows": [{"model": ..., "ndcg@10": ..., "ndcg@10_interval": [...], ...}, ...]}`.

    Raises InputError without an evaluation, or when they were not measured alike.
    """
    if not evaluations:
        raise InputError("There is no evaluation to put into a table. Give at least one.")
    require_same_protocol(evaluations)
    resampling = {"num_resamples": num_resamples, "bootstrap_seed": seed}
    return {
        "protocol": evaluations[0].protocol | resampling,
        "rows": [evaluation.summary(num_resamples, seed) for evaluation in evaluations],
    }


def rich_table(table: dict[str, Any]) -> Table:
    """The main columns of an evaluation table, intervals beside the values, for a terminal."""
    k = table["protocol"]["k"]
    shown = [f"ndcg@{k}", f"recall@{k}", "mrr", "nll", f"ece_top{k}", f"coverage@{k}"]
    grid = Table(title=_title(table), show_lines=False)
    grid.add_column("model", no_wrap=True)
    for name in shown:
        grid.add_column(name, justify="right")
    for row in table["rows"]:
        grid.add_row(row["model"], *(_cell(row, name) for name in shown))
    return grid


def text_table(table: dict[str, Any], width: int = 120) -> str:
    """The same as plain text, without colours."""
    text = io.StringIO()
    Console(file=text, width=width, color_system=None, force_terminal=False).print(rich_table(table))
    return text.getvalue()


def _title(table: dict[str, Any]) -> str:
    protocol, row = table["protocol"], table["rows"][0]
    return (
        f"{protocol['part']} part, {protocol['method']} split, {row['num_queries']} queries, target: "
        f"{protocol['targets']}, all {protocol['num_items']} items ranked; below each value its 95 % interval over "
        "users"
    )


def _cell(row: dict[str, Any], name: str) -> str:
    value, interval = row[name], row.get(f"{name}_interval")
    if value is None:
        return "-"
    digits = 2 if name == "nll" else 4
    if interval is None:
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f}\n{interval[0]:.{digits}f}–{interval[1]:.{digits}f}"
