"""The `recommend` command: recommendations as a table, JSON or a file."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from variseq.artifacts.folder import is_of_sums, read_manifest
from variseq.errors import InputError
from variseq.estimator import VariationalAttention, load
from variseq.events.vocabulary import Id, Vocabulary, nearest_hint
from variseq.output.console import console
from variseq.output.printable import printable
from variseq.private_model import PrivateModel
from variseq.ranking.calibration import ConformalThresholds
from variseq.ranking.engine import UNKNOWN_USER
from variseq.ranking.options import RecommendOptions
from variseq.ranking.recommendations import Recommendations
from variseq.terminal.named_items import NamedItems
from variseq.terminal.recommend_all import recommend_all
from variseq.terminal.recommend_options import recommend_options

LOOSE = 0.05
"""A level that may be missed by more than this is not promised."""


def recommend_run(run: Path, typed: dict[str, Any]) -> None:
    """Prints a table or records as JSON, or writes the recommendations of all users to a file.

    `typed` has the options of the command: ids are text, boosts and pins are a=b.
    """
    users, history, history_json = typed["user"] or [], typed["history"], typed["history_json"]
    if typed["items"] is not None and (users or typed["all_users"]):
        raise InputError("--items is another catalog, whose users the run does not know. Give --history i9,i3.")
    out, all_users = typed["out"], typed["all_users"]
    num_given = sum([bool(users), bool(history), history_json is not None, all_users])
    is_new = num_given == 0 and bool(typed["attributes"])
    if num_given != 1 and not is_new:
        raise InputError(
            "Say for whom: one of --user ID (may be repeated), --history i9,i3 or --all-users --out FILE. For somebody "
            "without events --attributes NAME=VALUE is enough."
        )
    if all_users != (out is not None):
        raise InputError(
            "--all-users and --out FILE go together: the recommendations of all users are written to a file."
        )
    if (typed["workers"] != 1 or typed["approximate"]) and not all_users:
        raise InputError("--workers and --approximate are for --all-users. Leave them out for one list.")
    if typed["workers"] < 1:
        raise InputError(f"--workers {typed['workers']} is not possible. Give 1 or more.")
    read = partial(recommend_options, typed)
    if out is not None:
        num_rows = recommend_all(run, Path(out), read, typed["approximate"], typed["workers"])
        console().print(f"{num_rows:,} rows: {printable(out)}", soft_wrap=True)
        return
    model = _model(run, typed["items"])
    vocabulary = model.vocabulary
    options = read(vocabulary)
    items, ids = NamedItems(vocabulary), [vocabulary.parse_user_id(text) for text in users] or None
    events: list[Any] | None = [] if is_new else items.ids("--history", history)
    if history_json is not None:
        events = items.history_of_json("--history-json", history_json)
    recommendations = model.recommend(ids, events, options=options)
    if typed["json"]:
        print(json.dumps(recommendations.to_dicts()))
    else:
        _show(recommendations, options, ids, vocabulary)
        if options.conformal_level is not None and isinstance(model, VariationalAttention):
            thresholds = None if model.checkpoint is None else model.checkpoint.calibrated.thresholds
            assert thresholds is not None
            _show_promise(thresholds, options.conformal_level)


def _model(run: Path, other_items: str | None) -> VariationalAttention | PrivateModel:
    """The model of a run, with another catalog where one is given."""
    is_private = is_of_sums(read_manifest(run))
    if other_items is None:
        return PrivateModel(run) if is_private else load(run)
    if is_private:
        raise InputError("A private run has counts of its own items, so it says nothing of others. Leave out --items.")
    return load(run).with_catalog(other_items)


def _show_promise(thresholds: ConformalThresholds, level: float) -> None:
    """What the level of a conformal set is worth where few people were in validation."""
    expected = thresholds.chance_range(level)
    if expected is not None and level - expected[0] > LOOSE:
        low, high = expected
        console(stderr=True).print(
            f"note: a level of {level:.0%} cannot be promised: validation had {thresholds.num_users:,} people, so sets "
            f"may contain {low:.0%} to {high:.0%} of the next items.",
            soft_wrap=True,
        )


def _show(
    recommendations: Recommendations, options: RecommendOptions, users: list[Id] | None, vocabulary: Vocabulary
) -> None:
    """A table, and below it what a reader has to know of the answers."""
    rows = recommendations.to_dicts()
    wanted: list[Id | None] = [None] if users is None else list(dict.fromkeys(users))
    if options.conformal_level is not None:
        for user in dict.fromkeys(row["user_id"] for row in rows):
            _show_size(user, sum(row["user_id"] == user for row in rows), options.k)
        rows = [row for row in rows if row["rank"] <= options.k]
    console().print(recommendations_table(rows))
    for user, fallback in {row["user_id"]: row["fallback"] for row in rows if row["fallback"]}.items():
        hint = nearest_hint(user, vocabulary.users.to_pylist()) if fallback.startswith(UNKNOWN_USER) else ""
        console().print(f"note: {_whom(user)}: fallback: {fallback}{hint}", soft_wrap=True)
    answered = {row["user_id"] for row in rows}
    for user in wanted:
        if user not in answered:
            message = f"note: nothing to recommend for {_whom(user)}: all items are seen, excluded or no candidates."
            console(stderr=True).print(message, soft_wrap=True)


def _show_size(user: Id | None, size: int, k: int) -> None:
    """How large a conformal set is, of which the table shows the first k items only."""
    shown = "" if size <= k else f", of which the first {k} are shown; --all-users --out FILE writes all"
    console().print(f"The set of {_whom(user)} has {size:,} items{shown}.", soft_wrap=True)


def _whom(user: Id | None) -> str:
    return "this history" if user is None else f"user {printable(user)}"


def recommendations_table(rows: list[dict[str, Any]]) -> Table:
    """user → ranked titles, with probability and reasons where there are any; ids where there are no titles."""
    has_more = bool(rows) and "probability" in rows[0]
    table = Table(title="recommendations")
    table.add_column("user", overflow="fold")
    table.add_column("rank", justify="right")
    table.add_column("item", overflow="fold")
    if has_more:
        table.add_column("probability, %", justify="right", no_wrap=True)
        table.add_column("reasons", overflow="fold", max_width=60)
    for row in rows:
        title = row["item_id"] if row["title"] is None else f"{row['title']} ({row['item_id']})"
        title = f"{title} [new]" if row["source"] == "content" else title
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
