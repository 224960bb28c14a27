"""Ids of JSON, paths and keys into those of the data, and back into answers as numbers or as text."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pyarrow as pa

from variseq.errors import InputError
from variseq.events.vocabulary import MAX_ID_BYTES, Id, Vocabulary

_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")
_SHOWN_CHARACTERS = 64


def user_ids(given: Iterable[Id], vocabulary: Vocabulary) -> list[Id]:
    """User ids as the log has them. Raises InputError for one of another kind, or one that is too long."""
    return _read(given, "user", pa.types.is_integer(vocabulary.users.type))


def item_ids(given: Iterable[Id], vocabulary: Vocabulary) -> list[Id]:
    """Item ids as the catalog has them. Raises InputError for one of another kind, or one that is too long."""
    return _read(given, "item", pa.types.is_integer(vocabulary.items.type))


def user_id(given: Id, vocabulary: Vocabulary) -> Id:
    """The same for one user, as in a path."""
    return user_ids((given,), vocabulary)[0]


def item_id(given: Id, vocabulary: Vocabulary) -> Id:
    """The same for one item, as in a path or a key of JSON."""
    return item_ids((given,), vocabulary)[0]


def format_id(one: Id, as_text: bool) -> Id:
    """An id as an answer has it. Text keeps all digits in programs whose numbers are floats, such as browsers.

    >>> format_id(9007199254740993, as_text=True), format_id(9007199254740993, as_text=False), format_id("i9", False)
    ('9007199254740993', 9007199254740993, 'i9')
    """
    return str(one) if as_text else one


def _read(given: Iterable[Id], kind: str, whole: bool) -> list[Id]:
    return [_whole(one, kind) if whole else _text(one, kind) for one in given]


def _whole(one: Id, kind: str) -> int:
    """A number, or the text that is just this number: "007" and " 7" are not 7."""
    if isinstance(one, int):
        return one
    if _WHOLE.fullmatch(one) and -(2**63) <= int(one) < 2**63:
        return int(one)
    raise InputError(
        f"The {kind} ids of this data are whole numbers of 64 bits, and {one[:_SHOWN_CHARACTERS]!r} is none. "
        'Send 12, or "12".'
    )


def _text(one: Id, kind: str) -> str:
    if not isinstance(one, str):
        raise InputError(f'The {kind} ids of this data are text ("12"), and {one!r} came. Send it as such.')
    if len(one) * 4 > MAX_ID_BYTES and (num_bytes := len(one.encode())) > MAX_ID_BYTES:
        raise InputError(
            f"The {kind} id {one[:_SHOWN_CHARACTERS]!r}… has {num_bytes:,} bytes. Allowed: at most {MAX_ID_BYTES:,} "
            "bytes as UTF-8. Use a shorter one."
        )
    return one
