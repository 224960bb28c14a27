"""Events in, recommendations out: the two calls that a shop makes all the time."""

from __future__ import annotations

from time import time

from msgspec import UNSET

from variseq.inference.question import Answer
from variseq.recommend.wishes import UNKNOWN_USER
from variseq.serving.batching import Answered, Asked
from variseq.serving.operations import KIB, Call, Operation
from variseq.serving.paging import next_page
from variseq.serving.questions import events_of, history_of, moment, question_of
from variseq.serving.schemas import (
    EventsAnswer,
    EventsRequest,
    RecommendAnswer,
    RecommendRequest,
    Uncertainty,
)
from variseq.serving.services import Services

EVENTS_BYTES = 512 * KIB  # A thousand events: what may be stored at once, and the length of most histories.


async def recommend(services: Services, call: Call) -> RecommendAnswer:
    """A list for a user or a history."""
    request: RecommendRequest = call.body
    engine = services.models.engine
    question = question_of(request, engine.vocabulary, engine.version)
    needed = engine.version if request.page is not None else None
    asked = Asked(question, request.user_id, history_of(request, engine.vocabulary), needed)
    answered = await services.batcher.ask(asked)
    answer = answered.answer
    return RecommendAnswer(
        recommendations=answer.recommendations,
        model=answered.engine.version,
        fallback=_fallback(asked, answered),
        events_used=answered.num_events,
        events_unknown=answered.num_unknown,
        latest_event=None if answered.latest is None else moment(answered.latest),
        latest_event_age_seconds=None if answered.latest is None else round(time() - answered.latest / 1e6, 6),
        uncertainty=uncertainty_of(answer),
        approximate=answer.approximate,
        next_page=_next_page(asked, answered),
        request_id=call.exchange.request_id,
        attention=UNSET if answer.attention is None else answer.attention,
    )


async def add_events(services: Services, call: Call) -> EventsAnswer:
    """Store events; the answer comes when they are durable and every later recommendation sees them."""
    request: EventsRequest = call.body
    vocabulary = services.models.engine.vocabulary
    events = events_of(request.events, vocabulary)
    appended = await services.writers.run(lambda: services.store.append(events))
    item_ids = list(dict.fromkeys(event.item_id for event in events))
    positions = vocabulary.item_positions(item_ids).tolist()
    unknown = [item_id for item_id, position in zip(item_ids, positions, strict=True) if position < 0]
    counts = (("accepted", appended.accepted), ("duplicate", appended.duplicates), ("refused", appended.refused))
    for outcome, count in counts:
        if count:
            services.metrics.events.labels(outcome).inc(count)
    return EventsAnswer(appended.accepted, appended.duplicates, appended.refused, unknown)


def uncertainty_of(answer: Answer) -> Uncertainty:
    """How sure the model is of a user."""
    return Uncertainty(answer.total, answer.aleatoric, answer.epistemic)


def _fallback(asked: Asked, answered: Answered) -> str | None:
    """As `recommend` words it: a user of whom there is no event at all is unknown."""
    is_fallback = answered.answer.fallback is not None
    is_unknown = is_fallback and asked.user_id is not None and answered.num_unknown == 0
    return UNKNOWN_USER if is_unknown else answered.answer.fallback


def _next_page(asked: Asked, answered: Answered) -> str | None:
    """A token for what follows; None for a set of `coverage`, which is whole, and for a list that ends here."""
    question, listed = asked.question, answered.answer.recommendations
    if question.coverage is not None or len(listed) < question.k:
        return None
    shown = [*question.shown, *(one.item_id for one in listed)]
    return next_page(answered.engine.version, answered.engine.vocabulary, shown)


OPERATIONS: list[Operation[Services]] = [
    Operation(
        "POST",
        "/v1/recommend",
        "Recommend items to a user or for a history",
        "read",
        recommend,
        RecommendAnswer,
        RecommendRequest,
        max_bytes=EVENTS_BYTES,
        statuses=(503,),
    ),
    Operation(
        "POST",
        "/v1/events",
        "Store what users did",
        "write",
        add_events,
        EventsAnswer,
        EventsRequest,
        max_bytes=EVENTS_BYTES,
        statuses=(409, 503),
    ),
]
