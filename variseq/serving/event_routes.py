"""What users did and what they were shown: events into the store, and both into the exposures where these are kept."""

from __future__ import annotations

from collections.abc import Iterable
from time import time_ns
from typing import Annotated

from msgspec import Meta, Struct

from variseq.errors import InputError
from variseq.events.vocabulary import MAX_ID_BYTES, Vocabulary
from variseq.exposures.records import EventRecord, ShownRecord
from variseq.exposures.segments import ExposureLog
from variseq.sequences.given_history import latest_time, microseconds
from variseq.serving.http import KIB, RequestContext, Route
from variseq.serving.pages import MAX_SHOWN
from variseq.serving.schemas import (
    MAX_K,
    AnyId,
    IdsAsText,
    Moment,
    Name,
    Value,
    format_id,
    item_id_of,
    user_id_of,
)
from variseq.serving.services import Services
from variseq.serving.stores.protocol import Appended, Event

EVENTS_BYTES = 512 * KIB  # A thousand events: what may be stored at once, and the length of most histories.
MAX_EVENTS = 1000
MAX_RANK = MAX_SHOWN + MAX_K
ExposureId = Annotated[str, Meta(min_length=1, max_length=128, description="of an answer, where exposures are kept")]
Rank = Annotated[int, Meta(ge=1, le=MAX_RANK)]


class EventInput(Struct, forbid_unknown_fields=True):
    """One thing that a user did. The same `event_id` sent again is stored once.

    `exposure_id` and `rank` name the list that it came from; only a server that keeps exposures keeps them.
    """

    event_id: Annotated[str, Meta(min_length=1, max_length=MAX_ID_BYTES)]
    user_id: AnyId
    item_id: AnyId
    timestamp: Moment
    event: Name | None = None
    value: Value | None = None
    exposure_id: ExposureId | None = None
    rank: Rank | None = None


class EventsRequest(Struct, forbid_unknown_fields=True):
    """1 to 1,000 events, stored all or not at all."""

    events: Annotated[list[EventInput], Meta(min_length=1, max_length=MAX_EVENTS)]
    ids_as_text: IdsAsText = False


class EventsResponse(Struct):
    """What became of the events. `unknown_items` are stored, but the model that is loaded cannot use them yet."""

    accepted: int
    duplicates: int
    refused: int
    unknown_items: list[int | str]


class ShownRequest(Struct, forbid_unknown_fields=True):
    """The ranks of a list that were really shown; the first is 1, also on a later page."""

    exposure_id: ExposureId
    ranks: Annotated[list[Rank], Meta(max_length=MAX_RANK)]


class ShownResponse(Struct):
    """Whether it is kept; it is not where too much waits to be written."""

    accepted: bool


async def add_events(services: Services, context: RequestContext, body: EventsRequest) -> EventsResponse:
    """Store what users did.

    The answer comes when the events are durable and every later recommendation sees them.
    """
    vocabulary = services.models.engine.vocabulary
    events = _events_of(body.events, vocabulary)
    appended = await services.writers.run(lambda: services.store.append(events))
    if services.exposures is not None:
        _add_records(services.exposures, body.events, events, appended)
    item_ids = list(dict.fromkeys(event.item_id for event in events))
    positions = vocabulary.item_positions(item_ids).tolist()
    unknown = [
        format_id(item_id, body.ids_as_text)
        for item_id, position in zip(item_ids, positions, strict=True)
        if position < 0
    ]
    counts = (("accepted", appended.accepted), ("duplicate", appended.duplicates), ("refused", appended.refused))
    for outcome, num_events in counts:
        if num_events:
            services.metrics.events.labels(outcome).inc(num_events)
    return EventsResponse(appended.accepted, appended.duplicates, appended.refused, unknown)


async def add_shown(services: Services, context: RequestContext, body: ShownRequest) -> ShownResponse:
    """Confirm which ranks of a list were shown.

    It is kept with the exposures, whether the list is known here or not: several servers may share them.
    """
    if services.exposures is None:
        raise InputError("This server keeps no exposures. Start it with --exposures FOLDER.")
    shown = ShownRecord(body.exposure_id, time_ns() // 1000, sorted(set(body.ranks)))
    return ShownResponse(services.exposures.add(shown))


EVENT_ROUTES = [
    Route("POST", "/v1/events", "write", add_events, max_bytes=EVENTS_BYTES, statuses=(409, 503)),
    Route("POST", "/v1/shown", "write", add_shown),
]


def _events_of(given: Iterable[EventInput], vocabulary: Vocabulary) -> list[Event]:
    """Events as they are stored. Raises InputError for an id of the wrong kind or a time that cannot be."""
    latest = latest_time()
    events = []
    for one in given:
        user_id, item_id = user_id_of(one.user_id, vocabulary), item_id_of(one.item_id, vocabulary)
        timestamp = microseconds(one.timestamp, latest)
        events.append(Event(one.event_id, user_id, item_id, timestamp, one.event, one.value))
    return events


def _add_records(log: ExposureLog, given: Iterable[EventInput], events: Iterable[Event], appended: Appended) -> None:
    """Add the events that the store did not have before, each once."""
    new = set(appended.accepted_ids)
    for one, event in zip(given, events, strict=True):
        if event.event_id in new:
            new.remove(event.event_id)
            content = (event.timestamp, event.user_id, event.item_id, event.behavior, event.value)
            log.add(EventRecord(event.event_id, *content, one.exposure_id, one.rank))
