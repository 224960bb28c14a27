"""Turns evaluations of several models into one table: for JSON, and for people."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from variseq.errors import InputError
from variseq.evaluation.bootstrap import NUM_RESAMPLES
from variseq.evaluation.evaluation import Evaluation
from variseq.evaluation.group_rows import MIN_USERS
from variseq.evaluation.groups import Groups
from variseq.evaluation.pooled import CONFORMAL
from variseq.evaluation.significance import require_same_protocol
from variseq.evaluation.summary import SELECTIVE_GAIN
from variseq.output.console import console
from variseq.output.printable import printable
from variseq.ranking.calibration import ConformalThresholds


def evaluation_table(
    evaluations: Sequence[Evaluation],
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    user_groups: Mapping[str, Groups] | None = None,
    thresholds: ConformalThresholds | None = None,
) -> dict[str, Any]:
    """`{"protocol": {...}, "rows": [{"model": ..., "ndcg@10": ..., "ndcg@10_interval": [...], ...}, ...]}`.

    `user_groups` has by the name of a column the group of each user of the log. `thresholds` are those of the first
    model's conformal sets; the others have none.

    Raises InputError without an evaluation, or when they were not measured alike.
    """
    if not evaluations:
        raise InputError("There is no evaluation to put into a table. Give at least one.")
    require_same_protocol(evaluations)
    resampling = {"num_resamples": num_resamples, "bootstrap_seed": seed}
    return {
        "protocol": evaluations[0].protocol | resampling,
        "rows": [
            evaluation.summary(num_resamples, seed, user_groups, thresholds if place == 0 else None)
            for place, evaluation in enumerate(evaluations)
        ],
    }


def rich_table(table: dict[str, Any]) -> Table:
    """The main columns of an evaluation table, intervals beside the values, for a terminal."""
    k = table["protocol"]["k"]
    shown = [f"ndcg@{k}", f"recall@{k}", "mrr", "nll", f"ece_top{k}", f"coverage@{k}"]
    grid = Table(title=_title(table), show_lines=False)
    # The path of a run may be long; numbers stay whole.
    grid.add_column("model", overflow="fold", min_width=len("last-item-transitions"))
    for name in shown:
        grid.add_column(name, justify="right", no_wrap=True)
    for row in table["rows"]:
        grid.add_row(printable(row["model"]), *(_cell(row, name) for name in shown))
    return grid


def text_table(table: dict[str, Any], width: int = 120) -> str:
    """The same as plain text, without colors."""
    text = io.StringIO()
    console(file=text, width=width).print(rich_table(table))
    return text.getvalue()


def notes_on(row: dict[str, Any], k: int) -> list[str]:
    """Sentences on one model: what leaving out its least certain answers does, its sets, and its groups of users."""
    notes = []
    if row[SELECTIVE_GAIN] is not None:
        low, high = row[f"{SELECTIVE_GAIN}_interval"]
        notes.append(
            f"answering only the half of the queries with least entropy: ndcg@{k} {row[f'selective_ndcg@{k}_50']:.4f}, "
            f"{row[SELECTIVE_GAIN]:+.1%} ({low:+.1%} to {high:+.1%})"
        )
    if row[CONFORMAL] is not None:
        low, high = row[f"{CONFORMAL}_interval"]
        notes.append(
            f"sets made to hold the next item 90 % of the time hold {row[CONFORMAL]:.1%} ({low:.1%}–{high:.1%})"
        )
    for column, groups in row["by_user_column"].items():
        notes += _notes_on_column(column, groups, row["compared_by_user_column"][column])
    return [printable(note) for note in notes]


def _notes_on_column(column: str, groups: list[dict[str, Any]], compared: dict[str, Any]) -> list[str]:
    notes = []
    for name, found in compared.items():
        if found is not None:
            low, high = found["gap_interval"]
            notes.append(
                f"by {column}, {name}: worst {found['worst']:.4f} ({found['worst_group']}), best {found['best']:.4f} "
                f"({found['best_group']}), gap {found['gap']:.4f} ({low:.4f} to {high:.4f})"
            )
    small = [f"{row['group']} ({row['num_users']})" for row in groups if not row["is_compared"]]
    if small:
        notes.append(f"by {column}, not compared with fewer than {MIN_USERS} users: {', '.join(small)}")
    if len(small) > len(groups) - 2:
        notes.append(f"by {column}: fewer than two groups of at least {MIN_USERS} users, so nothing can be compared")
    return notes


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
