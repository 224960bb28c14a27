"""Parses item ids, boosts, pins and histories of the command line; a text that is an id is never split."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from variseq.errors import InputError
from variseq.events.table import Columns
from variseq.events.vocabulary import Id, Vocabulary, nearest_hint

EXAMPLES = {"--boost-items": "i9=1.5", "--boost-categories": "Drama=2", "--pin": "1=i9"}


class NamedItems:
    """Parses item ids of a catalog. An exact id has precedence over every other reading of a text."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary

    def ids(self, option: str, texts: Sequence[str] | None) -> list[Id] | None:
        """The ids of an option. Several texts are one id each; a single text is split at commas unless it is an id.

        Raises InputError where there is no id, or where ids are numbers and a text is none.
        """
        if not texts:
            return None
        parts = list(texts)
        if len(parts) == 1 and not self._is_known(parts[0]):
            parts = parts[0].split(",")
        ids = [self.id(part) for part in parts if part.strip()]
        if not ids:
            raise InputError(f"{option} {texts[0]!r} has no item id. Give some, as in {option} i9,i3, or leave it out.")
        return ids

    def history_of_json(self, option: str, text: str) -> list[Id | dict[str, Any]]:
        """The entries of a JSON list: ids, or events with item_id, timestamp, event and value. Raises InputError."""
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        entries = found if isinstance(found, list) else [None]
        ids = [entry.get(Columns.ITEM) if isinstance(entry, dict) else entry for entry in entries]
        if any(isinstance(one, bool) or not isinstance(one, int | str) for one in ids):
            raise InputError(
                f'{option} {text!r} is no JSON list of ids or events. Give one, as in {option} \'["i9","i3"]\' or '
                f"""{option} '[{{"item_id":"i9","timestamp":1600000000}}]'."""
            )
        parsed = [self._parsed(str(one)) for one in ids]
        return [
            {**entry, Columns.ITEM: item_id} if isinstance(entry, dict) else item_id
            for entry, item_id in zip(entries, parsed, strict=True)
        ]

    def known_ids(self, option: str, texts: Sequence[str] | None) -> list[Id] | None:
        """`ids`, all of the catalog. Raises InputError for an unknown id."""
        found = self.ids(option, texts)
        self._refuse_unknown(option, found or [])
        return found

    def id(self, text: str) -> Id:
        """The id of a text: the text itself if it is known, otherwise the text without surrounding blanks."""
        return self._parsed(text if self._is_known(text) else text.strip())

    def boosts(self, option: str, texts: Sequence[str] | None) -> dict[Id, float]:
        """Ids and factors of ID=FACTOR, split at the last "=". Raises InputError for any other form."""
        pairs = [(self.id(name), factor(option, value)) for name, value in named_values(option, texts)]
        self._refuse_unknown(option, [item_id for item_id, _ in pairs])
        return dict(pairs)

    def pins(self, option: str, texts: Sequence[str] | None) -> dict[int, Id]:
        """Ranks and ids of RANK=ID, split at the first "=". Raises InputError for any other form."""
        pins: dict[int, Id] = {}
        for text in texts or ():
            rank, equals, name = text.partition("=")
            if not rank.strip().isdecimal() or not equals or not name:
                raise InputError(
                    f"{option} {text!r} is not possible. Give a rank and an item, for example {option} "
                    f"{EXAMPLES[option]}."
                )
            pins[int(rank)] = self.id(name)
        self._refuse_unknown(option, list(pins.values()))
        return pins

    def hint(self, item_id: Id) -> str:
        """A phrase with the most similar id of the catalog, for messages about an unknown id."""
        return nearest_hint(item_id, self.vocabulary.items.to_pylist())

    def unknown(self, ids: Sequence[Id]) -> list[Id]:
        """The ids that are not in the catalog."""
        positions = self.vocabulary.item_positions(ids)
        return [item_id for item_id, position in zip(ids, positions, strict=True) if position < 0]

    def _refuse_unknown(self, option: str, ids: Sequence[Id]) -> None:
        if unknown := self.unknown(ids):
            named = ", ".join(f"{item_id!r}{self.hint(item_id)}" for item_id in unknown[:3])
            raise InputError(
                f"{option} names items that are not in the catalog: {named}{', …' if len(unknown) > 3 else ''}. "
                f"Give ids as the log has them; an option that is given several times takes each text as one id."
            )

    def _is_known(self, text: str) -> bool:
        try:
            return not self.unknown([self._parsed(text)])
        except InputError:
            return False

    def _parsed(self, text: str) -> Id:
        return self.vocabulary.parse_item_id(text)


def named_values(option: str, texts: Sequence[str] | None) -> list[tuple[str, str]]:
    """Each text split at its last "=". Raises InputError for a text without one.

    >>> named_values("--boost-items", ["a=b=1.5"])
    [('a=b', '1.5')]
    """
    pairs = [text.rpartition("=") for text in texts or ()]
    for name, equals, value in pairs:
        if not equals or not name:
            raise InputError(
                f"{option} {value!r} is not possible. Give it as NAME=VALUE, for example {option} {EXAMPLES[option]}."
            )
    return [(name, value) for name, _, value in pairs]


def factor(option: str, text: str) -> float:
    """A factor as a number. Raises InputError for another text."""
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"{option} …={text} is not possible. Allowed: positive numbers.") from error
