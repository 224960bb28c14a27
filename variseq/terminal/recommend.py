"""The `recommend` command: options as they are typed, and recommendations as a table, JSON or a file."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from variseq.errors import InputError
from variseq.estimator import load
from variseq.events.vocabulary import Id, Vocabulary, nearest_hint
from variseq.output.console import console
from variseq.output.printable import printable
from variseq.ranking.engine import UNKNOWN_USER
from variseq.ranking.options import RecommendOptions
from variseq.ranking.recommendations import Recommendations
from variseq.terminal.named_items import NamedItems, factor, named_values
from variseq.terminal.tables import recommendations_table


@dataclass(frozen=True)
class RecommendCommand:
    """What `variseq recommend` was given; `json` prints records in place of a table.

    `history` has ids as text (see `NamedItems.ids`), `history_json` a JSON list of them. `options` are the fields of
    `RecommendOptions` as typed: ids are text, boosts and pins are a=b.
    """

    users: list[str]
    history: list[str] | None
    history_json: str | None
    all_users: bool
    out: Path | None
    json: bool
    options: dict[str, Any] = field(default_factory=dict)


def read_options(typed: dict[str, Any], vocabulary: Vocabulary) -> RecommendOptions:
    """The options in ids. Raises InputError for what is not of the form that is asked for, and for unknown items.

    An unknown item to be left out is only warned of.
    """
    items, k = NamedItems(vocabulary), typed["k"]
    exclude = items.ids("--exclude", typed["exclude"]) or []
    if unknown := items.unknown(exclude):
        named = ", ".join(f"{item_id!r}{items.hint(item_id)}" for item_id in unknown[:3])
        warnings.warn(f"--exclude names items that are not in the catalog: {named}", UserWarning, stacklevel=2)
    if k > vocabulary.num_items:
        warnings.warn(f"the catalog has {vocabulary.num_items:,} items, fewer than -k {k}", UserWarning, stacklevel=2)
    of_categories = named_values("--boost-categories", typed["boost_categories"])
    read = {
        "k": min(k, vocabulary.num_items),
        "exclude": exclude,
        "candidates": items.known_ids("--candidates", typed["candidates"]),
        "categories": typed["categories"] or None,
        "boost_items": items.boosts("--boost-items", typed["boost_items"]),
        "boost_categories": {name: factor("--boost-categories", value) for name, value in of_categories},
        "pin": items.pins("--pin", typed["pin"]),
    }
    return RecommendOptions.of(None, {**typed, **read})


def recommend_run(run: Path, command: RecommendCommand) -> None:
    """Prints a table, or writes the recommendations of all users to a file."""
    given = [bool(command.users), bool(command.history), command.history_json is not None, command.all_users]
    if sum(given) != 1:
        raise InputError("Say for whom: one of --user ID (may be repeated), --history i9,i3 or --all-users --out FILE.")
    if command.all_users != (command.out is not None):
        raise InputError(
            "--all-users and --out FILE go together: the recommendations of all users are written to a file."
        )
    model = load(run)
    vocabulary = model.vocabulary
    options = read_options(command.options, vocabulary)
    if command.out is not None:
        num_rows = model.recommend_to_file(command.out, options)
        console().print(f"{num_rows:,} rows: {printable(command.out)}", soft_wrap=True)
        return
    users = [vocabulary.parse_user_id(text) for text in command.users] or None
    items = NamedItems(vocabulary)
    history: list[Any] | None = items.ids("--history", command.history)
    if command.history_json is not None:
        history = items.history_of_json("--history-json", command.history_json)
    recommendations = model.recommend(users, history, options=options)
    if command.json:
        print(json.dumps(recommendations.to_dicts()))
        return
    _show(recommendations, options, users, vocabulary)


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
        hint = nearest_hint(user, vocabulary.users.to_pylist()) if fallback == UNKNOWN_USER else ""
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
