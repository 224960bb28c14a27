"""Routes for users, items, models, health, metrics and the explorer page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from time import time
from typing import Any

from variseq.errors import CheckpointError
from variseq.events.vocabulary import Id
from variseq.ranking.engine import Engine, Request
from variseq.ranking.options import RecommendOptions
from variseq.serving import ids
from variseq.serving.batching import InferenceRequest
from variseq.serving.http import HTTPError, Page, RequestContext, Route
from variseq.serving.openapi import HTML, REVALIDATE, page_route
from variseq.serving.requests import moment
from variseq.serving.schemas import (
    ErasureResponse,
    FindQuery,
    HealthResponse,
    IdsQuery,
    ItemsResponse,
    ModelRequest,
    ModelResponse,
    ModelsResponse,
    Posterior,
    ReadinessResponse,
    SearchQuery,
    SimilarQuery,
    StoredEvent,
    Uncertainty,
    UserResponse,
    UsersResponse,
)
from variseq.serving.services import Services
from variseq.serving.stores.protocol import Event
from variseq.serving.telemetry import CONTENT_TYPE

RETRY = {"Retry-After": "1"}
MEDIA_TYPES = {
    ".html": HTML,
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
}
EXPLORER_POLICY = b"default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


async def find_users(services: Services, context: RequestContext) -> UsersResponse:
    """Users whose id begins with a prefix."""
    query: FindQuery = context.query
    found = await services.readers.run(lambda: services.store.users(query.prefix, query.limit))
    return UsersResponse([ids.format_id(user_id, query.ids_as_text) for user_id in found])


async def show_user(services: Services, context: RequestContext) -> UserResponse:
    """The history of a user, and the uncertainty of the model."""
    user_id = ids.user_id(context.path["user_id"], services.models.engine.vocabulary)
    query: IdsQuery = context.query
    events = await services.readers.run(lambda: services.store.history(user_id))
    if not events:
        raise HTTPError(404, "There is no such user in the store.")
    answered = await services.batcher.submit(InferenceRequest(Request(RecommendOptions(k=1, reasons=False)), user_id))
    stored = await services.readers.run(lambda: _stored_events(answered.engine, events, query.ids_as_text))
    posterior = Posterior(Uncertainty(**answered.answer.uncertainty))
    shown_id = ids.format_id(user_id, query.ids_as_text)
    return UserResponse(shown_id, len(events), stored, posterior, answered.engine.version)


async def erase_user(services: Services, context: RequestContext) -> ErasureResponse:
    """Remove all events of a user, drop what is cached, and verify that nothing is left."""
    user_id = ids.user_id(context.path["user_id"], services.models.engine.vocabulary)
    began = int(time() * 1e6)
    caller, request_id = context.caller.name, context.request_id
    try:
        num_events = await services.writers.run(lambda: services.store.erase(user_id))
        await services.batcher.forget(user_id)
        left = await services.readers.run(lambda: services.store.history(user_id))
    except Exception:
        await services.auth.audit.write("erase user", caller, "failed", request_id, user_id)
        raise
    # An event that was sent after the erasure begins a new history.
    is_verified = all(event.timestamp >= began for event in left)
    outcome = "erased and verified" if is_verified else "events left"
    await services.auth.audit.write("erase user", caller, outcome, request_id, user_id)
    if not is_verified:
        raise HTTPError(500, "Events were found after the erasure. Send the request again and inform the operator.")
    return ErasureResponse(num_events, is_verified)


def _stored_events(engine: Engine, events: Sequence[Event], as_text: bool) -> list[StoredEvent]:
    item_ids: list[Id] = [event.item_id for event in events]
    positions = engine.vocabulary.item_positions(item_ids)
    titles: list[str | None] = [None] * len(events)
    if engine.items is not None:
        found = iter(engine.items.titles(positions[positions >= 0]))
        titles = [next(found) if position >= 0 else None for position in positions.tolist()]
    return [
        StoredEvent(
            ids.format_id(event.item_id, as_text),
            title,
            moment(event.timestamp),
            event.behavior,
            event.value,
            position >= 0,
        )
        for event, title, position in zip(events, titles, positions.tolist(), strict=True)
    ]


async def search_items(services: Services, context: RequestContext) -> ItemsResponse:
    """Items by title or id."""
    query: SearchQuery = context.query
    engine, items = await _from_catalog(services, lambda engine: engine.catalog.search(query.search, query.limit))
    return ItemsResponse(_items(items, query.ids_as_text), engine.version)


async def similar_items(services: Services, context: RequestContext) -> ItemsResponse:
    """Items with the most similar vectors."""
    query: SimilarQuery = context.query
    vocabulary = services.models.engine.vocabulary
    item_id = ids.item_id(context.path["item_id"], vocabulary)
    if vocabulary.item_positions([item_id])[0] < 0:
        raise HTTPError(404, "There is no such item in the catalog.")
    engine, items = await _from_catalog(
        services, lambda engine: engine.catalog.similar(item_id, min(query.k, engine.vocabulary.num_items - 1))
    )
    return ItemsResponse(_items(items, query.ids_as_text), engine.version)


async def item_map(services: Services, context: RequestContext) -> dict[str, Any]:
    """Items as points; similar items are near each other."""
    query: IdsQuery = context.query
    engine, found = await _from_catalog(services, lambda engine: engine.catalog.item_map())
    return {**found, "items": _items(found["items"], query.ids_as_text), "model_version": engine.version}


async def show_model(services: Services, context: RequestContext) -> dict[str, Any]:
    """What the model is, and the state of its latent."""
    engine, health = await _from_catalog(services, lambda engine: engine.health)
    return {**health, "model_version": engine.version}


def _items(items: list[dict[str, Any]], as_text: bool) -> list[dict[str, Any]]:
    return [{**one, "item_id": ids.format_id(one["item_id"], as_text)} for one in items]


async def _from_catalog(services: Services, compute: Callable[[Engine], Any]) -> tuple[Engine, Any]:
    """A result of the engine outside the batcher, and the engine; one thread at a time computes it."""

    def work() -> tuple[Engine, Any]:
        engine = services.models.engine
        with services.catalog_lock:
            return engine, compute(engine)

    return await services.readers.run(work)


async def swap_model(services: Services, context: RequestContext) -> ModelResponse:
    """Load a model and let it answer from now on; one that cannot be loaded changes nothing."""
    request: ModelRequest = context.body
    act, caller, request_id = f"swap model to {request.model_name}", context.caller.name, context.request_id
    try:
        await services.readers.run(lambda: services.models.swap(request.model_name))
    except CheckpointError as error:
        services.metrics.rejected_models.inc()
        await services.auth.audit.write(act, caller, "refused", request_id)
        reason = services.models.without_root(str(error))
        raise HTTPError(409, f"The model was refused and the one before goes on. {reason}") from error
    await services.model_changed()
    await services.auth.audit.write(act, caller, "done", request_id)
    return ModelResponse(services.models.name, services.models.engine.version)


async def list_models(services: Services, context: RequestContext) -> ModelsResponse:
    """The models that can be chosen."""
    models = services.models
    names = [] if models.registry is None else await services.readers.run(models.registry.names)
    await services.auth.audit.write("list models", context.caller.name, "done", context.request_id)
    return ModelsResponse(names, models.name, models.engine.version)


async def health(services: Services, context: RequestContext) -> HealthResponse:
    """The process answers; nothing else is checked."""
    return HealthResponse("alive")


async def ready(services: Services, context: RequestContext) -> ReadinessResponse:
    """Whether requests should come here; 503 with the reason where not."""
    reasons = []
    if services.auth.is_draining:
        reasons.append("The server is stopping.")
    if not services.batcher.is_alive:
        reasons.append("The model does not answer any more. Start the server again.")
    if await services.store_problem() is not None:
        reasons.append("The store cannot be used now; see the log of the server.")
    if reasons:
        raise HTTPError(503, " ".join(reasons), RETRY)
    problem = services.models.problem
    return ReadinessResponse(True, services.models.engine.version, [] if problem is None else [problem])


async def metrics(services: Services, context: RequestContext) -> Page:
    """All counters and gauges in the text format of Prometheus."""
    services.record_gauges()
    return Page(await services.readers.run(services.metrics.text), CONTENT_TYPE)


def explorer_routes() -> list[Route[Services]]:
    """The files of the explorer page, read once. Open to everybody: they hold no data."""
    routes = []
    for file in sorted(files("variseq.serving").joinpath("explore").iterdir(), key=lambda file: file.name):
        suffix = file.name[file.name.rfind(".") :]
        if file.is_file() and suffix in MEDIA_TYPES:
            path = "/explore" if file.name == "index.html" else f"/explore/{file.name}"
            page = Page(file.read_bytes(), MEDIA_TYPES[suffix], EXPLORER_POLICY, REVALIDATE)
            routes.append(page_route(path, "Show the explorer", None, page))
    return routes


_USER, _UNREADY, _MISSING = "/v1/users/{user_id}", (503,), (404,)
ROUTES: list[Route[Services]] = [
    Route("GET", "/v1/items", "Find items by title or id", "read", search_items, ItemsResponse, query=SearchQuery),
    Route("GET", "/v1/items/map", "Show items as points", "read", item_map, dict[str, Any], query=IdsQuery),
    Route(
        "GET",
        "/v1/items/{item_id}/similar",
        "List similar items",
        "read",
        similar_items,
        ItemsResponse,
        query=SimilarQuery,
        statuses=_MISSING,
    ),
    Route("GET", "/v1/model", "Show the model and its health", "read", show_model, dict[str, Any]),
    Route(
        "GET", _USER, "Show the history and the posterior of a user", "read", show_user, UserResponse,
        query=IdsQuery, statuses=(404, 503),
    ),
    Route("DELETE", _USER, "Erase a user", "erase", erase_user, ErasureResponse, statuses=_UNREADY),
    Route("GET", "/v1/users", "Find users", "read", find_users, UsersResponse, query=FindQuery, statuses=_UNREADY),
    Route(
        "POST", "/v1/admin/model", "Swap the model", "admin", swap_model, ModelResponse, ModelRequest,
        statuses=(409, 503),
    ),
    Route("GET", "/v1/admin/models", "List the models", "admin", list_models, ModelsResponse, statuses=_UNREADY),
    Route("GET", "/health", "Show that the server is alive", None, health, HealthResponse),
    Route("GET", "/ready", "Show whether requests should come here", None, ready, ReadinessResponse, statuses=_UNREADY),
    Route("GET", "/metrics", "Show the metrics for Prometheus", "read", metrics, media_type="text/plain"),
]  # fmt: skip
