"""Items and the model itself: searched, compared, drawn on a map, examined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from variseq.inference.engine import Engine
from variseq.serving import ids
from variseq.serving.operations import Call, Operation
from variseq.serving.refusals import Refusal
from variseq.serving.schemas import IdsQuery, ItemsAnswer, SearchQuery, SimilarQuery
from variseq.serving.services import Services


async def search_items(services: Services, call: Call) -> ItemsAnswer:
    """Items by title or id."""
    query: SearchQuery = call.query
    engine, items = await _ask(services, lambda engine: engine.catalog.search(query.search, query.limit))
    return ItemsAnswer(_items(items, query.ids_as_text), engine.version)


async def similar_items(services: Services, call: Call) -> ItemsAnswer:
    """Items whose vectors point most nearly the same way."""
    query: SimilarQuery = call.query
    vocabulary = services.models.engine.vocabulary
    item_id = ids.item_id(call.path["item_id"], vocabulary)
    if vocabulary.item_positions([item_id])[0] < 0:
        raise Refusal(404, "There is no such item in the catalog.")
    engine, items = await _ask(
        services, lambda engine: engine.catalog.similar(item_id, min(query.k, engine.vocabulary.num_items - 1))
    )
    return ItemsAnswer(_items(items, query.ids_as_text), engine.version)


async def item_map(services: Services, call: Call) -> dict[str, Any]:
    """Items as points, near each other where the model sees them as alike."""
    query: IdsQuery = call.query
    engine, found = await _ask(services, lambda engine: engine.catalog.item_map())
    return {**found, "items": _items(found["items"], query.ids_as_text), "model": engine.version}


async def show_model(services: Services, call: Call) -> dict[str, Any]:
    """What the model is, and how its latent fares."""
    engine, health = await _ask(services, lambda engine: engine.catalog.health())
    return {**health, "model": engine.version}


def _items(items: list[dict[str, Any]], as_text: bool) -> list[dict[str, Any]]:
    return [{**one, "item_id": ids.in_answer(one["item_id"], as_text)} for one in items]


async def _ask(services: Services, question: Callable[[Engine], Any]) -> tuple[Engine, Any]:
    """The answer of the engine, and the engine; one thread at a time asks it things besides recommending."""

    def answer() -> tuple[Engine, Any]:
        engine = services.models.engine
        with services.asking:
            return engine, question(engine)

    return await services.readers.run(answer)


OPERATIONS: list[Operation[Services]] = [
    Operation("GET", "/v1/items", "Find items by title or id", "read", search_items, ItemsAnswer, query=SearchQuery),
    Operation("GET", "/v1/items/map", "Show items as points", "read", item_map, dict[str, Any], query=IdsQuery),
    Operation(
        "GET",
        "/v1/items/{item_id}/similar",
        "List items like this one",
        "read",
        similar_items,
        ItemsAnswer,
        query=SimilarQuery,
        statuses=(404,),
    ),
    Operation("GET", "/v1/model", "Show the model and its health", "read", show_model, dict[str, Any]),
]
