"""External ids of users, items and behaviors, and their positions."""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TypeAlias
from unicodedata import normalize

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int, Shaped

from variseq.atomic import atomic_write
from variseq.errors import CheckpointError, InputError

FORMAT_VERSION = 1
MAX_ID_BYTES = 1024
"""The longest id, as UTF-8, by every way in: reading, stores and HTTP."""

Id = int | str
Ids: TypeAlias = Iterable[Id] | Shaped[np.ndarray, " id"]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """All users, items and behaviors; the position of each is its index in the sorted list.

    `users` and `items` are Arrow arrays of 64-bit integers or of text, sorted (text by its UTF-8 bytes) and without
    repetition. Behind the sorted items stand `num_added_items` that were added to a fitted model, in any order.

    >>> vocabulary = Vocabulary(pa.array([7, 12]), pa.array(["a", "b"]), ("event",))
    >>> vocabulary.user_positions([12, 99])
    array([ 1, -1])
    >>> vocabulary.item_ids([1, 0])
    ['b', 'a']
    """

    users: pa.Array
    items: pa.Array
    behaviors: tuple[str, ...]
    num_added_items: int = 0

    @property
    def num_users(self) -> int:
        return len(self.users)

    @property
    def num_items(self) -> int:
        return len(self.items)

    @property
    def num_behaviors(self) -> int:
        return len(self.behaviors)

    def user_positions(self, ids: Ids) -> Int[np.ndarray, " id"]:
        """Positions of users, -1 for an unknown one. Raises InputError for ids of the other type."""
        return self._users.positions(ids)

    def item_positions(self, ids: Ids) -> Int[np.ndarray, " id"]:
        """Positions of items, -1 for an unknown one. Raises InputError for ids of the other type."""
        return self._items.positions(ids)

    def user_ids(self, positions: Iterable[int] | Int[np.ndarray, " position"]) -> list[Id]:
        """The outside ids of users, as they came in."""
        return self._users.ids_at(positions)

    def item_ids(self, positions: Iterable[int] | Int[np.ndarray, " position"]) -> list[Id]:
        """The outside ids of items, as they came in."""
        return self._items.ids_at(positions)

    def parse_user_id(self, text: str) -> Id:
        """The user id that a text stands for, for command lines and addresses: "12" is 12 where ids are integers."""
        return self._users.parse(text)

    def parse_item_id(self, text: str) -> Id:
        """The item id that a text stands for, for command lines and addresses: "12" is 12 where ids are integers."""
        return self._items.parse(text)

    def save(self, folder: Path | str) -> None:
        """Write users.parquet, items.parquet and vocabulary.json; the same vocabulary gives the same bytes."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_parquet(pa.table({"user_id": self.users}), folder / "users.parquet")
        write_parquet(pa.table({"item_id": self.items}), folder / "items.parquet")
        description = {
            "format": FORMAT_VERSION,
            "num_users": self.num_users,
            "num_items": self.num_items,
            "behaviors": list(self.behaviors),
        }
        with atomic_write(folder / "vocabulary.json") as unfinished:
            unfinished.write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path | str) -> Vocabulary:
        """Read what `save` wrote. Raises CheckpointError for a missing, damaged or newer file."""
        folder = Path(folder)
        try:
            description = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
            if description["format"] > FORMAT_VERSION:
                raise CheckpointError(
                    f"{folder} has a vocabulary of format {description['format']}; this release reads up to "
                    f"{FORMAT_VERSION}. Update variseq."
                )
            users = pq.read_table(folder / "users.parquet").column("user_id").combine_chunks()
            items = pq.read_table(folder / "items.parquet").column("item_id").combine_chunks()
            if (len(users), len(items)) != (description["num_users"], description["num_items"]):
                raise CheckpointError(f"The vocabulary in {folder} is damaged: the numbers of users or items differ.")
            return cls(users, items, tuple(description["behaviors"]))
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"The vocabulary in {folder} cannot be read ({error}).") from error

    @cached_property
    def _users(self) -> _IdList:
        return _IdList(self.users, "user")

    @cached_property
    def _items(self) -> _IdList:
        return _IdList(self.items, "item", self.num_added_items)


def catalog_digest(items: pa.Array) -> str:
    """SHA-256 of the type and the ids of a sorted catalog.

    >>> catalog_digest(pa.array([1, 2])) == catalog_digest(pa.array(["1", "2"]))
    False
    """
    return hashlib.sha256(json.dumps(items.to_pylist(), ensure_ascii=True).encode()).hexdigest()


def positions_in(known: pa.Array, ids: pa.Array) -> Int[np.ndarray, " id"]:
    """The position of each id among the known ones, -1 where it is not there; 7 and "7" are the same id.

    >>> positions_in(pa.array(["12", "7"]), pa.array([7, 8]))
    array([ 1, -1])
    """
    if pa.types.is_integer(known.type) and not pa.types.is_integer(ids.type):
        texts = [text if re.fullmatch("0|-?[1-9][0-9]*", text) else None for text in ids.to_pylist()]
        ids = pa.array([None if text is None else int(text) for text in texts], pa.int64())
    elif known.type != ids.type:
        ids = ids.cast(known.type)
    index = pc.index_in(ids, value_set=known, skip_nulls=True)
    return np.asarray(pc.fill_null(index, -1).to_numpy(zero_copy_only=False), dtype=np.int64)


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a whole file or none."""
    with atomic_write(path) as unfinished:
        pq.write_table(table, unfinished)


