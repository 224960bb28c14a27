"""The `when` command: the time of the next event as a table or JSON."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from variseq.estimator import load
from variseq.output.console import console
from variseq.output.printable import printable
from variseq.ranking.when import WITHIN
from variseq.terminal.named_items import NamedItems
from variseq.terminal.recommend_options import typed_moment

TIMES = ("last_event", "low", "median", "high")
USERS_AT_ONCE = 3
"""Columns of a table that fits into 80 characters."""


def when_run(
    run: Path,
    users: list[str] | None,
    history_json: str | None,
    at: str | None,
    level: float,
    within: list[str] | None,
    as_json: bool,
) -> None:
    """Prints one row for each user; see `VariationalAttention.when`."""
    model = load(run)
    ids = [model.vocabulary.parse_user_id(text) for text in users or []] or None
    history = None
    if history_json is not None:
        history = NamedItems(model.vocabulary).history_of_json("--history-json", history_json)
    durations = within or WITHIN
    found = model.when(ids, history, at=typed_moment(at), level=level, within=durations)
    if as_json:
        print(found.to_json(orient="records", date_format="iso"))
        return
    for first in range(0, len(found), USERS_AT_ONCE):
        some = found.iloc[first : first + USERS_AT_ONCE]
        table = Table(title=f"next event, {level:.0%} interval, UTC")
        users_shown = ["this history" if one is None else printable(str(one)) for one in some["user_id"]]
        for name in ("", *users_shown):
            table.add_column(name, overflow="fold")
        for name in found.columns[1:]:
            write = "{:%Y-%m-%d %H:%M}" if name in TIMES else "{:.1%}"
            table.add_row(name.replace("_", " "), *("-" if one != one else write.format(one) for one in some[name]))
        console().print(table)
