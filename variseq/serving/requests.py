"""Requests of HTTP as options, histories and events in the ids of the catalog, and tokens of pages."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct

from variseq.errors import InputError
from variseq.events.vocabulary import MAX_ID_BYTES, Id, Vocabulary
from variseq.ranking.engine import Request
from variseq.ranking.options import RecommendOptions
from variseq.sequences.given_history import EPOCH, GivenEvent, latest_time, microseconds
from variseq.serving import ids
from variseq.serving.schemas import MAX_BOOSTS, EventInput, HistoryEvent, ListRequest, RecommendRequest
from variseq.serving.stores.protocol import Event


def list_request(request: RecommendRequest, vocabulary: Vocabulary, model: str) -> Request:
    """A request for one list. Raises InputError where it contradicts itself or names what cannot be."""
    if (request.user_id is None) == (request.history is None):
        raise InputError("Give either user_id or history (a list of item ids, oldest first), not both and not neither.")
    shown = () if request.page is None else shown_items(request.page, model, vocabulary)
    options = options_of(request, vocabulary, request.conformal_level)
    return Request(options, shown, request.attention)


def options_of(request: ListRequest, vocabulary: Vocabulary, conformal_level: float | None = None) -> RecommendOptions:
    """The options of a request in the ids of the catalog. Raises InputError."""
    if len(request.boost_items) + len(request.boost_categories) > MAX_BOOSTS:
        raise InputError(f"There are more than {MAX_BOOSTS} boosts. Send fewer.")
    candidates = None if request.candidates is None else ids.item_ids(request.candidates, vocabulary)
    return RecommendOptions(
        k=request.k,
        candidates=candidates,
        exclude=ids.item_ids(request.exclude, vocabulary),
        categories=request.categories,
        exclude_seen=request.exclude_seen,
        boost_items={ids.item_id(key, vocabulary): factor for key, factor in request.boost_items.items()},
        boost_categories=request.boost_categories,
        pin={rank: ids.item_id(item_id, vocabulary) for rank, item_id in request.pin.items()},
        explore=request.explore,
        seed=request.seed,
        diversity=request.diversity,
        conformal_level=conformal_level,
        reasons=request.reasons,
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


MAX_SHOWN = 1000


class _Token(Struct, array_like=True, forbid_unknown_fields=True):
    model: Annotated[str, Meta(max_length=64)]
    shown: Annotated[list[Annotated[int, Meta(ge=0, le=2**31 - 1)]], Meta(min_length=1, max_length=MAX_SHOWN)]


_decoder = msgspec.json.Decoder(_Token)


def next_page(model: str, vocabulary: Vocabulary, shown: list[Id]) -> str | None:
    """The token of the page after these items; None where the pages have become too long to go on."""
    if not shown or len(shown) > MAX_SHOWN:
        return None
    positions = vocabulary.item_positions(shown).tolist()
    return base64.urlsafe_b64encode(msgspec.json.encode(_Token(model, positions))).decode("ascii").rstrip("=")


def shown_items(token: str, model: str, vocabulary: Vocabulary) -> list[Id]:
    """The items of earlier pages. Raises InputError for a token that is damaged or of another model."""
    try:
        padded = token + "=" * (-len(token) % 4)
        read = _decoder.decode(base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise InputError("page is no token of this server. Send next_page of an answer as it came.") from error
    if read.model != model:
        raise other_model(read.model, model)
    positions = np.array(read.shown, dtype=np.int64)
    if positions.max() >= vocabulary.num_items or len(np.unique(positions)) < len(positions):
        raise InputError("page is no token of this server. Send next_page of an answer as it came.")
    return vocabulary.item_ids(positions)


def other_model(before: str, now: str) -> InputError:
    """The model was changed between two pages."""
    return InputError(
        f"page comes from model {before!r} and {now!r} answers now, so pages would not fit together. Start again "
        "without page."
    )
