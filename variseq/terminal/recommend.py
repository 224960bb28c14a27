"""A run and a question from the command line into a table or a file of recommendations."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from variseq.errors import InputError
from variseq.estimator import load
from variseq.events.vocabulary import Id, Vocabulary, nearest_hint
from variseq.output.console import console
from variseq.output.printable import printable
from variseq.recommend.manner import Manner
from variseq.recommend.wishes import FROM_HISTORY, UNKNOWN_USER, Filters
from variseq.terminal.named_items import NamedItems, factor, named_values
from variseq.terminal.tables import recommendations_table


@dataclass(frozen=True)
class TextFilters:
    """`Filters` as they are typed: ids are still text, boosts and pins are a=b; see `NamedItems`."""

    k: int = 10
    exclude: list[str] | None = None
    only: list[str] | None = None
    categories: list[str] | None = None
    exclude_seen: bool | None = None
    boost: list[str] | None = None
    boost_category: list[str] | None = None
    pin: list[str] | None = None

    def read(self, vocabulary: Vocabulary) -> Filters:
        """The filters in ids. Raises InputError for what is not of the form asked for, and for unknown items.

        An unknown item to be left out is only warned of: the answer is the one that was asked for.
        """
        items = NamedItems(vocabulary)
        exclude = items.ids("--exclude", self.exclude) or []
        if unknown := items.unknown(exclude):
            named = ", ".join(f"{item_id!r}{items.hint(item_id)}" for item_id in unknown[:3])
            warnings.warn(f"--exclude names items that are not in the catalog: {named}", UserWarning, stacklevel=2)
        if self.k > vocabulary.num_items:
            warnings.warn(
                f"the catalog has {vocabulary.num_items:,} items, fewer than -k {self.k}", UserWarning, stacklevel=2
            )
        of_categories = named_values("--boost-category", self.boost_category)
        return Filters(
            min(self.k, vocabulary.num_items),
            exclude,
            items.known_ids("--only", self.only),
            self.categories or None,
            self.exclude_seen,
            items.boosts("--boost", self.boost),
            {name: factor("--boost-category", value) for name, value in of_categories},
            items.pins("--pin", self.pin),
        )


@dataclass(frozen=True)
class Question:
    """What `variseq recommend` was asked; `json` prints records in place of a table.

    `history` has ids as text (see `NamedItems.ids`), `history_json` a JSON list of them.
    """

    users: list[str]
    history: list[str] | None
    history_json: str | None
    all_users: bool
    out: Path | None
    json: bool
    filters: TextFilters
    manner: Manner


def answer(run: Path, question: Question) -> None:
    """Prints a table, or writes everybody's recommendations to a file."""
    histories = [bool(question.history), question.history_json is not None]
    asked = [bool(question.users), *histories, question.all_users]
    if sum(asked) != 1:
        raise InputError("Say for whom: one of --user ID (may be repeated), --history i9,i3 or --all-users --out FILE.")
    if question.all_users != (question.out is not None):
        raise InputError(
            "--all-users and --out FILE go together: the recommendations of all users are written to a file."
        )
    model = load(run)
    vocabulary = model.vocabulary
    filters, manner = question.filters.read(vocabulary), question.manner
    if question.out is not None:
        num_rows = model.recommend_to_file(question.out, filters, manner)
        console().print(f"{num_rows:,} rows: {printable(question.out)}", soft_wrap=True)
        return
    users = [vocabulary.parse_user_id(text) for text in question.users] or None
    items = NamedItems(vocabulary)
    history: list[Any] | None = items.ids("--history", question.history)
    if question.history_json is not None:
        history = items.history_of_json("--history-json", question.history_json)
    recommendations = model.recommend(
        *(users, history, filters.k, filters.exclude, filters.only, filters.category, filters.exclude_seen),
        *(manner.explore, manner.seed, manner.diversity, manner.coverage),
        *(filters.boost, filters.boost_categories, filters.pin, manner.ranks_only),
    )
    if question.json:
        print(recommendations.to_json(orient="records", double_precision=15))
        return
    _show(recommendations, question, users, vocabulary)


def _show(recommendations: pd.DataFrame, question: Question, users: list[Id] | None, vocabulary: Vocabulary) -> None:
    """A table, and below it what a reader has to know of the answers."""
    if question.manner.coverage is not None:
        _tell_sizes(recommendations, question.filters.k)
        recommendations = recommendations[recommendations["rank"] <= question.filters.k]
    console().print(recommendations_table(recommendations))
    for row in recommendations[recommendations["source"] != FROM_HISTORY].drop_duplicates("user_id").to_dict("records"):
        hint = nearest_hint(row["user_id"], vocabulary.users.to_pylist()) if row["source"] == UNKNOWN_USER else ""
        console().print(f"note: {_whom(row['user_id'])}: {row['source']}{hint}", soft_wrap=True)
    answered = set(recommendations["user_id"])
    wanted: list[Id | None] = [None] if users is None else [*users]
    for user in wanted:
        if user not in answered and (user is not None or recommendations.empty):
            _tell_nothing_left(_whom(user))


def _tell_sizes(recommendations: pd.DataFrame, k: int) -> None:
    """How large each set is, of which the table shows the first k items only."""
    for user, rows in recommendations.groupby("user_id", dropna=False, sort=False):
        shown = "" if len(rows) <= k else f", of which the first {k} are shown; --all-users --out FILE writes all"
        console().print(f"The set of {_whom(user)} has {len(rows):,} items{shown}.", soft_wrap=True)


def _whom(user: Any) -> str:
    return "this history" if pd.isna(user) else f"user {printable(user)}"


def _tell_nothing_left(whom: str) -> None:
    message = f"note: nothing to recommend for {whom}: all items are seen, excluded or not among those asked for."
    console(stderr=True).print(message, soft_wrap=True)
