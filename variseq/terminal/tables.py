"""Recommendations into a table, and a comparison into a sentence, for people."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from variseq.evaluation.significance import Comparison
from variseq.output.printable import printable


def recommendations_table(rows: list[dict[str, Any]]) -> Table:
    """user → ranked titles, with probability and reasons where there are any; ids where there are no titles."""
    has_more = bool(rows) and "probability" in rows[0]
    table = Table(title="recommendations")
    table.add_column("user", overflow="fold")
    table.add_column("rank", justify="right")
    table.add_column("item", overflow="fold")
    if has_more:
        table.add_column("probability, %", justify="right", no_wrap=True)
        table.add_column("because of", overflow="fold", max_width=60)
    for row in rows:
        title = row["item_id"] if row["title"] is None else f"{row['title']} ({row['item_id']})"
        user = ""
        if row["rank"] == 1:
            table.add_section()
            user = "this history" if row["user_id"] is None else str(row["user_id"])
        more = [_probability(row), printable("; ".join(row.get("reasons", [])))] if has_more else []
        table.add_row(printable(user), str(row["rank"]), printable(title), *more)
    return table


def _probability(row: dict[Any, Any]) -> str:
    """The probability and in brackets its interval, both in per cent.

    >>> _probability({"probability": 0.0312, "probability_low": 0.021, "probability_high": 0.0464})
    '3.12 (2.10–4.64)'
    """
    return f"{row['probability']:.2%} ({row['probability_low']:.2%}–{row['probability_high']:.2%})".replace("%", "")


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
