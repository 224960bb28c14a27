"""Tokens of the pages of a list: which model made it, and the items of earlier pages."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct

from variseq.errors import InputError
from variseq.events.vocabulary import Id, Vocabulary

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
