"""The lines of a segment: a list that was given, ranks that were shown, an event."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from variseq.events.vocabulary import Id
from variseq.exposures.folder import hashed_user, iso_time
from variseq.exposures.history import HistoryDigest
from variseq.ranking.options import SOFTMAX, RecommendOptions
from variseq.ranking.recommendations import Recommendations
from variseq.sequences.given_history import NOW

SCORE, PROPENSITY = "%.5g", "%.6g"
"""How numbers are written. Six digits keep the product of ten propensities to a part in 20,000. Scores have 32 bits, of
which the last digits of propensities depend anyway."""
AS_THEY_ARE = ("exclude_seen", "diversity", "new_items_share", "conformal_level", "next")
HASHED = ("candidates", "exclude", "categories", "boost_items", "boost_categories", "boost_columns", "query")
FILTER_BYTES = 8
DEFAULTS = RecommendOptions()


@dataclass(frozen=True, slots=True)
class ExposureRecord:
    """A list that an answer gave.

    Args:
        exposure_id: One for each list.
        time: UTC microseconds.
        user_id: To whom; None for a history that was sent along.
        history: What the list was made from.
        model: The version of the model.
        options: Of the request.
        listed: The list.
        shown: Items of earlier pages, which are left out.
        experiment: The experiment that the user is in, where there is one.
        arm: The user's arm of it.
        uncertainty: Of the model about this history, in nats; recorded in an experiment.
    """

    exposure_id: str
    time: int
    user_id: Id | None
    history: HistoryDigest
    model: str
    options: RecommendOptions
    listed: Recommendations
    shown: Sequence[Id] = ()
    experiment: str | None = None
    arm: str | None = None
    uncertainty: float | None = None

    kind = "exposure"

    def line(self, key: bytes) -> bytes:
        """The record as a line of JSON."""
        history = self.history
        fields_of_line: dict[str, Any] = {
            "kind": self.kind,
            "exposure_id": self.exposure_id,
            "time": self.time,
            "user": None if self.user_id is None else hashed_user(key, self.user_id),
            "history": [history.hash, history.num_events, history.latest_event],
            "model": self.model,
            "policy": [getattr(self.options, name) for name in policy_fields(self.options.strategy)],
        }
        if filters := filters_of(self.options, self.shown, key):
            fields_of_line["filters"] = filters
        if self.shown:
            fields_of_line["first_rank"] = len(self.shown) + 1
        fields_of_line["item_id"] = list(self.listed.item_id)
        if self.arm is not None:
            fields_of_line |= {"experiment": self.experiment, "arm": self.arm}
            if self.uncertainty is not None:
                fields_of_line["uncertainty"] = float(PROPENSITY % self.uncertainty)
        numbers = (
            ("log_p", self.listed.score, SCORE),
            ("p_at_rank", self.listed.propensity_at_rank, PROPENSITY),
            ("p_in_list", self.listed.propensity_in_list, PROPENSITY),
        )
        text = "".join(f',"{name}":{_numbers(column, form)}' for name, column, form in numbers if column is not None)
        return _json(fields_of_line)[:-1] + text.encode("ascii") + b"}\n"


@dataclass(frozen=True, slots=True)
class ShownRecord:
    """Ranks of a list that were really shown, at a time in UTC microseconds."""

    exposure_id: str
    time: int
    ranks: Sequence[int]

    kind = "shown"
    user_id = None

    def line(self, key: bytes) -> bytes:
        """The record as a line of JSON."""
        shown = {"kind": self.kind, "exposure_id": self.exposure_id, "time": self.time}
        return _json(shown | {"ranks": list(self.ranks)}) + b"\n"


@dataclass(frozen=True, slots=True)
class EventRecord:
    """An event that the store accepted, with the list that it came from where that is known."""

    event_id: str
    time: int
    user_id: Id
    item_id: Id
    behavior: str | None
    value: float | None
    exposure_id: str | None = None
    rank: int | None = None

    kind = "event"

    def line(self, key: bytes) -> bytes:
        """The record as a line of JSON."""
        event = {
            "kind": self.kind,
            "event_id": self.event_id,
            "time": self.time,
            "user": hashed_user(key, self.user_id),
            "item_id": self.item_id,
            "behavior": self.behavior,
            "value": self.value,
        }
        named = {"exposure_id": self.exposure_id, "rank": self.rank}
        return _json(event | {name: one for name, one in named.items() if one is not None}) + b"\n"


Record = ExposureRecord | ShownRecord | EventRecord


def policy_fields(strategy: str) -> tuple[str, ...]:
    """The names of what stands in a line about what chose the list: all that its probabilities depend on, in order.

    >>> policy_fields("greedy"), policy_fields("softmax")
    (('strategy',), ('strategy', 'temperature', 'pool', 'uniform_share', 'seed'))
    """
    if strategy == "greedy":
        return ("strategy",)
    return ("strategy", *(SOFTMAX if strategy == "softmax" else ()), "seed")


def filters_of(options: RecommendOptions, shown: Sequence[Id], key: bytes) -> dict[str, Any]:
    """What was set of the options that change which items a list may have, or their order.

    Lists of items, boosts and queries are keyed hashes; of attributes there are the names only.

    >>> filters_of(RecommendOptions(exclude_seen=True, pin={1: "i9"}), (), b"key")
    {'exclude_seen': True, 'pin': {'1': 'i9'}}
    """
    changed = {
        name: one for name in (*AS_THEY_ARE, *HASHED) if (one := getattr(options, name)) != getattr(DEFAULTS, name)
    }
    found = {name: _hash(one, key) if name in HASHED else one for name, one in changed.items()}
    if options.pin:
        found["pin"] = {str(rank): one for rank, one in options.pin.items()}
    if options.attributes:
        found["attributes"] = sorted(options.attributes)
    if (at := options.request_time()) is not None:
        found["at"] = NOW if options.at == NOW else iso_time(at)
    if shown:
        found["shown"] = _hash(shown, key)
    return found


def _hash(given: Any, key: bytes) -> str:
    """Of what was given, whatever its order; 12 and "12" differ."""
    if isinstance(given, Mapping):
        plain: Any = sorted(json.dumps(one) for one in given.items())
    else:
        plain = given if isinstance(given, str) else sorted(json.dumps(one) for one in given)
    return hashlib.blake2b(json.dumps(plain).encode("ascii"), digest_size=FILTER_BYTES, key=key).hexdigest()


def _numbers(column: Float[np.ndarray, " row"], form: str) -> str:
    """A list of JSON; null for no number."""
    return "[" + ",".join(form % one if math.isfinite(one) else "null" for one in column.tolist()) + "]"


def _json(fields_of_line: Mapping[str, Any]) -> bytes:
    return json.dumps(fields_of_line, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
