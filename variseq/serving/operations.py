"""One path and its methods into checked calls: the table of these is both what is served and what is documented."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl, unquote

import msgspec
from starlette.types import Receive, Scope, Send

from variseq.serving.exchange import JSON, Exchange, Page
from variseq.serving.keys import Role
from variseq.serving.refusals import Refusal
from variseq.serving.schemas import encode

KIB = 1024
BODY_BYTES = 64 * KIB
MAX_QUERY_BYTES = 4 * KIB

State = TypeVar("State")


@dataclass(frozen=True, slots=True)
class Call:
    """What a handler is given: the checked body and query, and the decoded parts of the path."""

    exchange: Exchange
    body: Any
    query: Any
    path: dict[str, str]


@dataclass(frozen=True)
class Operation(Generic[State]):
    """One method of one path. `role` None is open to everybody; the handler returns a Struct or a Page.

    `statuses` are the errors it may have besides those of every operation.
    """

    method: str
    path: str
    summary: str
    role: Role | None
    handler: Callable[[State, Call], Awaitable[Any]]
    answer: Any = None
    body: Any = None
    query: Any = None
    max_bytes: int = BODY_BYTES
    statuses: tuple[int, ...] = ()
    media_type: str = "application/json"


class Endpoint(Generic[State]):
    """All methods of one path, as an ASGI application behind the gate."""

    def __init__(self, operations: list[Operation[State]], state: State, body_seconds: float) -> None:
        self.path = operations[0].path
        self.state = state
        self.body_seconds = body_seconds
        self.operations = {one.method: one for one in operations}
        self.decoders = {one.method: msgspec.json.Decoder(one.body) for one in operations if one.body is not None}
        if "GET" in self.operations:
            self.operations["HEAD"] = self.operations["GET"]
        self.allowed = ", ".join(sorted(self.operations))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["exchange"]
        exchange.template = self.path
        operation = self.operations.get(scope["method"])
        if operation is None:
            raise Refusal(405, f"{self.path} takes {self.allowed}.", {"Allow": self.allowed})
        if operation.role is not None and operation.role not in exchange.caller.roles:
            raise Refusal(403, f"This key has no role {operation.role!r}, which {operation.method} {self.path} needs.")
        if operation.body is None:
            exchange.refuse_odd_body()
            body = None
        else:
            body = self._decoded(await exchange.read_body(operation.max_bytes, self.body_seconds), operation.method)
        query = _query(scope["query_string"], operation.query)
        call = Call(exchange, body, query, {name: _unquoted(text) for name, text in scope["path_params"].items()})
        answer = await operation.handler(self.state, call)
        await exchange.reply(200, answer if isinstance(answer, Page) else Page(encode(answer), JSON))

    def _decoded(self, body: bytes, method: str) -> Any:
        try:
            return self.decoders[method].decode(body)
        except msgspec.ValidationError as error:
            raise Refusal(400, f"The request is not of the right form: {error}.") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refusal(400, f"The body is no JSON: {error}.") from error


def _query(raw: bytes, kind: Any) -> Any:
    if not raw and kind is None:
        return None
    try:
        pairs = parse_qsl(
            raw[: MAX_QUERY_BYTES + 1].decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(raw),
            errors="strict",
            max_num_fields=20,
        )
    except ValueError as error:
        raise Refusal(400, f"The part after ? cannot be read: {error}.") from error
    values = dict(pairs)
    if len(raw) > MAX_QUERY_BYTES or len(values) < len(pairs) or (values and kind is None):
        raise Refusal(400, "The part after ? is too long, names something twice, or is not taken here.")
    if kind is None:
        return None
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Refusal(400, f"The part after ? is not of the right form: {error}.") from error


def _unquoted(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError as error:
        raise Refusal(400, "The path is no UTF-8 text, percent-encoded.") from error
