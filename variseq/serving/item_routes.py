"""Items that are added, updated and removed while the server answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from msgspec import Meta, Struct

from variseq.errors import CheckpointError
from variseq.events.hierarchy import nodes_of
from variseq.events.vocabulary import Id, Vocabulary
from variseq.ranking.catalog_changes import (
    MAX_CATEGORIES,
    MAX_COLUMNS,
    MAX_NAME,
    MAX_TEXT,
    MAX_VECTOR,
    SHOWN,
    ChangeCounts,
    ItemDetails,
)
from variseq.serving.http import KIB, HTTPError, RequestContext, Route
from variseq.serving.models import Change
from variseq.serving.schemas import AnyId, IdsQuery, format_id, item_id_of
from variseq.serving.services import Services

MAX_AT_ONCE = 1000
ITEMS_BYTES, IDS_BYTES = 32 * 1024 * KIB, 512 * KIB
Text = Annotated[str, Meta(max_length=MAX_TEXT)]
Column = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
Vector = Annotated[list[float], Meta(min_length=1, max_length=MAX_VECTOR)]


class ItemInput(Struct, forbid_unknown_fields=True):
    """What is given of an item; what is left out stays as it was.

    `text` is read by the encoder of the model. `vectors` and `numbers` are named as the columns of the items file.
    `image` is a path from the server's folder of pictures, for a model whose items have pictures. `hierarchy` is the
    tree code of the item, such as `cardio|shock|septic`: its nodes join the categories.
    """

    item_id: AnyId
    title: Text | None = None
    categories: Annotated[list[Column], Meta(max_length=MAX_CATEGORIES)] | None = None
    hierarchy: Annotated[Text, Meta(description="names from the root down, with | between levels")] | None = None
    text: Text | None = None
    image: Text | None = None
    vectors: Annotated[dict[Column, Vector], Meta(max_length=MAX_COLUMNS)] = {}
    numbers: Annotated[dict[Column, float], Meta(max_length=MAX_COLUMNS)] = {}


class ItemsRequest(Struct, forbid_unknown_fields=True):
    """1 to 1,000 items, all or none."""

    items: Annotated[list[ItemInput], Meta(min_length=1, max_length=MAX_AT_ONCE)]


class RemovalRequest(Struct, forbid_unknown_fields=True):
    """The ids of 1 to 1,000 items, all or none."""

    item_ids: Annotated[list[AnyId], Meta(min_length=1, max_length=MAX_AT_ONCE)]


class ChangeResponse(Struct):
    """What became of the items. `not_read` are columns that the model does not read."""

    added: int
    updated: int
    removed: int
    unchanged: int
    not_read: list[str]
    model_version: str


class AddedQuery(IdsQuery, kw_only=True, forbid_unknown_fields=True):
    """Which part of the list: `limit` items from number `start` on."""

    start: Annotated[int, Meta(ge=0, le=10**6)] = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class AddedItem(Struct):
    """An item that the model was not trained on."""

    item_id: int | str
    title: str | None
    categories: list[str]


class AddedResponse(Struct):
    """Items that were added, in the order in which they came, and how many there are in all."""

    items: list[AddedItem]
    num_added: int
    num_removed: int
    model_version: str


async def add_items(services: Services, context: RequestContext, body: ItemsRequest) -> ChangeResponse:
    """Add items, or update their titles and categories.

    The answer comes when the change is durable. This worker knows it then, and the others within a second.
    """
    services.auth.charge(context.caller, len(body.items) - 1)
    vocabulary = services.models.engine.vocabulary
    return await _changed(
        services, lambda engines, before: engines.with_items(before, [*_details(body.items, vocabulary)])
    )


async def remove_items(services: Services, context: RequestContext, body: RemovalRequest) -> ChangeResponse:
    """Remove items: no answer has them any more."""
    services.auth.charge(context.caller, len(body.item_ids) - 1)
    vocabulary = services.models.engine.vocabulary
    ids: list[Id] = [item_id_of(one, vocabulary) for one in body.item_ids]
    return await _changed(services, lambda engines, before: engines.without_items(before, ids))


async def list_added(services: Services, context: RequestContext, query: AddedQuery) -> AddedResponse:
    """List the items that were added."""
    engine, first = services.models.engine, services.models.engines.trained.vocabulary.num_items
    chosen = range(first, engine.vocabulary.num_items)[query.start : query.start + query.limit]
    categories = [()] * len(chosen) if engine.items is None else engine.items.categories(chosen)
    items = [
        AddedItem(format_id(engine.catalog.ids[item], query.ids_as_text), engine.catalog.titles[item], list(names))
        for item, names in zip(chosen, categories, strict=True)
    ]
    return AddedResponse(items, engine.vocabulary.num_items - first, int(engine.catalog.removed.sum()), engine.version)


ITEM_ROUTES = [
    Route("POST", "/v1/items", "write", add_items, ITEMS_BYTES, (409,)),
    Route("DELETE", "/v1/items", "write", remove_items, IDS_BYTES, (409,)),
    Route("GET", "/v1/items/added", "read", list_added),
]


def _details(items: list[ItemInput], vocabulary: Vocabulary) -> Iterator[ItemDetails]:
    nodes = nodes_of([one.hierarchy for one in items], [one.item_id for one in items])
    for one, of_tree in zip(items, nodes, strict=True):
        given: dict[str, Any] = {name: getattr(one, name) for name in (*SHOWN, "vectors", "numbers")}
        if of_tree:
            given["categories"] = list(dict.fromkeys([*(one.categories or ()), *of_tree]))
        texts = {} if one.text is None else {"text": one.text}
        yield ItemDetails.of(item_id=item_id_of(one.item_id, vocabulary), texts=texts, **given)


async def _changed(services: Services, how: Change) -> ChangeResponse:
    """Change the catalog and let everything follow. Raises InputError, and HTTPError (409) for a file in the way."""
    try:
        counts: ChangeCounts = await services.changers.run(lambda: services.models.change(how))
    except CheckpointError as error:
        reason = services.models.without_root(str(error))
        raise HTTPError(409, f"The catalog was not changed. {reason}") from error
    await services.model_changed()
    fields = (counts.added, counts.updated, counts.removed, counts.unchanged)
    return ChangeResponse(*fields, list(counts.not_read), services.models.engine.version)
