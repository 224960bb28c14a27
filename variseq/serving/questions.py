"""A request for recommendations into what the model is asked; every id is checked against the catalogue's type."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from time import time

import msgspec
import pyarrow as pa

from variseq.errors import InputError
from variseq.events.vocabulary import Id, Vocabulary
from variseq.inference.engine import HistoryRow
from variseq.inference.question import Question
from variseq.serving.paging import shown_items
from variseq.serving.schemas import MAX_BOOSTS, MAX_ID_BYTES, Boost, EventGiven, HistoryEvent, RecommendRequest
from variseq.serving.stores.protocol import Event

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_SECONDS = 86_400
_WHOLE = re.compile(r"-?[0-9]{1,19}")
_microsecond = timedelta(microseconds=1)


def question_of(request: RecommendRequest, vocabulary: Vocabulary, model: str) -> Question:
    """What a request asks. Raises InputError where it contradicts itself or names what cannot be."""
    if (request.user_id is None) == (request.history is None):
        raise InputError("Give either user_id or history (a list of item ids, oldest first), not both and not neither.")
    if request.user_id is not None:
        check_user_ids((request.user_id,), vocabulary)
    for ids in (request.exclude, request.only):
        if ids:
            check_item_ids(ids, vocabulary)
    boost = request.boost or Boost()
    if len(boost.items) + len(boost.categories) > MAX_BOOSTS:
        raise InputError(f"boost has more than {MAX_BOOSTS} factors. Send fewer.")
    category = request.category
    return Question(
        k=request.k,
        exclude=request.exclude,
        only=request.only,
        category=[category] if isinstance(category, str) else category,
        exclude_seen=request.exclude_seen,
        explore=request.explore,
        seed=request.seed,
        diversity=request.diversity,
        coverage=request.coverage,
        boost_items={parse_item_id(key, vocabulary): factor for key, factor in boost.items.items()},
        boost_categories=boost.categories,
        pin=_pins(request, vocabulary),
        shown=() if request.page is None else shown_items(request.page, model, vocabulary),
        because=request.because,
        attention=request.attention,
    )


def history_of(request: RecommendRequest, vocabulary: Vocabulary) -> list[HistoryRow]:
    """The history that was sent along, oldest first; bare items are taken to be a second apart, as in `recommend`.

    Raises InputError for items and events mixed, for an id of the wrong type and for a time that cannot be.
    """
    given = request.history or []
    events = [one for one in given if isinstance(one, HistoryEvent)]
    if events and len(events) < len(given):
        raise InputError("history mixes item ids and events. Send all as ids, or all as events with their times.")
    if not events:
        items = [one for one in given if not isinstance(one, HistoryEvent)]
        check_item_ids(items, vocabulary)
        return [(item, place * 1_000_000, None, None) for place, item in enumerate(items)]
    check_item_ids((event.item_id for event in events), vocabulary)
    latest = _latest()
    rows = [(one.item_id, _microseconds(one.timestamp, latest), one.event, one.value) for one in events]
    return sorted(rows, key=lambda row: row[1])


def events_of(given: Iterable[EventGiven], vocabulary: Vocabulary) -> list[Event]:
    """Events as they are stored. Raises InputError for an id of the wrong type or a time that cannot be."""
    latest = _latest()
    events = [
        Event(one.event_id, one.user_id, one.item_id, _microseconds(one.timestamp, latest), one.event, one.value)
        for one in given
    ]
    check_user_ids((event.user_id for event in events), vocabulary)
    check_item_ids((event.item_id for event in events), vocabulary)
    if too_long := next((event for event in events if len(event.event_id.encode()) > MAX_ID_BYTES), None):
        raise InputError(f"The event_id {too_long.event_id!r} is longer than {MAX_ID_BYTES} bytes. Use a shorter one.")
    return events


def check_user_ids(ids: Iterable[Id], vocabulary: Vocabulary) -> None:
    """Raises InputError unless all are of the type of the log's user ids."""
    _check(ids, "user", pa.types.is_integer(vocabulary.users.type))


def check_item_ids(ids: Iterable[Id], vocabulary: Vocabulary) -> None:
    """Raises InputError unless all are of the type of the catalogue's item ids."""
    _check(ids, "item", pa.types.is_integer(vocabulary.items.type))


def parse_user_id(text: str, vocabulary: Vocabulary) -> Id:
    """The user id in a path. Raises InputError."""
    return _parsed(text, "user", pa.types.is_integer(vocabulary.users.type))


def parse_item_id(text: str, vocabulary: Vocabulary) -> Id:
    """The item id in a path or as a key of JSON. Raises InputError."""
    return _parsed(text, "item", pa.types.is_integer(vocabulary.items.type))


def moment(microseconds: int) -> datetime:
    """Microseconds since 1970 as a time with a zone."""
    return EPOCH + timedelta(microseconds=microseconds)


def _check(ids: Iterable[Id], kind: str, whole: bool) -> None:
    for one in ids:
        if isinstance(one, str) is whole:
            wanted = "whole numbers (12)" if whole else 'text ("12")'
            raise InputError(f"The {kind} ids of this data are {wanted}, and {one!r} came. Send it as such.")
        if not whole and len(str(one).encode()) > MAX_ID_BYTES:
            raise InputError(f"The {kind} id {one!r} is longer than {MAX_ID_BYTES} bytes.")


def _parsed(text: str, kind: str, whole: bool) -> Id:
    if not whole:
        _check((text,), kind, whole)
        return text
    if not _WHOLE.fullmatch(text) or not -(2**63) <= int(text) < 2**63:
        raise InputError(f"The {kind} ids of this data are whole numbers of 64 bits, and {text[:64]!r} is none.")
    return int(text)


def _pins(request: RecommendRequest, vocabulary: Vocabulary) -> Mapping[int, Id]:
    pins = {pin.rank: pin.item_id for pin in request.pin}
    if not pins:
        return pins
    check_item_ids(pins.values(), vocabulary)
    if len(pins) < len(request.pin) or len(set(pins.values())) < len(pins):
        raise InputError("pin has a rank or an item twice. Each rank takes one item, each item one rank.")
    return pins


def _latest() -> int:
    """Later than this is no time of an event, in microseconds."""
    return int((time() + DAY_SECONDS) * 1e6)


def _microseconds(given: str | int | float, latest: int) -> int:
    if isinstance(given, str):
        try:
            parsed = msgspec.convert(given, datetime)
            if parsed.tzinfo is None:
                raise InputError(f"The timestamp {given!r} has no zone. Write it like 2026-11-24T15:00:00Z.")
            microseconds = (parsed - EPOCH) // _microsecond
        except (msgspec.ValidationError, OverflowError) as error:
            raise InputError(f"The timestamp {given!r} is no time. Write it like 2026-11-24T15:00:00Z.") from error
    else:
        microseconds = given * 1_000_000 if isinstance(given, int) else round(given * 1e6)
    if not 0 <= microseconds <= latest:
        hint = " Numbers are seconds since 1970, not milliseconds." if not isinstance(given, str) else ""
        raise InputError(
            f"The timestamp {given!r} is before 1970 or more than a day in the future.{hint} Check the clock."
        )
    return microseconds
