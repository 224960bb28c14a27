"""A run and a question from the command line into a table or a file of recommendations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console

from variseq.errors import InputError
from variseq.estimator import load
from variseq.events.vocabulary import Id, Vocabulary
from variseq.recommend.manner import Manner
from variseq.recommend.wishes import FROM_HISTORY, Filters
from variseq.terminal.tables import recommendations_table

EXAMPLES = {"--boost": "i9=1.5", "--boost-category": "Drama=2", "--pin": "1=i9"}


@dataclass(frozen=True)
class TextFilters:
    """`Filters` as they are typed: ids are still text, several in one with commas; boosts and pins are a=b."""

    k: int = 10
    exclude: str | None = None
    only: str | None = None
    categories: list[str] | None = None
    exclude_seen: bool | None = None
    boost: list[str] | None = None
    boost_category: list[str] | None = None
    pin: list[str] | None = None

    def read(self, vocabulary: Vocabulary) -> Filters:
        """The filters in ids. Raises InputError for what is not of the form asked for."""
        boosts, of_categories = _pairs("--boost", self.boost), _pairs("--boost-category", self.boost_category)
        pins = [(_rank(rank), vocabulary.parse_item_id(item)) for rank, item in _pairs("--pin", self.pin)]
        return Filters(
            self.k,
            _item_ids("--exclude", self.exclude, vocabulary) or (),
            _item_ids("--only", self.only, vocabulary),
            self.categories or None,
            self.exclude_seen,
            {vocabulary.parse_item_id(name): _factor("--boost", value) for name, value in boosts},
            {name: _factor("--boost-category", value) for name, value in of_categories},
            dict(pins),
        )


@dataclass(frozen=True)
class Question:
    """What `variseq recommend` was asked; `json` prints records in place of a table."""

    users: list[str]
    history: str | None
    all_users: bool
    out: Path | None
    json: bool
    filters: TextFilters
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
    filters, manner = question.filters.read(vocabulary), question.manner
    if question.out is not None:
        num_rows = model.recommend_to_file(question.out, filters, manner)
        Console().print(f"{num_rows:,} rows: {question.out}", highlight=False, soft_wrap=True)
        return
    users = [vocabulary.parse_user_id(text) for text in question.users] or None
    history = _item_ids("--history", question.history, vocabulary)
    recommendations = model.recommend(
        *(users, history, filters.k, filters.exclude, filters.only, filters.category, filters.exclude_seen),
        *(manner.explore, manner.seed, manner.diversity, manner.coverage),
        *(filters.boost, filters.boost_categories, filters.pin, manner.ranks_only),
    )
    if question.json:
        print(recommendations.to_json(orient="records", double_precision=15))
        return
    _show(recommendations, question, users)


def _show(recommendations: pd.DataFrame, question: Question, users: list[Id] | None) -> None:
    """A table, and below it what a reader has to know of the answers."""
    if question.manner.coverage is not None:
        _tell_sizes(recommendations, question.filters.k)
        recommendations = recommendations[recommendations["rank"] <= question.filters.k]
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


def _pairs(option: str, texts: list[str] | None) -> list[tuple[str, str]]:
    """What stands before and after the last = of each text."""
    pairs = [text.rpartition("=") for text in texts or ()]
    for before, equals, _ in pairs:
        if not equals or not before:
            raise InputError(
                f"{option} {texts!r} is not possible. Give it as NAME=VALUE, for example {option} {EXAMPLES[option]}."
            )
    return [(before, after) for before, _, after in pairs]


def _factor(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"{option} …={text} is not possible. Allowed: positive numbers.") from error


def _rank(text: str) -> int:
    if not text.isdecimal():
        raise InputError(f"--pin {text}=… is not possible. Give a rank and an item, for example --pin 1=i9.")
    return int(text)
