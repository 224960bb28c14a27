"""Events as a caller has them into events that every store can keep, or one message about the first that is not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from variseq.errors import InputError
from variseq.events.vocabulary import MAX_ID_BYTES, Id
from variseq.serving.stores.protocol import Event

SMALLEST_ID, LARGEST_ID = -(2**63), 2**63 - 1
# Up to here every whole number is exact as a 64-bit float too, which is what Redis sorts by: the year 2255.
LARGEST_TIMESTAMP = 2**53


def admit(events: Sequence[Event]) -> list[Event]:
    """The same events with `value` as a float; raises InputError for the first that no store can keep."""
    return [_admit_one(event) for event in events]


def check_user_id(user_id: Id) -> None:
    """Raises InputError for an id that is neither a 64-bit whole number nor text."""
    _check_id(user_id, "user_id")


def _admit_one(event: Event) -> Event:
    if type(event.event_id) is not str:
        raise InputError(f"event_id is text, e.g. 'e-1'; got {event.event_id!r}.")
    _check_text(event.event_id, "event_id", MAX_ID_BYTES)
    _check_id(event.user_id, "user_id")
    _check_id(event.item_id, "item_id")
    if type(event.timestamp) is not int or abs(event.timestamp) > LARGEST_TIMESTAMP:
        raise InputError(
            f"timestamp is whole microseconds since 1970 in UTC, up to the year 2255; got {event.timestamp!r} "
            f"in event {event.event_id!r}."
        )
    if event.behavior is not None:
        _check_text(event.behavior, "behavior")
    if event.value is None or (type(event.value) is float and math.isfinite(event.value)):
        return event
    return replace(event, value=_plain_value(event))


def _plain_value(event: Event) -> float:
    value = event.value
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise InputError(f"value is a finite number or nothing; got {value!r} in event {event.event_id!r}.")


def _check_id(outside: object, name: str) -> None:
    if type(outside) is str:
        _check_text(outside, name, MAX_ID_BYTES)
    elif type(outside) is not int or not SMALLEST_ID <= outside <= LARGEST_ID:
        # Not only for order: True would come back as 1, and a larger number not at all.
        raise InputError(
            f"{name} is text or a whole number from {SMALLEST_ID} to {LARGEST_ID}; "
            f"got {outside!r} ({type(outside).__name__})."
        )


def _check_text(text: str, name: str, max_bytes: int | None = None) -> None:
    if not text:
        raise InputError(f"{name} is empty; give it at least one character.")
    try:
        num_bytes = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InputError(f"{name} {text!r} is not valid Unicode: it has half of a surrogate pair.") from error
    if max_bytes is not None and num_bytes > max_bytes:
        raise InputError(
            f"{name} is longer than {max_bytes:,} bytes: {text[:64]!r}… has {num_bytes:,}. Use a shorter one."
        )
