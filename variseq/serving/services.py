"""What the routes of one process share, and the background task that follows changes from outside the process."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import TypeVar

from variseq.errors import InputError, VariseqError
from variseq.serving.auth import Auth
from variseq.serving.batching import Batcher
from variseq.serving.http import overloaded
from variseq.serving.keys import read_keys
from variseq.serving.models import ModelManager, file_state
from variseq.serving.stores.protocol import HistoryStore, StoreUnavailable
from variseq.serving.telemetry import Metrics

log = logging.getLogger("variseq.serving")
Result = TypeVar("Result")
NUM_WRITERS = 16
NUM_READERS = 4
STORE_CHECK_SECONDS = 1.0
POLL_SECONDS = 0.5


class BoundedThreadPool:
    """Threads for work that waits for a disk or another machine; work that does not fit is refused."""

    def __init__(self, name: str, num_threads: int, max_waiting: int) -> None:
        self.max_waiting = max_waiting
        self.num_waiting = 0
        self._threads = ThreadPoolExecutor(num_threads, name)

    async def run(self, work: Callable[[], Result]) -> Result:
        """The result of some work. Raises HTTPError (429) when too much waits, and what the work raises."""
        if self.num_waiting >= self.max_waiting:
            raise overloaded("Too many requests of this kind wait already. Send fewer at once, or later.")
        self.num_waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self.num_waiting -= 1

    def close(self) -> None:
        self._threads.shutdown()


@dataclass
class Services:
    """Everything behind the routes. Appends have threads of their own, so that they wait for nothing else."""

    models: ModelManager
    store: HistoryStore
    batcher: Batcher
    auth: Auth
    metrics: Metrics
    writers: BoundedThreadPool
    readers: BoundedThreadPool
    max_batch_users: int
    catalog_lock: Lock = field(default_factory=Lock)
    _checked: float = -STORE_CHECK_SECONDS
    _store_problem: str | None = None

    async def store_problem(self) -> str | None:
        """Why the store cannot be used now; it is checked once a second at most."""
        if monotonic() - self._checked >= STORE_CHECK_SECONDS:
            self._checked = monotonic()
            try:
                await self.readers.run(self.store.check)
                self._store_problem = None
            except StoreUnavailable as error:
                self._store_problem = str(error)
                self.metrics.store_errors.inc()
        return self._store_problem

    def record_gauges(self) -> None:
        """Write the current queue length and memory use to the metrics."""
        self.metrics.gauges(self.batcher.num_waiting, self.batcher.cache.nbytes)

    async def model_changed(self) -> None:
        """Take note of another model: nothing decoded for the one before may be used."""
        self.metrics.model(self.models.engine.version)
        await self.batcher.forget(None)

    def close(self) -> None:
        """Finish accepted work and close the store."""
        self.batcher.stop()
        self.writers.close()
        self.readers.close()
        self.auth.audit.close()
        self.store.close()


async def follow_changes(services: Services, keys: Path | None) -> None:
    """Poll for another chosen model, other keys and erasures by other processes, for as long as the process serves."""
    keys_seen = file_state(keys)
    num_erased = await _num_erased(services)
    frozen_version = ""
    while True:
        version = services.models.engine.version
        if version != frozen_version:
            frozen_version = version
            _freeze_garbage_collector()
        await asyncio.sleep(POLL_SECONDS)
        try:
            num_rejected = services.models.num_rejected
            if await services.readers.run(services.models.follow):
                await services.model_changed()
            services.metrics.rejected_models.inc(services.models.num_rejected - num_rejected)
            now = await _num_erased(services)
            if now != num_erased:
                # A user was erased here or in another process: this process may not keep that user's data.
                num_erased = now
                await services.batcher.forget(None)
            if keys is not None and (state := file_state(keys)) != keys_seen:
                keys_seen = state
                try:
                    services.auth.keys = read_keys(keys)
                    log.info("the keys were read again")
                except InputError as error:
                    log.error("the keys were not read again, those before go on: %s", error)
            services.record_gauges()
        except Exception:
            log.exception("following changes failed; the next attempt follows")


def _freeze_garbage_collector() -> None:
    """Exempt the model's objects from collection, which would pause requests for 50 to 70 ms at 100,000 items."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


async def _num_erased(services: Services) -> int:
    try:
        return (await services.readers.run(services.store.counts)).erased
    except VariseqError:
        return -1
