"""Settings into the ASGI application of one process: engine, store, threads, routes, and the gate before them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from variseq.serving.audit import AuditLog
from variseq.serving.batching import Batcher
from variseq.serving.exchange import Exchange
from variseq.serving.gate import Door, Gate
from variseq.serving.history_cache import HistoryCache
from variseq.serving.keys import read_keys
from variseq.serving.limits import TokenBuckets
from variseq.serving.logs import LogLines
from variseq.serving.metrics import Metrics
from variseq.serving.models import ModelFolder, Models
from variseq.serving.operations import Endpoint, Operation
from variseq.serving.refusals import Refusal
from variseq.serving.routes import administering, items, pages, recommending, users, watching
from variseq.serving.services import NUM_READERS, NUM_WRITERS, Pool, Services
from variseq.serving.settings import ServeSettings
from variseq.serving.stores.opening import open_store
from variseq.serving.stores.protocol import StoreUnavailable
from variseq.serving.watch import watch

log = logging.getLogger("variseq.serving")
API = [
    *recommending.OPERATIONS,
    *items.OPERATIONS,
    *users.OPERATIONS,
    *administering.OPERATIONS,
    *watching.OPERATIONS,
]


class Application:
    """One process's server without its sockets. Raises InputError and StoreUnavailable when it cannot start."""

    def __init__(self, settings: ServeSettings, lines: LogLines) -> None:
        self.settings = settings
        self.lines = lines
        self.metrics = Metrics()
        folder = None if settings.models is None else ModelFolder(settings.models)
        models = Models(settings.run, folder)
        keys = None if settings.keys is None else read_keys(settings.keys)
        rate = settings.rate_limit
        buckets = None if rate is None else TokenBuckets(rate, settings.burst_requests)
        door = Door(keys, buckets, AuditLog(settings.audit))
        store = open_store(settings.store)
        cache = HistoryCache(int(settings.cache_megabytes * 2**20))
        batcher = Batcher(models, store, cache, settings.batch_size, settings.queue_length, settings.deadline_seconds)
        batcher.on_batch = self.metrics.batch
        self.services = Services(
            models,
            store,
            batcher,
            door,
            self.metrics,
            Pool("write", NUM_WRITERS, settings.queue_length),
            Pool("read", NUM_READERS, settings.queue_length),
            settings.batch_users,
        )
        self.metrics.model(models.engine.version)
        self.gate = self._gate(door)

    def _gate(self, door: Door) -> Gate:
        described = [*API, *pages.documents(API)]
        operations = [*described, *pages.explorer()]
        by_path: dict[str, list[Operation[Services]]] = {}
        for one in operations:
            by_path.setdefault(one.path, []).append(one)
        routes = [Route(path, self._endpoint(members)) for path, members in by_path.items()]
        router = Router(routes, redirect_slashes=False, default=_no_such_path)
        return Gate(router, door, [one.path for one in operations if one.role is None], self)

    def _endpoint(self, operations: list[Operation[Services]]) -> Endpoint[Services]:
        return Endpoint(operations, self.services, self.settings.body_seconds)

    def record(self, exchange: Exchange, method: str, seconds: float) -> None:
        """Count and log a request; by its route, never by its path."""
        self.metrics.request(method, exchange.template, exchange.status, seconds)
        if self.settings.log_requests:
            self.lines.request(exchange.request_id, method, exchange.template, exchange.status, seconds)

    def store_failed(self, error: StoreUnavailable) -> None:
        """Count and log that the store could not serve."""
        self.metrics.store_errors.inc()
        log.warning("the store could not serve: %s", error)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Gate]:
        """Threads and watches, in the event loop that serves; all is finished at the end."""
        self.services.batcher.start()
        watching_task = asyncio.create_task(watch(self.services, self.settings))
        try:
            yield self.gate
        finally:
            watching_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching_task
            self.services.close()


async def _no_such_path(scope: Scope, receive: Receive, send: Send) -> None:
    raise Refusal(404, "There is no such path. See /docs for those there are.")
