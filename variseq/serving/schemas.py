"""The types of requests and responses, which validate JSON and make the OpenAPI document; ids, histories and pages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Annotated, Any, Literal

import pyarrow as pa
from msgspec import UNSET, Meta, Struct, UnsetType

from variseq.errors import InputError
from variseq.events.vocabulary import MAX_ID_BYTES, Id, Vocabulary, check_text
from variseq.ranking.engine import Request
from variseq.ranking.options import (
    MAX_EXPONENT,
    MAX_QUERY,
    MIN_TEMPERATURE,
    MIN_UNIFORM_SHARE,
    SOFTMAX,
    RecommendOptions,
)
from variseq.ranking.when import MOST_HORIZONS, WITHIN, WhenOptions
from variseq.sequences.given_history import EPOCH, LARGEST_VALUE, GivenEvent, given_history
from variseq.serving.pages import shown_items

MAX_K = 1000
MAX_LIST = 10_000
MAX_BOOSTS = 1000
MAX_PINS = 100
MAX_CATEGORIES = 100
MAX_ATTRIBUTES = 100
MAX_FACTOR = 1000.0
MAX_TOKEN = 16_384
MAX_SEED = 2**32 - 1
MAX_POOL = 1000
Strategy = Literal["greedy", "softmax", "thompson"]
MAX_BATCH_USERS = 1000
MAX_BATCH_ITEMS = 20_000
_SHOWN_CHARACTERS = 64

_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")
WholeId = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
TextId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_ID_BYTES,
        description=f"at most {MAX_ID_BYTES:,} bytes as UTF-8; the digits where the ids of the data are whole numbers",
    ),
]
AnyId = WholeId | TextId
IdsAsText = Annotated[
    bool, Meta(description="ids in the answer as text, for programs that lose digits of numbers above 2^53")
]
Name = Annotated[str, Meta(min_length=1, max_length=MAX_ID_BYTES)]
Value = Annotated[float, Meta(ge=-LARGEST_VALUE, le=LARGEST_VALUE)]
Exponent = Annotated[float, Meta(ge=-MAX_EXPONENT, le=MAX_EXPONENT)]
Factor = Annotated[float, Meta(gt=0, le=MAX_FACTOR)]
K = Annotated[int, Meta(ge=1, le=MAX_K)]
Duration = Annotated[str, Meta(min_length=2, max_length=20, description="a number and s, m, h, d or w, such as 7d")]
ItemIds = Annotated[list[AnyId], Meta(max_length=MAX_LIST)]
Moment = (
    Annotated[str, Meta(min_length=10, max_length=64, description="ISO 8601 with a zone: 2026-11-24T15:00:00Z")]
    | Annotated[int, Meta(ge=0, le=10**15, description="seconds since 1970")]
    | Annotated[float, Meta(ge=0, le=1e15, description="seconds since 1970")]
)


At = (
    Annotated[str, Meta(min_length=3, max_length=64, description="now, or ISO 8601 with a zone: 2026-11-24T15:00:00Z")]
    | Annotated[int, Meta(ge=0, le=10**15, description="seconds since 1970")]
    | Annotated[float, Meta(ge=0, le=1e15, description="seconds since 1970")]
)


class HistoryEvent(Struct, forbid_unknown_fields=True):
    """An event of a history that is sent along."""

    item_id: AnyId
    timestamp: Moment | None = None
    event: Name | None = None
    value: Value | None = None


class WhenRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """What is asked about the time of the next event: from `at` on, if nothing happened since the last event.

    Without `at` it is from the last event on.
    """

    level: Annotated[float, Meta(ge=0.5, le=0.99)] = 0.9
    within: Annotated[tuple[Duration, ...], Meta(max_length=MOST_HORIZONS)] = WITHIN


Visit = Annotated[list[AnyId], Meta(max_length=MAX_LIST)]
"""The items of a visit, in any order."""


class ListRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """The fields of `RecommendOptions` but `ranks_only`, and what else is wanted.

    `ids_as_text` gives the ids of the answer as text.
    """

    k: K = 10
    candidates: ItemIds | None = None
    exclude: ItemIds = []
    categories: Annotated[list[Name], Meta(min_length=1, max_length=MAX_CATEGORIES)] | None = None
    exclude_seen: bool | None = None
    boost_items: Annotated[dict[str, Factor], Meta(max_length=MAX_BOOSTS)] = {}
    boost_categories: Annotated[dict[str, Factor], Meta(max_length=MAX_BOOSTS)] = {}
    boost_columns: Annotated[dict[str, Exponent], Meta(max_length=MAX_BOOSTS)] = {}
    pin: Annotated[dict[Annotated[int, Meta(ge=1, le=MAX_K)], AnyId], Meta(max_length=MAX_PINS)] = {}
    strategy: Annotated[Strategy, Meta(description="that of the server where none is given")] | None = None
    temperature: Annotated[float, Meta(ge=MIN_TEMPERATURE)] | None = None
    pool: Annotated[int, Meta(ge=1, le=MAX_POOL)] | None = None
    uniform_share: Annotated[float, Meta(ge=MIN_UNIFORM_SHARE, le=1 - MIN_UNIFORM_SHARE)] | None = None
    seed: Annotated[int, Meta(ge=0, le=MAX_SEED, description="else it follows from X-Request-Id")] | None = None
    diversity: Annotated[float, Meta(ge=0, le=1, description="0 where none is given")] | None = None
    new_items_share: Annotated[float, Meta(ge=0, le=1, description="0 where none is given")] | None = None
    query: Annotated[str, Meta(min_length=1, max_length=MAX_QUERY)] | None = None
    reasons: bool = True
    attributes: Annotated[
        dict[Name, Annotated[str, Meta(max_length=MAX_ID_BYTES)] | Value | bool | None],
        Meta(max_length=MAX_ATTRIBUTES, description="of a person without events, such as country"),
    ] = {}
    at: Annotated[At, Meta(description="when the answer is wanted; not before the latest event")] | None = None
    next: Literal["event", "visit"] = "event"
    attention: bool = False
    log_exposure: Annotated[bool, Meta(description="false where nobody is shown the list")] = True
    when: WhenRequest | None = None
    ids_as_text: IdsAsText = False


class RecommendRequest(ListRequest, kw_only=True, forbid_unknown_fields=True):
    """Whom to recommend for (`user_id`, or `history`), and what may be in the list.

    A history is item ids, the oldest first, or events; these have their times all, or none and are in order. A list of
    lists is visits, the oldest first.
    """

    user_id: AnyId | None = None
    history: Annotated[list[AnyId | HistoryEvent | Visit], Meta(max_length=MAX_LIST)] | None = None
    conformal_level: Annotated[float, Meta(ge=0.5, le=0.99)] | None = None
    page: Annotated[str, Meta(min_length=1, max_length=MAX_TOKEN)] | None = None


class BatchRequest(ListRequest, kw_only=True, forbid_unknown_fields=True):
    """The same options for several users, of whom the setting batch_users may allow fewer."""

    users: Annotated[list[AnyId], Meta(min_length=1, max_length=MAX_BATCH_USERS)]


class Recommendation(Struct):
    """One item of a list, as a row of `Recommendations`."""

    item_id: int | str
    rank: int
    score: float
    probability: float
    probability_low: float
    probability_high: float
    title: str | None
    source: Literal["events", "content"]
    reasons: list[str]
    propensity_at_rank: float | UnsetType = UNSET
    propensity_in_list: float | UnsetType = UNSET


class Uncertainty(Struct):
    """In nats: of the next item as a whole, of chance, and of what the model does not know of this history."""

    total: float
    aleatoric: float
    epistemic: float


class NextEvent(Struct):
    """When the next event is expected: a central interval, its median, and the probability of an event within times."""

    low: datetime
    median: datetime
    high: datetime
    within: dict[str, float]


class ListResponse(Struct, kw_only=True):
    """The list, and facts about the history. `next_page` requests the items that follow from /v1/recommend.

    `exposure_id` names the list where exposures are kept.
    """

    recommendations: list[Recommendation]
    model_version: str
    fallback: str | None
    num_events_used: int
    num_unknown_items: int
    latest_event: datetime | None
    latest_event_age_seconds: float | None
    uncertainty: Uncertainty
    approximate: bool
    next_page: str | None
    arm: Annotated[str, Meta(description="of the experiment that the user is in")] | UnsetType = UNSET
    attention: list[float] | UnsetType = UNSET
    when: NextEvent | UnsetType | None = UNSET
    exposure_id: str | UnsetType = UNSET


class RecommendResponse(ListResponse, kw_only=True):
    """A list."""

    request_id: str


class UserListResponse(ListResponse, kw_only=True):
    """The list of one user of several."""

    user_id: int | str


class BatchResponse(Struct):
    """One list a user, in the order of the request."""

    answers: list[UserListResponse]
    request_id: str


class IdsQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """How the ids of the answer are written."""

    ids_as_text: IdsAsText = False


class FindQuery(IdsQuery, kw_only=True, forbid_unknown_fields=True):
    """Which users to list."""

    prefix: Annotated[str, Meta(max_length=MAX_ID_BYTES)] = ""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 20


class SearchQuery(IdsQuery, kw_only=True, forbid_unknown_fields=True):
    """Which items to list."""

    search: Annotated[str, Meta(max_length=MAX_ID_BYTES)] = ""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 20


class SimilarQuery(IdsQuery, kw_only=True, forbid_unknown_fields=True):
    """How many similar items to list, and whether they are similar by events, by content, or by both."""

    k: K = 10
    by: Literal["events", "content", "both"] = "events"


class UsersResponse(Struct):
    """User ids, sorted."""

    users: list[int | str]


class StoredEvent(Struct):
    """An event of a user. `known` is false for an item outside the catalog of the model."""

    item_id: int | str
    title: str | None
    timestamp: datetime
    event: str | None
    value: float | None
    known: bool


class Posterior(Struct):
    """The uncertainty of the model about a user."""

    uncertainty: Uncertainty


class UserResponse(Struct):
    """A user's events, oldest first, and the uncertainty of the model."""

    user_id: int | str
    num_events: int
    events: list[StoredEvent]
    posterior: Posterior
    model_version: str


