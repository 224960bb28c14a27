"""The `when` command: the time of the next event as a table or JSON."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from variseq.estimator import load
from variseq.output.console import console
from variseq.output.printable import printable
from variseq.ranking.when import WITHIN
from variseq.terminal.named_items import NamedItems
from variseq.terminal.recommend import typed_moment


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
    table = Table(title=f"next event, {level:.0%} interval, UTC")
    for name in found.columns:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in found.itertuples(index=False):
        user = "this history" if row[0] is None else printable(str(row[0]))
        times = ["-" if one is None or one != one else f"{one:%Y-%m-%d %H:%M}" for one in row[1:5]]
        shares = ["-" if one != one else f"{one:.1%}" for one in row[5:]]
        table.add_row(user, *times, *shares)
    console().print(table)
