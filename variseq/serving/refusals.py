"""What cannot be answered into an error of the API: a status, a code and one clear message; never a stack trace."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

CODES = {
    400: "invalid_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "body_timeout",
    409: "conflict",
    413: "too_large",
    415: "unsupported_media_type",
    429: "too_many_requests",
    500: "internal_error",
    503: "unavailable",
}


class ErrorDetail(msgspec.Struct):
    """What came, what is allowed, what to do."""

    code: str
    message: str
    request_id: str


class ErrorAnswer(msgspec.Struct):
    """The answer of every request that was refused or failed."""

    error: ErrorDetail


class Refusal(Exception):
    """A request that is answered with an error. `closes` ends the connection: the rest of the request is unread."""

    def __init__(
        self, status: int, message: str, headers: Mapping[str, str] | None = None, closes: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})
        self.closes = closes

    def answer(self, request_id: str) -> ErrorAnswer:
        return ErrorAnswer(ErrorDetail(CODES[self.status], self.message, request_id))


def overloaded(message: str, seconds: float = 1.0) -> Refusal:
    """More came than can be worked off now."""
    return Refusal(429, message, {"Retry-After": str(max(1, round(seconds + 0.5)))})


def unavailable(message: str, seconds: int = 1) -> Refusal:
    """The request is right, and cannot be answered now."""
    return Refusal(503, message, {"Retry-After": str(seconds)})
