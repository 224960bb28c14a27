"""The column names of a source become the canonical ones: aliases are recognized, ambiguity is an error."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime

from variseq.errors import InputError
from variseq.events.options import ColumnNames
from variseq.events.table import Columns

# Per canonical column, tiers of aliases: a later tier is looked at only when no name of an earlier one is there.
# Written as they are compared: lower case, letters and digits only.
EVENT_ALIASES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    Columns.USER: (
        ("user", "uid", "users", "visitor", "visitorid", "customer", "customerid", "customerno", "reviewer",
         "reviewerid", "member", "memberid", "person", "personid", "reader", "readerid", "account", "accountid",
         "client", "clientid"),
        ("session", "sessionid"),
    ),
    Columns.ITEM: (
        ("item", "iid", "items", "movie", "movieid", "product", "productid", "sku", "asin", "parentasin", "stockcode",
         "article", "articleid", "news", "newsid", "song", "songid", "track", "trackid", "book", "bookid", "isbn",
         "video", "videoid", "content", "contentid", "game", "gameid", "business", "businessid", "ad", "adid"),
    ),
    Columns.TIME: (
        ("ts", "time", "datetime", "date", "unixtime", "unixreviewtime", "unixtimestamp", "timestampms", "timestamps",
         "eventtime", "eventtimestamp", "createdat", "reviewtime", "invoicedate", "tdat"),
    ),
    Columns.EVENT: (
        ("behavior", "behaviour", "behaviortype", "behaviourtype", "eventtype", "eventname", "action", "actiontype",
         "interaction", "interactiontype"),
    ),
    Columns.VALUE: (
        ("rating", "ratings", "stars", "score", "weight", "overall"),
        ("price", "amount", "quantity", "dwell", "dwelltime", "playtime", "duration", "watchtime"),
    ),
}  # fmt: skip
ITEM_ALIASES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    Columns.ITEM: EVENT_ALIASES[Columns.ITEM] + (("id",),),
    Columns.TITLE: (("name", "movietitle", "itemname", "itemtitle", "productname", "producttitle", "headline"),),
    Columns.CATEGORY: (("categories", "genre", "genres", "class", "categoryid", "categorycode", "maincategory"),),
}


def by_name(chosen: ColumnNames) -> dict[str, str]:
    """Columns that were set by name; a place is named by its number. Names by place stand in the header."""
    return {} if isinstance(chosen, list) else {column: str(name) for column, name in chosen.items()}


def find_columns(
    names: Sequence[str],
    chosen: Mapping[str, str],
    aliases: Mapping[str, tuple[tuple[str, ...], ...]] = EVENT_ALIASES,
    required: Sequence[str] = Columns.REQUIRED,
    option: str = "columns",
    later: Sequence[str] = (),
    hint: str = "",
) -> dict[str, str]:
    """Canonical name to the name in the source. `chosen` comes first, then the canonical name itself, then aliases.

    `later` are names that count only where none of `names` fits; `hint` ends the message about a missing column.

    Raises InputError when a required column is missing, when two names fit one column, or when a chosen name is absent.

    >>> find_columns(["userId", "movieId", "rating", "ts"], {})
    {'user_id': 'userId', 'item_id': 'movieId', 'timestamp': 'ts', 'value': 'rating'}
    """
    _check_names(names, later, chosen, aliases, option)
    found: dict[str, str] = {}
    for column, tiers in aliases.items():
        if column in chosen:
            if chosen[column] == "" and column not in required:
                continue
            found[column] = chosen[column]
            continue
        free = [name for name in names if name not in chosen.values()]
        candidates = _candidates(free, column, tiers)
        candidates = candidates or _candidates([name for name in later if name not in chosen.values()], column, tiers)
        if len(candidates) > 1:
            raise InputError(
                f"Several columns could be {column}: {', '.join(candidates)}. "
                f"Say which one: {option}={{{column!r}: {candidates[0]!r}}} ({_cli(option)} {column}={candidates[0]})."
            )
        if candidates:
            found[column] = candidates[0]
    for column, name in found.items():
        if list(found.values()).count(name) > 1:
            raise InputError(f"{option} takes {name!r} for {column} and for another column. Give each one of its own.")
    missing = [column for column in required if column not in found]
    if missing:
        raise InputError(_missing_message(missing, names, option) + hint)
    return found


def looks_like_data(names: Sequence[str]) -> bool:
    """Whether a first line holds a number or a time, which no column is called.

    >>> looks_like_data(["u1", "i1", "2020-02-01"]), looks_like_data(["user", "item", "ts"])
    (True, False)
    """
    return any(_is_number_or_time(name.strip()) for name in names)


def _is_number_or_time(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        try:
            datetime.fromisoformat(text)
        except ValueError:
            return False
    return bool(re.search(r"\d", text))


def _check_names(
    names: Sequence[str],
    later: Sequence[str],
    chosen: Mapping[str, str],
    aliases: Mapping[str, tuple[tuple[str, ...], ...]],
    option: str,
) -> None:
    doubled = sorted({name for name in names if list(names).count(name) > 1})
    if doubled:
        if looks_like_data(names):
            raise InputError(_data_message(names, option))
        raise InputError(f"Column names appear twice: {', '.join(doubled)}. Give every column a name of its own.")
    for column, name in chosen.items():
        if column not in aliases:
            raise InputError(f"{option} names {column!r}, which is none of: {', '.join(aliases)}.")
        if name != "" and name not in names and name not in later:
            raise InputError(f"{option} says that {column} is {name!r}, but the columns are: {', '.join(names)}.")


def _data_message(names: Sequence[str], option: str) -> str:
    shown = ", ".join(name[:60] for name in names[:10])
    return (
        f"The first line looks like data: {shown}. A header line with column names is needed, or names by place: "
        f"{option}=['user_id', 'item_id', ...] ({_cli(option)} user_id,item_id,timestamp,value)."
    )


def _candidates(names: Sequence[str], column: str, tiers: tuple[tuple[str, ...], ...]) -> list[str]:
    for tier in ((_plain(column),), *tiers):
        exact = [name for name in names if name == column]
        candidates = exact or [name for name in names if _plain(name) in tier]
        if candidates:
            return candidates
    return []


def _plain(name: str) -> str:
    """Lower case, letters and digits only, without the type that some data sets append to a name ("user_id:token")."""
    return re.sub(r"[^a-z0-9]", "", name.split(":")[0].lower())


def _missing_message(missing: Sequence[str], names: Sequence[str], option: str) -> str:
    if looks_like_data(names):
        return _data_message(names, option)
    shown = ", ".join(name[:60] for name in names[:40]) + (", ..." if len(names) > 40 else "")
    return (
        f"No column for {' and '.join(missing)}. The columns are: {shown}. "
        f"Name it: {option}={{{missing[0]!r}: ...}} ({_cli(option)} {missing[0]}=...)."
    )


def _cli(option: str) -> str:
    return "--" + option.replace("_", "-")
