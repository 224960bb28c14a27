"""The ASGI application of one process: services, routes, and the middleware before them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.routing import Route as PathRoute
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from variseq.serving.auth import AuditLog, AuthMiddleware, AuthState, TokenBuckets
from variseq.serving.batching import Batcher, HistoryCache
from variseq.serving.http import Endpoint, HTTPError, RequestContext, Route
from variseq.serving.keys import read_keys
from variseq.serving.models import ModelManager, ModelRegistry
from variseq.serving.openapi import document_routes
from variseq.serving.routes import recommending, resources
from variseq.serving.services import NUM_READERS, NUM_WRITERS, BoundedThreadPool, Services, follow_changes
from variseq.serving.settings import ServeSettings
from variseq.serving.stores import open_store
from variseq.serving.stores.protocol import StoreUnavailable
from variseq.serving.telemetry import LogWriter, Metrics

log = logging.getLogger("variseq.serving")
API = [*recommending.ROUTES, *resources.ROUTES]


class Application:
    """One process's server without its sockets. Raises InputError and StoreUnavailable when it cannot start."""

    def __init__(self, settings: ServeSettings, log_writer: LogWriter) -> None:
        self.settings = settings
        self.log_writer = log_writer
        self.metrics = Metrics()
        registry = None if settings.model_dir is None else ModelRegistry(settings.model_dir)
        models = ModelManager(settings.run, registry)
        keys = None if settings.keys is None else read_keys(settings.keys)
        rate = settings.rate_limit
        buckets = None if rate is None else TokenBuckets(rate, settings.burst_requests)
        auth = AuthState(keys, buckets, AuditLog(settings.audit_log))
        store = open_store(settings.store)
        cache = HistoryCache(int(settings.cache_megabytes * 2**20))
        batcher = Batcher(models, store, cache, settings.batch_size, settings.queue_length, settings.timeout_seconds)
        batcher.on_batch = self.metrics.batch
        self.services = Services(
            models,
            store,
            batcher,
            auth,
            self.metrics,
            BoundedThreadPool("write", NUM_WRITERS, settings.queue_length),
            BoundedThreadPool("read", NUM_READERS, settings.queue_length),
            settings.batch_users,
        )
        self.metrics.model(models.engine.version)
        self.middleware = self._middleware(auth)

    def _middleware(self, auth: AuthState) -> AuthMiddleware:
        routes: list[Route[Services]] = [*API, *document_routes(API), *resources.explorer_routes()]
        by_path: dict[str, list[Route[Services]]] = {}
        for one in routes:
            by_path.setdefault(one.path, []).append(one)
        seconds = self.settings.request_timeout_seconds
        endpoints = [PathRoute(path, Endpoint(same, self.services, seconds)) for path, same in by_path.items()]
        router = Router(endpoints, redirect_slashes=False, default=_not_found)
        return AuthMiddleware(router, auth, [one.path for one in routes if one.role is None], self)

    def record(self, context: RequestContext, method: str, seconds: float) -> None:
        """Count and log a request; by its route, never by its path."""
        self.metrics.request(method, context.template, context.status, seconds)
        if self.settings.log_requests:
            self.log_writer.request(context.request_id, method, context.template, context.status, seconds)

    def store_failed(self, error: StoreUnavailable) -> None:
        """Count and log that the store could not be used."""
        self.metrics.store_errors.inc()
        log.warning("the store could not be used: %s", error)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[AuthMiddleware]:
        """Run threads and background tasks in this event loop; all are finished at the end."""
        self.services.batcher.start()
        background = asyncio.create_task(follow_changes(self.services, self.settings.keys))
        try:
            yield self.middleware
        finally:
            background.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await background
            self.services.close()


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    raise HTTPError(404, "There is no such path. See /docs for those there are.")
