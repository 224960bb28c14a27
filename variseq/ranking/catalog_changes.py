"""What was changed of a catalog since a model was trained: items that were added, updated and removed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, StrictStr, StringConstraints, ValidationError, model_validator

from variseq.content.columns import first_of, is_number, is_text, joined_texts, number_lists, numbers, text_columns
from variseq.content.item_content import ItemContent
from variseq.content.paths import path_columns, path_of
from variseq.content.sources import GivenVectors, Numbers, Texts
from variseq.errors import CheckpointError, InputError
from variseq.events.coordinates import LIMITS, degrees_of
from variseq.events.items import ItemTable
from variseq.events.table import Columns
from variseq.events.vocabulary import MAX_ID_BYTES, Id, check_text

MAX_ITEMS = 20_000
"""Items with a change, at most; every answer looks at each item that was added."""
MAX_REMOVED = 200_000
MAX_TEXT, MAX_NAME, MAX_VECTOR, MAX_COLUMNS, MAX_CATEGORIES = 65_536, 1024, 8192, 100, 100
MAX_FILE_BYTES = 256 << 20

SHOWN = ("title", "categories", "image")
"""What is shown of an item; of one that a model knows from its training only this is updated."""

WholeId = Annotated[int, Field(strict=True, ge=-(2**63), le=2**63 - 1)]
Text = Annotated[str, StringConstraints(strict=True, max_length=MAX_TEXT)]
Name = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=MAX_NAME)]
Vector = Annotated[tuple[float, ...], Field(min_length=1, max_length=MAX_VECTOR)]


class ItemDetails(BaseModel):
    """What is given of an item. What is not given stays as it was.

    Args:
        item_id: Its id.
        title: Its title.
        categories: Its categories.
        image: The path of its picture, which is only shown.
        texts: Texts that say what it is, by column.
        vectors: Vectors, by column.
        numbers: Numbers, by column.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    item_id: WholeId | StrictStr
    title: Text | None = None
    categories: Annotated[tuple[Name, ...], Field(max_length=MAX_CATEGORIES)] | None = None
    image: Text | None = None
    texts: dict[Name, Text] = Field(default={}, max_length=MAX_COLUMNS)
    vectors: dict[Name, Vector] = Field(default={}, max_length=MAX_COLUMNS)
    numbers: dict[Name, float] = Field(default={}, max_length=MAX_COLUMNS)

    @classmethod
    def of(cls, **given: Any) -> ItemDetails:
        """What is given, checked. Raises InputError that names the item."""
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "its columns"
            message = f"Item {given.get('item_id')!r}: {where}: {first['msg']}. Nothing was changed."
            raise InputError(message) from error

    @model_validator(mode="after")
    def _check_coordinates(self) -> ItemDetails:
        if not LIMITS.keys().isdisjoint(self.numbers):
            coordinates_of([self])
        return self

    def updated(self, given: ItemDetails) -> ItemDetails:
        """This item with what is given of it now."""
        return ItemDetails(
            item_id=self.item_id,
            **{name: getattr(self if getattr(given, name) is None else given, name) for name in SHOWN},
            texts=self.texts | given.texts,
            vectors=self.vectors | given.vectors,
            numbers=self.numbers | given.numbers,
        )


