"""What the routes of one process share, and the background task that follows changes from outside the process."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from time import monotonic
from typing import Any, TypeVar

from variseq.errors import InputError, VariseqError
from variseq.events.vocabulary import Id
from variseq.experiments.experiment import Arm, read_experiment
from variseq.exposures.segments import ExposureLog
from variseq.serving.auth import AuditLog, Auth, TokenBuckets
from variseq.serving.batching import Batcher, HistoryCache
from variseq.serving.http import overloaded
from variseq.serving.images import ImageFolder
from variseq.serving.keys import read_keys
from variseq.serving.models import ModelManager, file_state
from variseq.serving.settings import ServeSettings
from variseq.serving.stores import open_store
from variseq.serving.stores.protocol import StoreUnavailable
from variseq.serving.telemetry import Metrics

log = logging.getLogger("variseq.serving")
Result = TypeVar("Result")
NUM_WRITERS = 16
NUM_READERS = 4
MAX_CHANGES = 16
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


class Services:
    """Everything behind the routes. Raises InputError, CheckpointError and StoreUnavailable when it cannot start."""

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.experiment = None if settings.experiment is None else read_experiment(settings.experiment)
        for arm in () if self.experiment is None else self.experiment.arms:
            arm.refuse_impossible(settings.policy)
        self.models = ModelManager(settings.run, settings.model_dir)
        self.images = None if settings.images is None else ImageFolder(settings.images)
        keys = None if settings.keys is None else read_keys(settings.keys)
        buckets = None
        if settings.rate_limit is not None:
            buckets = TokenBuckets(settings.rate_limit, float(settings.burst or max(1.0, 2 * settings.rate_limit)))
        self.auth = Auth(keys, buckets, AuditLog(settings.audit_log))
        self.store = open_store(settings.store)
        cache, limits = HistoryCache(int(settings.cache_megabytes * 2**20)), settings
        self.batcher = Batcher(
            self.models, self.store, cache, limits.batch_size, limits.queue_length, limits.timeout_seconds
        )
        self.metrics = Metrics()
        self.exposures: ExposureLog | None = None
        if settings.exposures is not None:
            count = self.metrics.exposure
            self.exposures = ExposureLog(settings.exposures, settings.exposures_days, count=count)
            self.batcher.history_key = self.exposures.key
        # The same in all processes where there are exposures, so that a request that is sent again gets the same list.
        self._seed_key = secrets.token_bytes(32) if self.exposures is None else self.exposures.key
        self.metrics.model(self.models.engines.trained.version)
        self.batcher.on_batch = self.metrics.batch_size.observe
        # Appends have threads of their own, so that they wait for nothing else.
        self.writers = BoundedThreadPool("write", NUM_WRITERS, settings.queue_length)
        self.readers = BoundedThreadPool("read", NUM_READERS, settings.queue_length)
        # Changes of the catalog wait for each other, and nothing else waits for them.
        self.changers = BoundedThreadPool("change", 1, MAX_CHANGES)
        self.catalog_lock = Lock()
        self._checked = -STORE_CHECK_SECONDS
        self._store_problem: str | None = None

    def arm_of(self, user_id: Id | None) -> Arm | None:
        """The arm of a user; None without an experiment, and for a history that was sent along."""
        return None if self.experiment is None or user_id is None else self.experiment.arm_of(user_id)

    def policy_of(self, arm: Arm | None, request_id: str) -> dict[str, Any]:
        """The options of requests that name nothing else: those of the server, with those of the arm before them.

        The seed follows from the id of the request.
        """
        seed = hashlib.blake2b(request_id.encode("ascii"), digest_size=4, key=self._seed_key).digest()
        of_arm = {} if arm is None else arm.policy
        return {**self.settings.policy, **of_arm, "seed": int.from_bytes(seed, "big")}

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
        self.metrics.model(self.models.engines.trained.version)
        await self.batcher.forget(None)

    async def follow_changes(self) -> None:
        """Poll for another chosen model, other keys and erasures by other processes, for as long as it serves."""
        keys_seen, num_erased, frozen_version = file_state(self.settings.keys), await self._num_erased(), ""
        while True:
            if self.models.engine.version != frozen_version:
                frozen_version = self.models.engine.version
                # The model's objects are not collected, which would pause requests for 50 to 70 ms at 100,000 items.
                gc.unfreeze()
                gc.collect()
                gc.freeze()
            await asyncio.sleep(POLL_SECONDS)
            try:
                num_rejected = self.models.num_rejected
                if await self.readers.run(self.models.follow):
                    await self.model_changed()
                self.metrics.rejected_models.inc(self.models.num_rejected - num_rejected)
                now = await self._num_erased()
                if now != num_erased:
                    # A user was erased here or in another process: this process may not keep that user's data.
                    num_erased = now
                    await self.batcher.forget(None)
                if (state := file_state(self.settings.keys)) != keys_seen:
                    keys_seen = state
                    self._read_keys()
                self.record_gauges()
            except Exception:
                log.exception("following changes failed; the next attempt follows")

    def close(self) -> None:
        """Finish accepted work and close the store."""
        self.batcher.stop()
        self.writers.close()
        self.readers.close()
        self.changers.close()
        if self.exposures is not None:
            self.exposures.close()
        self.auth.audit.close()
        self.store.close()
        # At the end of the process libraries look for what was not collected.
        gc.unfreeze()

    def _read_keys(self) -> None:
        assert self.settings.keys is not None
        try:
            self.auth.keys = read_keys(self.settings.keys)
            log.info("the keys were read again")
        except InputError as error:
            log.error("the keys were not read again, those before go on: %s", error)

    async def _num_erased(self) -> int:
        try:
            return (await self.readers.run(self.store.counts)).erased
        except VariseqError:
            return -1
