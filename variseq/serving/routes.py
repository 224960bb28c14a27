"""The operations of the API, and the files of the explorer page."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from importlib.resources import files
from time import time
from typing import Any

from msgspec import UNSET

from variseq.errors import CheckpointError, InputError
from variseq.ranking.catalog import Catalog
from variseq.ranking.engine import NO_HISTORY, UNKNOWN_USER, Engine, Request
from variseq.ranking.options import RecommendOptions
from variseq.ranking.recommendations import ITEM_COLUMNS
from variseq.ranking.when import NextTimes, WhenOptions
from variseq.serving.batching import InferenceRequest, InferenceResult
from variseq.serving.event_routes import EVENT_ROUTES, EVENTS_BYTES
from variseq.serving.exposures import add_exposure, erase_exposures
from variseq.serving.http import Handler, HTTPError, Page, RequestContext, Route
from variseq.serving.item_routes import ITEM_ROUTES
from variseq.serving.keys import Role
from variseq.serving.openapi import HTML, REVALIDATE, page_route
from variseq.serving.pages import next_page
from variseq.serving.schemas import (
    MAX_BATCH_ITEMS,
    BatchRequest,
    BatchResponse,
    ErasureResponse,
    FindQuery,
    HealthResponse,
    IdsQuery,
    ItemsResponse,
    ModelRequest,
    ModelResponse,
    ModelsResponse,
    NextEvent,
    Posterior,
    ReadinessResponse,
    Recommendation,
    RecommendRequest,
    RecommendResponse,
    SearchQuery,
    SimilarQuery,
    StoredEvent,
    Uncertainty,
    UserListResponse,
    UserResponse,
    UsersResponse,
    format_id,
    history_of,
    item_id_of,
    list_request,
    moment,
    options_of,
    user_id_of,
    when_of,
)
from variseq.serving.services import Services
from variseq.serving.stores.protocol import Event
from variseq.serving.telemetry import CONTENT_TYPE

log = logging.getLogger("variseq.serving")
MEDIA_TYPES = {
    ".html": HTML,
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
}
EXPLORER_POLICY = b"default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
API: list[Route] = []
"""The routes in the order of the document."""


def route(method: str, path: str, role: Role | None, **details: Any) -> Callable[[Handler], Handler]:
    """Add a handler to the API; see `Route`."""

    def add(handler: Handler) -> Handler:
        API.append(Route(method, path, role, handler, **details))
        return handler

    return add


@route("POST", "/v1/recommend", "read", max_bytes=EVENTS_BYTES, statuses=(503,))
async def recommend(services: Services, context: RequestContext, body: RecommendRequest) -> RecommendResponse:
    """Recommend items to a user or for a history."""
    engine = services.models.engine
    vocabulary = engine.vocabulary
    user_id = None if body.user_id is None else user_id_of(body.user_id, vocabulary)
    arm = services.arm_of(user_id)
    request = list_request(body, vocabulary, engine.version, services.policy_of(arm, context.request_id))
    needed = None if body.page is None else engine.version
    query = InferenceRequest(request, user_id, history_of(body, vocabulary), needed, arm)
    result = await services.batcher.submit(query)
    exposure_id = add_exposure(services, context.request_id, query, result)
    fields = _list_fields(query, result, body.ids_as_text)
    return RecommendResponse(**fields, exposure_id=exposure_id, request_id=context.request_id)


@route("POST", "/v1/recommend/batch", "read", max_bytes=EVENTS_BYTES, statuses=(503,))
async def recommend_batch(services: Services, context: RequestContext, body: BatchRequest) -> BatchResponse:
    """Recommend items to each of several users.

    Each list is the same as in a request of its own; one error refuses all.
    """
    num_users, most = len(body.users), services.settings.batch_users
    if num_users > most:
        raise InputError(f"users has {num_users:,} users. Allowed here: {most:,} at once. Send several requests.")
    if num_users * body.k > MAX_BATCH_ITEMS:
        raise InputError(
            f"{num_users:,} users with k={body.k} are {num_users * body.k:,} items. Allowed: {MAX_BATCH_ITEMS:,} items "
            "in one answer. Send fewer users or a smaller k."
        )
    services.auth.charge(context.caller, num_users - 1)
    vocabulary = services.models.engine.vocabulary
    users = [user_id_of(one, vocabulary) for one in body.users]
    arms = [services.arm_of(user_id) for user_id in users]
    requests = {
        arm: Request(
            options_of(body, vocabulary, services.policy_of(arm, context.request_id)),
            attention=body.attention,
            when=when_of(body),
        )
        for arm in dict.fromkeys(arms)
    }
    queries = [InferenceRequest(requests[arm], user_id, arm=arm) for user_id, arm in zip(users, arms, strict=True)]
    results = await services.batcher.submit_all(queries)
    answers = []
    for number, (user, query, result) in enumerate(zip(users, queries, results, strict=True)):
        exposure_id = add_exposure(services, f"{context.request_id}.{number}", query, result)
        fields = _list_fields(query, result, body.ids_as_text)
        answers.append(UserListResponse(**fields, exposure_id=exposure_id, user_id=format_id(user, body.ids_as_text)))
    return BatchResponse(answers, context.request_id)


def _list_fields(query: InferenceRequest, result: InferenceResult, as_text: bool) -> dict[str, Any]:
    """The fields of a `ListResponse`."""
    answer, listed = result.answer, result.answer.recommendations
    # As `recommend` in Python words it: a user of whom there is no event at all is unknown.
    fallback = answer.fallback
    if fallback is not None and query.user_id is not None and result.num_unknown == 0:
        fallback = fallback.replace(NO_HISTORY, UNKNOWN_USER)
    # A conformal set is whole, and a list that is shorter than what was asked for ends here.
    options = query.request.options
    ends_here = options.conformal_level is not None or len(listed) < options.k
    shown = [] if ends_here else [*query.request.shown, *listed.item_id]
    return {
        "recommendations": [
            Recommendation(format_id(row.pop("item_id"), as_text), reasons=row.pop("reasons", []), **row)
            for row in listed.to_dicts(ITEM_COLUMNS)
        ],
        "model_version": result.engine.version,
        "fallback": fallback,
        "num_events_used": result.num_events,
        "num_unknown_items": result.num_unknown,
        "latest_event": None if result.latest is None else moment(result.latest),
        "latest_event_age_seconds": None if result.latest is None else round(time() - result.latest / 1e6, 6),
        "uncertainty": Uncertainty(**answer.uncertainty),
        "approximate": answer.approximate,
        "next_page": next_page(result.engine.version, result.engine.vocabulary, shown),
        "arm": UNSET if query.arm is None else query.arm.name,
        "attention": UNSET if answer.attention is None else answer.attention,
        "when": UNSET if query.request.when is None else _next_event(answer.when, query.request.when),
    }


def _next_event(found: NextTimes | None, options: WhenOptions) -> NextEvent | None:
    if found is None:
        return None
    low, median, high = (moment(int(one[0])) for one in (found.low, found.median, found.high))
    return NextEvent(low, median, high, dict(zip(options.within, found.within[0].tolist(), strict=True)))


API += EVENT_ROUTES


@route("GET", "/v1/items", "read")
async def search_items(services: Services, context: RequestContext, query: SearchQuery) -> ItemsResponse:
    """Find items by title or id."""
    engine, items = await _from_catalog(services, lambda engine: engine.catalog.search(query.search, query.limit))
    return ItemsResponse(_items(items, query.ids_as_text), engine.version)


@route("GET", "/v1/items/map", "read")
async def item_map(services: Services, context: RequestContext, query: IdsQuery) -> dict[str, Any]:
    """Show items as points; similar items are near each other."""
    engine, found = await _from_catalog(services, lambda engine: engine.catalog.item_map())
    return {**found, "items": _items(found["items"], query.ids_as_text), "model_version": engine.version}


@route("GET", "/v1/items/{item_id}/similar", "read", statuses=(404,))
async def similar_items(
    services: Services, context: RequestContext, item_id: str, query: SimilarQuery
) -> ItemsResponse:
    """List similar items."""
    catalog = services.models.engine.catalog
    known_id = catalog.ids[_position(catalog, item_id)]
    engine, items = await _from_catalog(
        services,
        lambda engine: engine.catalog.similar(known_id, min(query.k, engine.vocabulary.num_items - 1), query.by),
    )
    return ItemsResponse(_items(items, query.ids_as_text), engine.version)


@route("GET", "/v1/items/{item_id}/image", "read", statuses=(404,), media_type="image/*")
async def show_image(services: Services, context: RequestContext, item_id: str) -> Page:
    """Show the picture of an item: JPEG, PNG, WebP or GIF.

    Its path is that of the table of items. With the ETag of the picture in If-None-Match the answer is 304.
    """
    catalog = services.models.engine.catalog
    path, images, page = catalog.image_path(_position(catalog, item_id)), services.images, None
    if path is not None and images is not None:
        try:
            page = await services.readers.run(lambda: images.page(path))
        except InputError as error:
            log.warning("a picture is not served: %r %s", path, error)
    if page is None:
        raise HTTPError(404, "There is no picture of this item.")
    return page


@route("GET", "/v1/model", "read")
async def show_model(services: Services, context: RequestContext) -> dict[str, Any]:
    """Show the model and its health."""
    engine, health = await _from_catalog(services, lambda engine: engine.health)
    has_images = services.images is not None and engine.catalog.image_column is not None
    return {**health, "has_images": has_images, "model_version": engine.version}


def _position(catalog: Catalog, item_id: str) -> int:
    """Raises HTTPError (404) for an item that is not in the catalog, or was removed."""
    position = int(catalog.vocabulary.item_positions([item_id_of(item_id, catalog.vocabulary)])[0])
    if position < 0 or catalog.removed[position]:
        raise HTTPError(404, "There is no such item in the catalog.")
    return position


def _items(items: list[dict[str, Any]], as_text: bool) -> list[dict[str, Any]]:
    return [{**one, "item_id": format_id(one["item_id"], as_text)} for one in items]


async def _from_catalog(services: Services, compute: Callable[[Engine], Any]) -> tuple[Engine, Any]:
    """A result of the engine outside the batcher, and the engine; one thread at a time computes it."""

    def work() -> tuple[Engine, Any]:
        engine = services.models.engine
        with services.catalog_lock:
            return engine, compute(engine)

    return await services.readers.run(work)


@route("GET", "/v1/users/{user_id}", "read", statuses=(404, 503))
async def show_user(services: Services, context: RequestContext, user_id: str, query: IdsQuery) -> UserResponse:
    """Show the history and the posterior of a user."""
    known_id = user_id_of(user_id, services.models.engine.vocabulary)
    events = await services.readers.run(lambda: services.store.history(known_id))
    if not events:
        raise HTTPError(404, "There is no such user in the store.")
    answered = await services.batcher.submit(InferenceRequest(Request(RecommendOptions(k=1, reasons=False)), known_id))
    stored = await services.readers.run(lambda: _stored_events(answered.engine, events, query.ids_as_text))
    posterior = Posterior(Uncertainty(**answered.answer.uncertainty))
    shown_id = format_id(known_id, query.ids_as_text)
    return UserResponse(shown_id, len(events), stored, posterior, answered.engine.version)


def _stored_events(engine: Engine, events: Sequence[Event], as_text: bool) -> list[StoredEvent]:
    positions = engine.vocabulary.item_positions([event.item_id for event in events])
    known = positions >= 0
    titles = iter(engine.items.titles(positions[known]) if engine.items is not None else [None] * int(known.sum()))
    return [
        StoredEvent(
            format_id(event.item_id, as_text),
            next(titles) if is_known else None,
            moment(event.timestamp),
            event.behavior,
            event.value,
            is_known,
        )
        for event, is_known in zip(events, known.tolist(), strict=True)
    ]


@route("DELETE", "/v1/users/{user_id}", "erase", statuses=(503,))
async def erase_user(services: Services, context: RequestContext, user_id: str) -> ErasureResponse:
    """Erase a user.

    All events and exposures are removed and what is cached is dropped; then it is verified that nothing is left.
    """
    known_id = user_id_of(user_id, services.models.engine.vocabulary)
    began = int(time() * 1e6)
    outcome = "failed"
    try:
        num_events = await services.writers.run(lambda: services.store.erase(known_id))
        await services.batcher.forget(known_id)
        await erase_exposures(services, known_id)
        left = await services.readers.run(lambda: services.store.history(known_id))
        # An event that was sent after the erasure begins a new history.
        is_verified = all(event.timestamp >= began for event in left)
        outcome = "erased and verified" if is_verified else "events left"
    finally:
        await services.auth.audit.write("erase user", context.caller.name, outcome, context.request_id, known_id)
    if not is_verified:
        raise HTTPError(500, "Events were found after the erasure. Send the request again and inform the operator.")
    return ErasureResponse(num_events, is_verified)


@route("GET", "/v1/users", "read", statuses=(503,))
async def find_users(services: Services, context: RequestContext, query: FindQuery) -> UsersResponse:
    """Find users whose id begins with a prefix."""
    found = await services.readers.run(lambda: services.store.users(query.prefix, query.limit))
    return UsersResponse([format_id(user_id, query.ids_as_text) for user_id in found])


@route("POST", "/v1/admin/model", "admin", statuses=(409, 503))
async def swap_model(services: Services, context: RequestContext, body: ModelRequest) -> ModelResponse:
    """Swap the model.

    The model is loaded and answers from now on; one that cannot be loaded changes nothing.
    """
    act, caller, request_id = f"swap model to {body.model_name}", context.caller.name, context.request_id
    try:
        await services.readers.run(lambda: services.models.swap(body.model_name))
    except CheckpointError as error:
        services.metrics.rejected_models.inc()
        await services.auth.audit.write(act, caller, "refused", request_id)
        reason = services.models.without_root(str(error))
        raise HTTPError(409, f"The model was refused and the one before goes on. {reason}") from error
    await services.model_changed()
    await services.auth.audit.write(act, caller, "done", request_id)
    return ModelResponse(services.models.name, services.models.engine.version)


@route("GET", "/v1/admin/models", "admin", statuses=(503,))
async def list_models(services: Services, context: RequestContext) -> ModelsResponse:
    """List the models that can be chosen."""
    models = services.models
    names = await services.readers.run(models.names)
    await services.auth.audit.write("list models", context.caller.name, "done", context.request_id)
    return ModelsResponse(names, models.name, models.engine.version)


@route("GET", "/health", None)
async def health(services: Services, context: RequestContext) -> HealthResponse:
    """Show that the server is alive; nothing else is checked."""
    return HealthResponse("alive")


@route("GET", "/ready", None, statuses=(503,))
async def ready(services: Services, context: RequestContext) -> ReadinessResponse:
    """Show whether requests should come here; 503 with the reason where not."""
    reasons = []
    if services.auth.is_draining:
        reasons.append("The server is stopping.")
    if not services.batcher.is_alive:
        reasons.append("The model does not answer any more. Start the server again.")
    if await services.store_problem() is not None:
        reasons.append("The store cannot be used now; see the log of the server.")
    if reasons:
        raise HTTPError(503, " ".join(reasons), {"Retry-After": "1"})
    problem = services.models.problem
    return ReadinessResponse(True, services.models.engine.version, [] if problem is None else [problem])


@route("GET", "/metrics", "read", media_type="text/plain")
async def metrics(services: Services, context: RequestContext) -> Page:
    """Show the metrics for Prometheus."""
    services.record_gauges()
    return Page(await services.readers.run(services.metrics.text), CONTENT_TYPE)


API += ITEM_ROUTES


def explorer_routes() -> list[Route]:
    """The files of the explorer page, read once. Open to everybody: they hold no data."""
    routes = []
    for file in files("variseq.serving").joinpath("explore").iterdir():
        media_type = MEDIA_TYPES.get(file.name[file.name.rfind(".") :])
        if media_type is not None:
            page = Page(file.read_bytes(), media_type, EXPLORER_POLICY, REVALIDATE)
            paths = ("/", "/explore") if file.name == "index.html" else (f"/explore/{file.name}",)
            routes += [page_route(path, None, page) for path in paths]
    return routes
