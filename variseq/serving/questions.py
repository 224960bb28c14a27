"""A request for recommendations into what the model is asked; every id is read as the catalog has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from variseq.errors import InputError
from variseq.events.vocabulary import MAX_ID_BYTES, Id, Vocabulary
from variseq.inference.question import Question
from variseq.sequences.given_history import EPOCH, GivenEvent, latest_time, microseconds
from variseq.serving import ids
from variseq.serving.paging import shown_items
from variseq.serving.schemas import MAX_BOOSTS, Boost, EventInput, HistoryEvent, ListRequest, RecommendRequest
from variseq.serving.stores.protocol import Event


def question_of(request: RecommendRequest, vocabulary: Vocabulary, model: str) -> Question:
    """What a request asks. Raises InputError where it contradicts itself or names what cannot be."""
    if (request.user_id is None) == (request.history is None):
        raise InputError("Give either user_id or history (a list of item ids, oldest first), not both and not neither.")
    shown = () if request.page is None else shown_items(request.page, model, vocabulary)
    return list_question(request, vocabulary, request.coverage, shown)


def list_question(
    request: ListRequest, vocabulary: Vocabulary, coverage: float | None = None, shown: Iterable[Id] = ()
) -> Question:
    """The part of a question that is the same for several users. Raises InputError."""
    boost = request.boost or Boost()
    if len(boost.items) + len(boost.categories) > MAX_BOOSTS:
        raise InputError(f"boost has more than {MAX_BOOSTS} factors. Send fewer.")
    category = request.category
    return Question(
        k=request.k,
        exclude=ids.item_ids(request.exclude, vocabulary),
        only=None if request.only is None else ids.item_ids(request.only, vocabulary),
        category=[category] if isinstance(category, str) else category,
        exclude_seen=request.exclude_seen,
        explore=request.explore,
        seed=request.seed,
        diversity=request.diversity,
        coverage=coverage,
        boost_items={ids.item_id(key, vocabulary): factor for key, factor in boost.items.items()},
        boost_categories=boost.categories,
        pin=_pins(request, vocabulary),
        shown=list(shown),
        because=request.because,
        attention=request.attention,
    )


def history_of(request: RecommendRequest, vocabulary: Vocabulary) -> list[Id | GivenEvent]:
    """The history that was sent along. Raises InputError for an id of the wrong kind."""
    return [
        GivenEvent(ids.item_id(one.item_id, vocabulary), one.timestamp, one.event, one.value)
        if isinstance(one, HistoryEvent)
        else ids.item_id(one, vocabulary)
        for one in request.history or []
    ]


def events_of(given: Iterable[EventInput], vocabulary: Vocabulary) -> list[Event]:
    """Events as they are stored. Raises InputError for an id of the wrong kind or a time that cannot be."""
    latest = latest_time()
    events = [
        Event(
            one.event_id,
            ids.user_id(one.user_id, vocabulary),
            ids.item_id(one.item_id, vocabulary),
            microseconds(one.timestamp, latest),
            one.event,
            one.value,
        )
        for one in given
    ]
    if too_long := next((event for event in events if len(event.event_id.encode()) > MAX_ID_BYTES), None):
        raise InputError(
            f"The event_id {too_long.event_id[:64]!r}… is longer than {MAX_ID_BYTES:,} bytes. Use a shorter one."
        )
    return events


def moment(microseconds: int) -> datetime:
    """Microseconds since 1970 as a time with a zone."""
    return EPOCH + timedelta(microseconds=microseconds)


def _pins(request: ListRequest, vocabulary: Vocabulary) -> Mapping[int, Id]:
    pins = {pin.rank: ids.item_id(pin.item_id, vocabulary) for pin in request.pin}
    if len(pins) < len(request.pin) or len(set(pins.values())) < len(pins):
        raise InputError("pin has a rank or an item twice. Each rank takes one item, each item one rank.")
    return pins