class ErasureResponse(Struct):
    """How many events were removed; `verified` after reading back that none is left."""

    erased_events: int
    verified: bool


class ItemsResponse(Struct):
    """Items with at least `item_id` and `title`."""

    items: list[dict[str, Any]]
    model_version: str


class ModelRequest(Struct, forbid_unknown_fields=True):
    """The name of a folder below that of --model-dir."""

    # "$" alone would let a line break pass.
    model_name: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$(?!\n)")]


class ModelResponse(Struct):
    """The model that answers now."""

    model_name: str | None
    model_version: str


class ModelsResponse(Struct):
    """The models that can be chosen, and the one that answers now."""

    models: list[str]
    model_name: str | None
    model_version: str


class HealthResponse(Struct):
    """The process answers."""

    status: Literal["alive"]


class ReadinessResponse(Struct):
    """Whether requests should come here, and if not, why."""

    ready: bool
    model_version: str
    problems: list[str]


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


def list_request(
    request: RecommendRequest, vocabulary: Vocabulary, model: str, policy: Mapping[str, Any] = MappingProxyType({})
) -> Request:
    """A request for one list. Raises InputError where it contradicts itself or names what cannot be."""
    if (request.user_id is None) == (request.history is None):
        raise InputError("Give either user_id or history (a list of item ids, oldest first), not both and not neither.")
    shown = () if request.page is None else shown_items(request.page, model, vocabulary)
    options = options_of(request, vocabulary, policy, request.conformal_level)
    return Request(options, shown, request.attention, when_of(request))


