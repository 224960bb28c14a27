"""The options of a recommendation as they are typed."""

from __future__ import annotations

import warnings
from dataclasses import fields
from typing import Any

from variseq.errors import InputError
from variseq.events.vocabulary import Vocabulary
from variseq.ranking.options import RecommendOptions
from variseq.terminal.named_items import NamedItems, factor, named_values


def recommend_options(typed: dict[str, Any], vocabulary: Vocabulary) -> RecommendOptions:
    """The options of the command in ids, of all that was typed.

    An unknown item to be left out is only warned of. Raises InputError for what is not of the form that is asked for,
    and for unknown items.
    """
    typed = {one.name: typed[one.name] for one in fields(RecommendOptions)}
    items, k = NamedItems(vocabulary), typed["k"]
    exclude = items.ids("--exclude", typed["exclude"]) or []
    if unknown := items.unknown(exclude):
        named = ", ".join(f"{item_id!r}{items.hint(item_id)}" for item_id in unknown[:3])
        warnings.warn(f"--exclude names items that are not in the catalog: {named}", UserWarning, stacklevel=2)
    if k > vocabulary.num_items:
        warnings.warn(f"the catalog has {vocabulary.num_items:,} items, fewer than -k {k}", UserWarning, stacklevel=2)
    of_categories = named_values("--boost-categories", typed["boost_categories"])
    of_columns = named_values("--boost-columns", typed["boost_columns"])
    read = {
        "k": min(k, vocabulary.num_items),
        "exclude": exclude,
        "candidates": items.known_ids("--candidates", typed["candidates"]),
        "categories": typed["categories"] or None,
        "boost_items": items.boosts("--boost-items", typed["boost_items"]),
        "boost_categories": {name: factor("--boost-categories", value) for name, value in of_categories},
        "boost_columns": {name: factor("--boost-columns", value) for name, value in of_columns},
        "pin": items.pins("--pin", typed["pin"]),
        "attributes": typed_attributes(typed["attributes"] or []),
        "at": typed_moment(typed["at"]),
    }
    return RecommendOptions.of(None, {**typed, **read})


def typed_attributes(texts: list[str]) -> dict[str, str]:
    """Names and values of NAME=VALUE; a single text is split at commas. Raises InputError for any other form.

    >>> typed_attributes(["age=30,country=DE"]), typed_attributes(["a=1,2", "b=3"])
    ({'age': '30', 'country': 'DE'}, {'a': '1,2', 'b': '3'})
    """
    parts = [part.partition("=") for part in (texts[0].split(",") if len(texts) == 1 else texts)]
    for name, equals, value in parts:
        if not name.strip() or not equals:
            raise InputError(
                f"--attributes {name + equals + value!r} is not possible. Give NAME=VALUE, for example --attributes "
                "age=30,country=DE."
            )
    return {name.strip(): value.strip() for name, _, value in parts}


def typed_moment(text: str | None) -> str | float | None:
    """A time as it was typed: a number is seconds since 1970.

    >>> typed_moment("1700000000"), typed_moment("now")
    (1700000000.0, 'now')
    """
    try:
        return None if text is None else float(text)
    except ValueError:
        return text
