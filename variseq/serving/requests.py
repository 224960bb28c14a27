"""Requests of HTTP as options, histories and events in the ids of the data; ids of answers, and tokens of pages."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Annotated

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Meta, Struct

from variseq.errors import InputError
from variseq.events.vocabulary import MAX_ID_BYTES, Id, Vocabulary
from variseq.ranking.engine import Request
from variseq.ranking.options import RecommendOptions
from variseq.sequences.given_history import EPOCH, GivenEvent, latest_time, microseconds
from variseq.serving.schemas import MAX_BOOSTS, EventInput, HistoryEvent, ListRequest, RecommendRequest
from variseq.serving.stores.protocol import Event, check_text

MAX_SHOWN = 1000
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")
_SHOWN_CHARACTERS = 64


def user_id_of(given: Id, vocabulary: Vocabulary) -> Id:
    """A user id as the log has it. Raises InputError for one of another kind, or one that is too long."""
    return _id_of(given, "user", vocabulary.users.type)


def item_id_of(given: Id, vocabulary: Vocabulary) -> Id:
    """An item id as the catalog has it. Raises InputError for one of another kind, or one that is too long."""
    return _id_of(given, "item", vocabulary.items.type)


def format_id(one: Id, as_text: bool) -> Id:
    """An id as an answer has it. Text keeps all digits in programs whose numbers are floats, such as browsers.

    >>> format_id(9007199254740993, as_text=True), format_id(9007199254740993, as_text=False), format_id("i9", False)
    ('9007199254740993', 9007199254740993, 'i9')
    """
    return str(one) if as_text else one


def _id_of(given: Id, kind: str, of_data: pa.DataType) -> Id:
    """A whole number is taken as text too, but only as its very digits: "007" and " 7" are not 7."""
    if pa.types.is_integer(of_data):
        if isinstance(given, int):
            return given
        if _WHOLE.fullmatch(given) and -(2**63) <= int(given) < 2**63:
            return int(given)
        raise InputError(
            f"The {kind} ids of this data are whole numbers of 64 bits, and {given[:_SHOWN_CHARACTERS]!r} is none. "
            'Send 12, or "12".'
        )
    if not isinstance(given, str):
        raise InputError(f'The {kind} ids of this data are text ("12"), and {given!r} came. Send it as such.')
    check_text(given, f"{kind} id", MAX_ID_BYTES)
    return given


def list_request(request: RecommendRequest, vocabulary: Vocabulary, model: str) -> Request:
    """A request for one list. Raises InputError where it contradicts itself or names what cannot be."""
    if (request.user_id is None) == (request.history is None):
        raise InputError("Give either user_id or history (a list of item ids, oldest first), not both and not neither.")
    shown = () if request.page is None else shown_items(request.page, model, vocabulary)
    return Request(options_of(request, vocabulary, request.conformal_level), shown, request.attention)


def options_of(request: ListRequest, vocabulary: Vocabulary, conformal_level: float | None = None) -> RecommendOptions:
    """The options of a request in the ids of the catalog. Raises InputError."""
    if len(request.boost_items) + len(request.boost_categories) > MAX_BOOSTS:
        raise InputError(f"There are more than {MAX_BOOSTS} boosts. Send fewer.")
    candidates = request.candidates
    return RecommendOptions(
        k=request.k,
        candidates=None if candidates is None else [item_id_of(one, vocabulary) for one in candidates],
        exclude=[item_id_of(one, vocabulary) for one in request.exclude],
        categories=request.categories,
        exclude_seen=request.exclude_seen,
        boost_items={item_id_of(one, vocabulary): factor for one, factor in request.boost_items.items()},
        boost_categories=request.boost_categories,
        pin={rank: item_id_of(one, vocabulary) for rank, one in request.pin.items()},
        explore=request.explore,
        seed=request.seed,
        diversity=request.diversity,
        conformal_level=conformal_level,
        reasons=request.reasons,
    )


def history_of(request: RecommendRequest, vocabulary: Vocabulary) -> list[Id | GivenEvent]:
    """The history that was sent along. Raises InputError for an id of the wrong kind."""
    return [
        GivenEvent(item_id_of(one.item_id, vocabulary), one.timestamp, one.event, one.value)
        if isinstance(one, HistoryEvent)
        else item_id_of(one, vocabulary)
        for one in request.history or []
    ]


def events_of(given: Iterable[EventInput], vocabulary: Vocabulary) -> list[Event]:
    """Events as they are stored. Raises InputError for an id of the wrong kind or a time that cannot be."""
    latest = latest_time()
    events = []
    for one in given:
        user_id, item_id = user_id_of(one.user_id, vocabulary), item_id_of(one.item_id, vocabulary)
        timestamp = microseconds(one.timestamp, latest)
        events.append(Event(one.event_id, user_id, item_id, timestamp, one.event, one.value))
    return events


def moment(microseconds: int) -> datetime:
    """Microseconds since 1970 as a time with a zone."""
    return EPOCH + timedelta(microseconds=microseconds)


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
    damaged = InputError("page is no token of this server. Send next_page of an answer as it came.")
    try:
        padded = token + "=" * (-len(token) % 4)
        read = _decoder.decode(base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise damaged from error
    if read.model != model:
        raise other_model(read.model, model)
    positions = np.array(read.shown, dtype=np.int64)
    if positions.max() >= vocabulary.num_items or len(np.unique(positions)) < len(positions):
        raise damaged
    return vocabulary.item_ids(positions)


def other_model(before: str, now: str) -> InputError:
    """The model was changed between two pages."""
    return InputError(
        f"page comes from model {before!r} and {now!r} answers now, so pages would not fit together. Start again "
        "without page."
    )