def when_of(request: ListRequest) -> WhenOptions | None:
    """What is asked about the time of the next event. Raises InputError."""
    wanted = request.when
    return None if wanted is None else WhenOptions(at=request.at, level=wanted.level, within=wanted.within)


_SAME = (*("k", "categories", "boost_categories", "boost_columns", "query", "reasons", "attributes", "at", "next"),)
_ORDER = ("strategy", "diversity", "new_items_share")
_OF_POLICY = (*_ORDER, *SOFTMAX, "exclude_seen", "seed")
"""What a server or an arm of an experiment sets for requests that do not."""


def options_of(
    request: ListRequest,
    vocabulary: Vocabulary,
    policy: Mapping[str, Any] = MappingProxyType({}),
    conformal_level: float | None = None,
) -> RecommendOptions:
    """The options of a request in the ids of the catalog, with those of a policy where it names none.

    A request that names an order of its own, or is for a set, takes none of the policy's order. Raises InputError.
    """
    if len(request.boost_items) + len(request.boost_categories) > MAX_BOOSTS:
        raise InputError(f"There are more than {MAX_BOOSTS} boosts. Send fewer.")
    candidates = request.candidates
    in_ids_of_the_catalog: dict[str, Any] = {
        "candidates": None if candidates is None else [item_id_of(one, vocabulary) for one in candidates],
        "exclude": [item_id_of(one, vocabulary) for one in request.exclude],
        "boost_items": {item_id_of(one, vocabulary): factor for one, factor in request.boost_items.items()},
        "pin": {rank: item_id_of(one, vocabulary) for rank, one in request.pin.items()},
    }
    as_they_are = {name: getattr(request, name) for name in _SAME}
    is_other = conformal_level is not None or any(getattr(request, name) for name in _ORDER)
    as_they_are |= {name: value for name, value in policy.items() if name not in _ORDER or not is_other}
    of_request = {name: getattr(request, name) for name in _OF_POLICY}
    as_they_are |= {name: value for name, value in of_request.items() if value is not None}
    return RecommendOptions(**as_they_are, **in_ids_of_the_catalog, conformal_level=conformal_level)


def history_of(request: RecommendRequest, vocabulary: Vocabulary) -> list[Id | GivenEvent]:
    """The history that was sent along. Raises InputError for an id of the wrong kind."""
    given = request.history or []
    visits = [one for one in given if isinstance(one, list)]
    if visits and len(visits) < len(given):
        raise InputError("history mixes visits with items or events. Send a list of lists, or none in it.")
    if sum(map(len, visits)) > MAX_LIST:
        raise InputError(f"The visits of the history have more than {MAX_LIST:,} items. Send the latest.")
    if visits:
        return given_history([[item_id_of(item, vocabulary) for item in visit] for visit in visits])
    return [
        GivenEvent(item_id_of(one.item_id, vocabulary), one.timestamp, one.event, one.value)
        if isinstance(one, HistoryEvent)
        else item_id_of(one, vocabulary)
        for one in given
        if not isinstance(one, list)
    ]


def moment(microseconds: int) -> datetime:
    """Microseconds since 1970 as a time with a zone."""
    return EPOCH + timedelta(microseconds=microseconds)