class CatalogChanges(BaseModel):
    """Items with a change, each once, and the ids of items that were removed.

    Whether a model takes an item for added or for updated depends on whether it knows the item from its training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    items: tuple[ItemDetails, ...] = ()
    removed: tuple[WholeId | StrictStr, ...] = ()

    @classmethod
    def of_json(cls, text: bytes, name: str) -> CatalogChanges:
        """The inverse of `to_json`. Raises CheckpointError for what it did not write; `name` is for messages."""
        try:
            found = cls.model_validate_json(text)
            found.refuse_too_many()
            ids = [*found.removed, *(one.item_id for one in found.items)]
            if len(set(ids)) < len(ids) or len(set(map(type, ids))) > 1:
                raise ValueError("an id is there twice, or ids are of two types")
        except (ValueError, InputError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"{name} is damaged ({reason}). Restore it from a copy, or remove it.") from error
        return found

    def to_json(self) -> bytes:
        """One JSON object. Raises InputError where it is too large."""
        text = self.model_dump_json(exclude_defaults=True).encode()
        if len(text) > MAX_FILE_BYTES:
            raise InputError(f"The changes of the catalog would be larger than {MAX_FILE_BYTES >> 20} MB. {_REMEDY}")
        return text

    def refuse_too_many(self) -> None:
        """Raises InputError where there are more than is allowed."""
        for what, number, most in (
            ("items with a change", len(self.items), MAX_ITEMS),
            ("removed items", len(self.removed), MAX_REMOVED),
        ):
            if number > most:
                raise InputError(f"There would be {number:,} {what}. Allowed: {most:,}. {_REMEDY}")


_REMEDY = "Fit the model again with these items, and start with a new file of changes. Nothing was changed."


@dataclass(frozen=True)
class ChangeCounts:
    """What a change did: how many items were added, updated, removed, and not changed.

    `not_read` are columns that this model does not read.
    """

    added: int = 0
    updated: int = 0
    removed: int = 0
    unchanged: int = 0
    not_read: tuple[str, ...] = ()


Known = Mapping[Id, ItemDetails]
"""What is shown of the items that a model knows from its training."""


def with_items(
    before: CatalogChanges, given: Sequence[ItemDetails], known: Known
) -> tuple[CatalogChanges, ChangeCounts]:
    """Items added or updated; a removed one comes back.

    Of an item that the model knows, what is shown is kept where it differs from its own.

    Raises:
        InputError: An id is there twice, or is empty or too long, or there are too many items.
    """
    refuse_repeated([one.item_id for one in given])
    items, removed = {one.item_id: one for one in before.items}, dict.fromkeys(before.removed)
    counts: Counter[str] = Counter()
    for one in given:
        item_id = one.item_id
        if isinstance(item_id, str):
            check_text(item_id, "item_id", MAX_ID_BYTES)
        earlier, was_removed = items.get(item_id), item_id in removed
        removed.pop(item_id, None)
        before_it = earlier
        if item_id in known:
            before_it = earlier or ItemDetails(item_id=item_id)
            shown = known[item_id].updated(before_it)
            changed = {name: getattr(one, name) for name in SHOWN if getattr(one, name) != getattr(shown, name)}
            one = ItemDetails(item_id=item_id, **changed)
        kept = one if earlier is None else earlier.updated(one)
        is_added, is_same = was_removed if item_id in known else earlier is None, kept == before_it
        counts["added" if is_added else "unchanged" if is_same else "updated"] += 1
        if not is_same:
            items[item_id] = kept
    after = CatalogChanges.model_construct(items=tuple(items.values()), removed=tuple(removed))
    after.refuse_too_many()
    return after, ChangeCounts(counts["added"], counts["updated"], 0, counts["unchanged"])


def without_items(before: CatalogChanges, item_ids: Sequence[Id], known: Known) -> tuple[CatalogChanges, ChangeCounts]:
    """Items removed; what was given of them is forgotten.

    Raises:
        InputError: An id is there twice or is of no item, or there are too many removed ones.
    """
    refuse_repeated(item_ids)
    items, removed = {one.item_id: one for one in before.items}, dict.fromkeys(before.removed)
    unknown = [one for one in item_ids if one not in items and one not in known and one not in removed]
    if unknown:
        raise InputError(
            f"There are no items {first_of(list(map(repr, unknown)))} in the catalog. Nothing was removed."
        )
    num_before = len(removed)
    for item_id in item_ids:
        items.pop(item_id, None)
        removed[item_id] = None
    after = CatalogChanges.model_construct(items=tuple(items.values()), removed=tuple(removed))
    after.refuse_too_many()
    num_removed = len(removed) - num_before
    return after, ChangeCounts(removed=num_removed, unchanged=len(item_ids) - num_removed)


def refuse_repeated(item_ids: Sequence[Id]) -> None:
    """Raises InputError for ids that are there twice."""
    if repeated := [one for one, count in Counter(item_ids).items() if count > 1]:
        raise InputError(
            f"Items are there twice: {first_of(list(map(repr, repeated)))}. Give each once. Nothing was changed."
        )


def details_of(item_ids: Sequence[Id], items: ItemTable) -> list[ItemDetails]:
    """The rows of a table of items. Other columns than texts, vectors, numbers and pictures are left out.

    Raises:
        InputError: Vectors of a column have several lengths or hold NaN, or a text is too long.
    """
    table, ids = items.table, list(item_ids)
    of_columns: dict[str, dict[str, Sequence[Any]]] = {"texts": {}, "vectors": {}, "numbers": {}}
    texts = text_columns(table)
    for name in table.column_names:
        if name in (Columns.TITLE, Columns.CATEGORY):
            continue
        column = table.column(name)
        if name in texts:
            of_columns["texts"][name] = joined_texts(table, [name])
        elif (lists := number_lists(column)) is not None:
            rows = lists.matrix(name, ids).tolist()
            cells = zip(rows, lists.length.tolist(), strict=True)
            of_columns["vectors"][name] = [row if length else None for row, length in cells]
        elif (is_text(column.type) or is_number(column.type)) and (found := numbers(column)) is not None:
            of_columns["numbers"][name] = [None if cell != cell else cell for cell in found.tolist()]
    every = range(len(items))
    titles, categories = items.titles(every), items.categories(every)
    images = next((table.column(name).to_pylist() for name in path_columns(table, "image")), [None] * len(items))
    return [
        ItemDetails.of(
            item_id=item_id,
            title=titles[row],
            categories=categories[row] or None,
            image=path_of(images[row]),
            **{
                kind: {name: cells[row] for name, cells in columns.items() if cells[row] is not None}
                for kind, columns in of_columns.items()
            },
        )
        for row, item_id in enumerate(ids)
    ]


def as_table(items: Sequence[ItemDetails], content: ItemContent | None) -> ItemTable:
    """Items as a table whose columns the content of a model reads.

    A text is read by any name: where none of an item's texts has a name that the content reads, they are joined and get
    the name of its last text column.
    """
    read = _text_names(content)
    texts = []
    for one in items:
        found = {Columns.TITLE: one.title, **one.texts}
        if read and one.texts and not any(name in one.texts for name in read):
            parts = [*one.texts.values()] if read[-1] != Columns.TITLE else [one.title or "", *one.texts.values()]
            found[read[-1]] = "\n".join(parts)
        texts.append(found)
    columns: dict[str, pa.Array] = {}
    for name in dict.fromkeys([Columns.TITLE, *(name for found in texts for name in found)]):
        columns[name] = pa.array([found.get(name) for found in texts], pa.string())
    columns[Columns.CATEGORY] = pa.array([list(one.categories or ()) for one in items], pa.list_(pa.string()))
    for name in _names(one.vectors for one in items):
        columns.setdefault(name, pa.array([one.vectors.get(name) for one in items], pa.list_(pa.float32())))
    for name in _names(one.numbers for one in items):
        columns.setdefault(name, pa.array([one.numbers.get(name) for one in items], pa.float64()))
    return ItemTable(pa.table(columns))


def coordinates_of(items: Sequence[ItemDetails]) -> Float[np.ndarray, "item two"]:
    """Latitude and longitude of items in degrees, NaN for none. Raises InputError, see `degrees_of`."""
    columns = {name: pa.array([one.numbers.get(name) for one in items], pa.float64()) for name in LIMITS}
    degrees = degrees_of(pa.table(columns), [one.item_id for one in items])
    assert degrees is not None
    return degrees


def not_read(items: Sequence[ItemDetails], content: ItemContent | None) -> tuple[str, ...]:
    """The columns of items that the content of a model does not read."""
    parts = () if content is None else tuple(source for source, _ in content.parts)
    vectors = {source.column for source in parts if isinstance(source, GivenVectors)}
    of_numbers = {name for source in parts if isinstance(source, Numbers) for name in source.columns}
    texts = [] if _text_names(content) else _names(one.texts for one in items)
    given = [name for name in _names(one.vectors for one in items) if name not in vectors]
    given += [name for name in _names(one.numbers for one in items) if name not in of_numbers]
    return (*texts, *given)


def _text_names(content: ItemContent | None) -> list[str]:
    names: list[str] = []
    for source, _ in () if content is None else content.parts:
        names += source.columns if isinstance(source, Texts) else ()
        names += source.texts if isinstance(source, GivenVectors) else ()
    return names


def _names(of_items: Iterable[Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(name for columns in of_items for name in columns))
