"""Routes for recommendations and events."""

from __future__ import annotations

from time import time
from typing import Any

from msgspec import UNSET

from variseq.errors import InputError
from variseq.ranking.engine import UNKNOWN_USER, Request
from variseq.ranking.recommendations import ITEM_COLUMNS
from variseq.serving import ids
from variseq.serving.batching import InferenceRequest, InferenceResult
from variseq.serving.http import KIB, RequestContext, Route
from variseq.serving.requests import events_of, history_of, list_request, moment, next_page, options_of
from variseq.serving.schemas import (
    MAX_BATCH_ITEMS,
    BatchRequest,
    BatchResponse,
    EventsRequest,
    EventsResponse,
    Recommendation,
    RecommendRequest,
    RecommendResponse,
    Uncertainty,
    UserListResponse,
)
from variseq.serving.services import Services

EVENTS_BYTES = 512 * KIB  # A thousand events: what may be stored at once, and the length of most histories.


async def recommend(services: Services, context: RequestContext) -> RecommendResponse:
    """A list for a user or a history."""
    request: RecommendRequest = context.body
    engine = services.models.engine
    vocabulary = engine.vocabulary
    parsed = list_request(request, vocabulary, engine.version)
    needed = engine.version if request.page is not None else None
    user_id = None if request.user_id is None else ids.user_id(request.user_id, vocabulary)
    query = InferenceRequest(parsed, user_id, history_of(request, vocabulary), needed)
    result = await services.batcher.submit(query)
    return RecommendResponse(**_listed(query, result, request.ids_as_text), request_id=context.request_id)


async def recommend_batch(services: Services, context: RequestContext) -> BatchResponse:
    """A list for each of several users, each the same as in a request of its own; one error refuses all."""
    request: BatchRequest = context.body
    _refuse_too_many(request, services.max_batch_users)
    services.auth.charge(context.caller, len(request.users) - 1)
    vocabulary = services.models.engine.vocabulary
    parsed = Request(options_of(request, vocabulary), attention=request.attention)
    users = ids.user_ids(request.users, vocabulary)
    query = [InferenceRequest(parsed, user_id) for user_id in users]
    result = await services.batcher.submit_all(query)
    answers = [
        UserListResponse(**_listed(one, answer, request.ids_as_text), user_id=ids.format_id(user, request.ids_as_text))
        for user, one, answer in zip(users, query, result, strict=True)
    ]
    return BatchResponse(answers, context.request_id)


async def add_events(services: Services, context: RequestContext) -> EventsResponse:
    """Store events; the answer comes when they are durable and every later recommendation sees them."""
    request: EventsRequest = context.body
    vocabulary = services.models.engine.vocabulary
    events = events_of(request.events, vocabulary)
    appended = await services.writers.run(lambda: services.store.append(events))
    item_ids = list(dict.fromkeys(event.item_id for event in events))
    positions = vocabulary.item_positions(item_ids).tolist()
    unknown = [
        ids.format_id(item_id, request.ids_as_text)
        for item_id, position in zip(item_ids, positions, strict=True)
        if position < 0
    ]
    counts = (("accepted", appended.accepted), ("duplicate", appended.duplicates), ("refused", appended.refused))
    for outcome, count in counts:
        if count:
            services.metrics.events.labels(outcome).inc(count)
    return EventsResponse(appended.accepted, appended.duplicates, appended.refused, unknown)


def _refuse_too_many(request: BatchRequest, most: int) -> None:
    """Raises InputError for more users than this server answers at once, and for more items in all of their lists."""
    num_users = len(request.users)
    if num_users > most:
        raise InputError(f"users has {num_users:,} users. Allowed here: {most:,} at once. Send several requests.")
    if num_users * request.k > MAX_BATCH_ITEMS:
        raise InputError(
            f"{num_users:,} users with k={request.k} are {num_users * request.k:,} items. Allowed: "
            f"{MAX_BATCH_ITEMS:,} items in one answer. Send fewer users or a smaller k."
        )


def _listed(query: InferenceRequest, result: InferenceResult, as_text: bool) -> dict[str, Any]:
    """The fields of a `ListResponse`."""
    answer = result.answer
    return {
        "recommendations": [_recommendation(row, as_text) for row in answer.recommendations.to_dicts(ITEM_COLUMNS)],
        "model_version": result.engine.version,
        "fallback": _fallback(query, result),
        "num_events_used": result.num_events,
        "num_unknown_items": result.num_unknown,
        "latest_event": None if result.latest is None else moment(result.latest),
        "latest_event_age_seconds": None if result.latest is None else round(time() - result.latest / 1e6, 6),
        "uncertainty": Uncertainty(**answer.uncertainty),
        "approximate": answer.approximate,
        "next_page": _next_page(query, result),
        "attention": UNSET if answer.attention is None else answer.attention,
    }


def _recommendation(row: dict[str, Any], as_text: bool) -> Recommendation:
    item_id = ids.format_id(row.pop("item_id"), as_text)
    return Recommendation(item_id, reasons=row.pop("reasons", []), **row)


def _fallback(query: InferenceRequest, result: InferenceResult) -> str | None:
    """As `recommend` words it: a user of whom there is no event at all is unknown."""
    is_fallback = result.answer.fallback is not None
    is_unknown = is_fallback and query.user_id is not None and result.num_unknown == 0
    return UNKNOWN_USER if is_unknown else result.answer.fallback


def _next_page(query: InferenceRequest, result: InferenceResult) -> str | None:
    """A token for what follows; None for a conformal set, which is whole, and for a list that ends here."""
    request, listed = query.request, result.answer.recommendations
    if request.options.conformal_level is not None or len(listed) < request.options.k:
        return None
    shown = [*request.shown, *listed.item_id]
    return next_page(result.engine.version, result.engine.vocabulary, shown)


ROUTES: list[Route[Services]] = [
    Route(
        "POST",
        "/v1/recommend",
        "Recommend items to a user or for a history",
        "read",
        recommend,
        RecommendResponse,
        RecommendRequest,
        max_bytes=EVENTS_BYTES,
        statuses=(503,),
    ),
    Route(
        "POST",
        "/v1/recommend/batch",
        "Recommend items to each of several users",
        "read",
        recommend_batch,
        BatchResponse,
        BatchRequest,
        max_bytes=EVENTS_BYTES,
        statuses=(503,),
    ),
    Route(
        "POST",
        "/v1/events",
        "Store what users did",
        "write",
        add_events,
        EventsResponse,
        EventsRequest,
        max_bytes=EVENTS_BYTES,
        statuses=(409, 503),
    ),
]
