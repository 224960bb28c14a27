"""The ASGI application of one process: it finds the route of a request, lets it in, and answers it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from time import perf_counter

from starlette.routing import compile_path
from starlette.types import Receive, Scope, Send

from variseq.errors import InputError
from variseq.serving.http import JSON, ClientDisconnected, HTTPError, Page, RequestContext, Route, encode, unavailable
from variseq.serving.openapi import document_routes
from variseq.serving.routes import API, explorer_routes
from variseq.serving.services import Services
from variseq.serving.settings import ServeSettings
from variseq.serving.stores.protocol import EventConflict, StoreUnavailable

log = logging.getLogger("variseq.serving")
CLIENT_CLOSED = 499
_REQUEST_ID = re.compile(rb"[A-Za-z0-9-]{1,64}")


class Application:
    """One process's server without its sockets. Raises InputError and StoreUnavailable when it cannot start.

    Whatever happens while a request is answered, the response has the format of the API.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.services = Services(settings)
        by_path: dict[str, dict[str, Route]] = {}
        for route in [*API, *document_routes(API), *explorer_routes()]:
            by_path.setdefault(route.path, {})[route.method] = route
        self._resources = [(compile_path(path)[0], path, routes) for path, routes in by_path.items()]
        self._prefix = secrets.token_hex(6)
        self._numbers = count(1)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Application]:
        """Run threads and background tasks in this event loop; all are finished at the end."""
        self.services.batcher.start()
        background = asyncio.create_task(self.services.follow_changes())
        try:
            yield self
        finally:
            background.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await background
            self.services.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        start = perf_counter()
        headers = dict(scope["headers"])
        context = RequestContext(scope, receive, send, self._request_id(headers), headers)
        context.closes = self.services.auth.is_draining
        try:
            await self._answer(context)
        except ClientDisconnected:
            context.status = CLIENT_CLOSED
        except Exception as error:
            await self._fail(context, error)
        self._record(context, perf_counter() - start)

    def _request_id(self, headers: dict[bytes, bytes]) -> str:
        given = headers.get(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given.decode("ascii")
        return f"{self._prefix}-{next(self._numbers):x}"

    async def _answer(self, context: RequestContext) -> None:
        """Raises HTTPError and whatever else goes wrong."""
        routes, path = self._find(context)
        method = context.scope["method"]
        route = routes.get("GET" if method == "HEAD" else method)
        await self.services.auth.authorize(context, route is not None and route.role is None)
        if not routes:
            raise HTTPError(404, "There is no such path. See /docs for those there are.")
        if route is None:
            allowed = ", ".join(sorted([*routes, "HEAD"] if "GET" in routes else routes))
            raise HTTPError(405, f"{context.template} takes {allowed}.", {"Allow": allowed})
        if route.role is not None and route.role not in context.caller.roles:
            raise HTTPError(403, f"This key has no role {route.role!r}, which {route.method} {route.path} needs.")
        arguments = await route.arguments(context, path, self.settings.request_timeout_seconds)
        answer = await route.handler(self.services, context, **arguments)
        await context.reply(200, answer if isinstance(answer, Page) else Page(encode(answer), JSON))

    def _find(self, context: RequestContext) -> tuple[dict[str, Route], dict[str, str]]:
        """The routes of a path as it was sent, and its parts: an id is decoded only after the path is split."""
        raw = context.scope["raw_path"].decode("latin-1")
        for pattern, template, routes in self._resources:
            if found := pattern.fullmatch(raw):
                context.template = template
                return routes, found.groupdict()
        return {}, {}

    async def _fail(self, context: RequestContext, error: Exception) -> None:
        response = _as_http_error(error)
        if response is None:
            log.error("unexpected error", exc_info=error, extra={"request_id": context.request_id})
            response = HTTPError(500, "Something went wrong inside the server; its log has more under the request id.")
        if context.status:
            raise error  # A response was begun, a second one cannot be sent.
        if isinstance(error, StoreUnavailable):
            self.services.metrics.store_errors.inc()
            log.warning("the store could not be used: %s", error)
        if response.status == 403:
            await self.services.auth.audit_forbidden(context)
        await context.fail(response)

    def _record(self, context: RequestContext, seconds: float) -> None:
        """Count and log a request; by its route, never by its path."""
        method = context.scope["method"]
        self.services.metrics.request(method, context.template, context.status, seconds)
        if self.settings.log_requests:
            fields = {
                "request_id": context.request_id,
                "method": method,
                "route": context.template,
                "status": context.status,
                "milliseconds": round(seconds * 1e3, 3),
            }
            # Not `log.info`, which looks for its caller in the stack.
            log.handle(logging.makeLogRecord({"levelno": logging.INFO, "levelname": "INFO", "fields": fields}))


def _as_http_error(error: Exception) -> HTTPError | None:
    """What an error means to the client; None for an unexpected one."""
    if isinstance(error, HTTPError):
        return error
    if isinstance(error, StoreUnavailable):
        # Its message names files and addresses of the server: that is for the log.
        return unavailable("The store of histories cannot be used now. Nothing was stored. Send the request again.")
    if isinstance(error, InputError):
        return HTTPError(409 if isinstance(error, EventConflict) else 400, str(error))
    return None
