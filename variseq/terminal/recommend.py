"""A run and a question from the command line into a table or a file of recommendations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console

from variseq.errors import InputError
from variseq.estimator import load
from variseq.events.vocabulary import Id, Vocabulary
from variseq.recommend.answers import FROM_HISTORY
from variseq.recommend.lists import Manner
from variseq.terminal.tables import recommendations_table


@dataclass(frozen=True)
class Question:
    """What `variseq recommend` was asked; ids are still text."""

    users: list[str]
    history: str | None
    all_users: bool
    out: Path | None
    k: int
    exclude: str | None
    only: str | None
    categories: list[str] | None
    exclude_seen: bool | None
    manner: Manner


def answer(run: Path, question: Question) -> None:
    """Prints a table, or writes everybody's recommendations to a file."""
    asked = [bool(question.users), question.history is not None, question.all_users]
    if sum(asked) != 1:
        raise InputError("Say for whom: one of --user ID (may be repeated), --history i9,i3 or --all-users --out FILE.")
    if question.all_users != (question.out is not None):
        raise InputError(
            "--all-users and --out FILE go together: the recommendations of all users are written to a file."
        )
    model = load(run)
    vocabulary = model.vocabulary
    exclude = _item_ids("--exclude", question.exclude, vocabulary) or ()
    only = _item_ids("--only", question.only, vocabulary)
    category, exclude_seen = question.categories or None, question.exclude_seen
    if question.out is not None:
        num_rows = model.recommend_to_file(
            question.out, question.k, exclude, only, category, exclude_seen, question.manner
        )
        Console().print(f"{num_rows:,} rows: {question.out}", highlight=False, soft_wrap=True)
        return
    users = [vocabulary.parse_user_id(text) for text in question.users] or None
    history = _item_ids("--history", question.history, vocabulary)
    manner = question.manner
    recommendations = model.recommend(
        *(users, history, question.k, exclude, only, category, exclude_seen),
        *(manner.explore, manner.seed, manner.diversity, manner.coverage),
    )
    if manner.coverage is not None:
        _tell_sizes(recommendations, question.k)
        recommendations = recommendations[recommendations["rank"] <= question.k]
    Console().print(recommendations_table(recommendations))
    for row in recommendations[recommendations["source"] != FROM_HISTORY].drop_duplicates("user_id").to_dict("records"):
        whom = "this history" if pd.isna(row["user_id"]) else f"user {row['user_id']!s}"
        Console().print(f"note: {whom}: {row['source']}", highlight=False, markup=False, soft_wrap=True)
    answered = set(recommendations["user_id"])
    wanted: list[Id | None] = [None] if users is None else [*users]
    for user in wanted:
        if user not in answered and (user is not None or recommendations.empty):
            _tell_nothing_left("this history" if user is None else f"user {user}")


def _tell_sizes(recommendations: pd.DataFrame, k: int) -> None:
    """How large each set is, of which the table shows the first k items only."""
    for user, rows in recommendations.groupby("user_id", dropna=False, sort=False):
        whom = "this history" if pd.isna(user) else f"user {user!s}"
        shown = "" if len(rows) <= k else f", of which the first {k} are shown; --all-users --out FILE writes all"
        Console().print(f"The set of {whom} has {len(rows):,} items{shown}.", highlight=False, soft_wrap=True)


def _item_ids(flag: str, text: str | None, vocabulary: Vocabulary) -> list[Id] | None:
    if text is None:
        return None
    ids = [vocabulary.parse_item_id(part.strip()) for part in text.split(",") if part.strip()]
    if not ids:
        raise InputError(f"{flag} {text!r} has no item id. Give some, as in {flag} i9,i3, or leave it out.")
    return ids


def _tell_nothing_left(whom: str) -> None:
    message = f"note: nothing to recommend for {whom}: all items are seen, excluded or not among those asked for."
    Console(stderr=True).print(message, highlight=False, markup=False, soft_wrap=True)