FEW_IDS = 25
"""So many ids are searched one by one, in about 10 µs each; more are searched together, in 250 µs and 0.4 µs each."""


class _IdList:
    """One list of ids; the sorted ones are searched, so no table of them is made."""

    def __init__(self, ids: pa.Array, kind: str, num_added: int = 0) -> None:
        self.ids = ids
        self.kind = kind
        self.whole = pa.types.is_integer(ids.type)
        self.num_sorted = len(ids) - num_added
        self.added = {outside: self.num_sorted + n for n, outside in enumerate(ids[self.num_sorted :].to_pylist())}

    def positions(self, ids: Ids) -> Int[np.ndarray, " id"]:
        wanted = [self._checked(outside) for outside in ids]
        found: Iterable[int] = map(self._find, wanted)
        if self.num_sorted and len(wanted) > FEW_IDS:
            # Half of a surrogate pair, or an integer of more than 64 bits, is in no array.
            with suppress(UnicodeError, OverflowError):
                found = self._find_together(pa.array(wanted, self.ids.type))
        if self.added:
            found = map(self.added.get, wanted, found)
        return np.fromiter(found, dtype=np.int64, count=len(wanted))

    def _find(self, outside: Id) -> int:
        """The position among the sorted ids, −1 where it is not there; Python orders text as UTF-8 bytes are."""
        ids, num_sorted = self.ids, self.num_sorted
        position = bisect_left(range(num_sorted), outside, key=lambda index: ids[index].as_py())
        return position if position < num_sorted and ids[position].as_py() == outside else -1

    def _find_together(self, wanted: pa.Array) -> Int[np.ndarray, " id"]:
        """`_find` of many ids: all binary searches at once."""
        position, step = np.zeros(len(wanted), dtype=np.int64), 1 << self.num_sorted.bit_length() >> 1
        while step:
            probe = np.minimum(position + step, self.num_sorted)
            is_less = pc.less(self.ids.take(pa.array(probe - 1)), wanted)
            position = np.where(is_less.to_numpy(zero_copy_only=False), probe, position)
            step >>= 1
        position = np.minimum(position, self.num_sorted - 1)
        is_known = pc.equal(self.ids.take(pa.array(position)), wanted)
        return np.where(is_known.to_numpy(zero_copy_only=False), position, -1)

    def ids_at(self, positions: Iterable[int] | Int[np.ndarray, " position"]) -> list[Id]:
        index = np.asarray(positions if isinstance(positions, np.ndarray) else list(positions), dtype=np.int64)
        if len(index) and (index.min() < 0 or index.max() >= len(self.ids)):
            raise IndexError(f"{self.kind} positions go from 0 to {len(self.ids) - 1}")
        return [outside for outside in self.ids.take(pa.array(index)).to_pylist()]

    def parse(self, text: str) -> Id:
        if not self.whole:
            return text
        try:
            return int(text)
        except ValueError as error:
            raise InputError(f"The {self.kind} ids of this data are integers, and {text!r} is none.") from error

    def _checked(self, outside: object) -> Id:
        plain = outside.as_py() if isinstance(outside, pa.Scalar) else outside
        if self.whole and isinstance(plain, int | np.integer) and not isinstance(plain, bool):
            return int(plain)
        if not self.whole and isinstance(plain, str):
            return str(plain)
        wanted = "integers" if self.whole else "text"
        example = repr(self.ids[0].as_py()) if len(self.ids) else "none"
        raise InputError(
            f"The {self.kind} ids of this data are {wanted}, e.g. {example}; got {plain!r} ({type(plain).__name__})."
        )


MAX_COMPARED = 20_000
"""Comparing letters takes about half a second for so many ids; of more only the spelling is compared."""


def typed(one: Id) -> str:
    """An id with its type, since 12 and "12" are different ids.

    >>> typed(12), typed("12")
    ('i:12', 's:12')
    """
    return f"{'s' if isinstance(one, str) else 'i'}:{one}"


def nearest_hint(wanted: Id, known: Sequence[Id]) -> str:
    """A hint to put behind an unknown id; empty for a number and where no known id is like it.

    >>> nearest_hint("Drama ", ["Comedy", "drama"])
    " (did you mean 'drama'?)"
    """
    found = _nearest(wanted, known) if isinstance(wanted, str) else None
    return "" if found is None else f" (did you mean {found!r}?)"


def _nearest(wanted: str, known: Sequence[Id]) -> str | None:
    spelling = _spelling(wanted)
    for one in known:
        if isinstance(one, str) and _spelling(one) == spelling:
            return one
    texts = [str(one) for one in known] if len(known) <= MAX_COMPARED else []
    return next(iter(get_close_matches(wanted, texts, n=1)), None)


def check_text(text: str, name: str, max_bytes: int | None = None) -> None:
    """Raises InputError for text that is empty, no Unicode or longer than so many bytes as UTF-8."""
    if not text:
        raise InputError(f"{name} is empty; give it at least one character.")
    try:
        num_bytes = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InputError(f"{name} {text!r} is not valid Unicode: it has half of a surrogate pair.") from error
    if max_bytes is not None and num_bytes > max_bytes:
        raise InputError(
            f"{name} is longer than {max_bytes:,} bytes: {text[:64]!r}… has {num_bytes:,}. Use a shorter one."
        )


def _spelling(text: str) -> str:
    """What is left of an id without blanks around it, capitals, and differences in how accents are stored."""
    return normalize("NFKC", text).strip().casefold()
