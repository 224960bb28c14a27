"""Batches of requests, answered by one thread in one pass of the model each, and its cache of decoded histories."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from time import monotonic

from variseq.events.vocabulary import Id
from variseq.experiments.experiment import Arm
from variseq.exposures.history import HistoryDigest, history_hash
from variseq.ranking.engine import Answer, Engine, KnownHistory, Request
from variseq.sequences.given_history import GivenEvent, HistoryRow, history_rows
from variseq.serving.http import overloaded, unavailable
from variseq.serving.models import ModelManager
from variseq.serving.pages import other_model
from variseq.serving.stores.protocol import HistoryStore

log = logging.getLogger("variseq.serving")
LINGER = 0.125
"""For how long, as a share of the time of the last pass, a pass waits for as many requests as the last one had."""
OVERHEAD_BYTES = 1000  # Of an entry besides its arrays (measured: 850 for the objects, and the table).


class HistoryCache:
    """Decoded histories, the latest used of them; for one thread only.

    An entry counts only for the very version of the history and of the model it was made with, so that what other
    processes write is seen.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._entries: OrderedDict[Id, tuple[tuple[int, str], KnownHistory]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, user_id: Id, store_version: int, model: str) -> KnownHistory | None:
        made_with, history = self._entries.get(user_id, (None, None))
        if made_with != (store_version, model):
            return None
        self._entries.move_to_end(user_id)
        return history

    def put(self, user_id: Id, store_version: int, model: str, history: KnownHistory) -> None:
        self.drop(user_id)
        if history.nbytes + OVERHEAD_BYTES > self.max_bytes:
            return
        self._entries[user_id] = ((store_version, model), history)
        self.nbytes += history.nbytes + OVERHEAD_BYTES
        while self.nbytes > self.max_bytes:
            self.drop(next(iter(self._entries)))

    def drop(self, user_id: Id) -> None:
        if user_id in self._entries:
            _, history = self._entries.pop(user_id)
            self.nbytes -= history.nbytes + OVERHEAD_BYTES

    def clear(self) -> None:
        self._entries.clear()
        self.nbytes = 0


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """A request about a user of the store, or about a history that was sent.

    `model` is the version that it needs, `arm` that of the user in an experiment.
    """

    request: Request
    user_id: Id | None = None
    history: Sequence[Id | GivenEvent] = ()
    model: str | None = None
    arm: Arm | None = None


@dataclass(frozen=True, slots=True)
class InferenceResult:
    """An answer, its engine, and facts about the history."""

    answer: Answer
    engine: Engine
    num_events: int
    num_unknown: int
    latest: int | None
    history: HistoryDigest | None = None
    """Where exposures are kept."""


@dataclass(slots=True, eq=False)
class _Job:
    query: InferenceRequest
    future: asyncio.Future[InferenceResult]
    deadline: float
    result: InferenceResult | Exception | None = None


class Batcher:
    """The inference thread. Submit from the event loop that it was started in."""

    def __init__(
        self,
        models: ModelManager,
        store: HistoryStore,
        cache: HistoryCache,
        batch_size: int,
        queue_length: int,
        timeout_seconds: float,
    ) -> None:
        self.models = models
        self.store = store
        self.cache = cache
        self.batch_size = batch_size
        self.queue_length = queue_length
        self.timeout_seconds = timeout_seconds
        self.num_waiting = 0
        self.on_batch: Callable[[int], None] = lambda size: None
        self.history_key: bytes | None = None
        """Of the hashes of histories; None where no exposures are kept."""
        self._queue: SimpleQueue[_Job | Callable[[], None] | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)

    def start(self) -> None:
        """Start the thread, for the event loop that runs now."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """Answer the queued requests, and end the thread."""
        self._queue.put(None)
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    async def submit(self, request: InferenceRequest) -> InferenceResult:
        """The answer. Raises HTTPError when too many wait or time runs out, InputError, StoreUnavailable."""
        (answer,) = await self.submit_all([request])
        return answer

    async def submit_all(self, requests: Sequence[InferenceRequest]) -> list[InferenceResult]:
        """All answers, in order; the first error of any of them in place of the answers."""
        if self.num_waiting + len(requests) > self.queue_length:
            raise overloaded(f"{self.num_waiting} requests wait for the model already. Send fewer at once, or later.")
        loop = asyncio.get_running_loop()
        jobs = [_Job(one, loop.create_future(), monotonic() + self.timeout_seconds) for one in requests]
        self.num_waiting += len(jobs)
        for job in jobs:
            self._queue.put(job)
        timer = loop.call_later(self.timeout_seconds, self._expire, jobs)
        try:
            found = await asyncio.gather(*(job.future for job in jobs), return_exceptions=True)
        finally:
            timer.cancel()
        for one in found:
            if isinstance(one, BaseException):
                raise one
        return [one for one in found if isinstance(one, InferenceResult)]

    async def forget(self, user_id: Id | None) -> None:
        """Drop a user (None: all) from the cache, after every pass that may have read them before."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def finish() -> None:
            if not done.done():
                done.set_result(None)

        def command() -> None:
            if user_id is None:
                self.cache.clear()
            else:
                self.cache.drop(user_id)
            loop.call_soon_threadsafe(finish)

        self._queue.put(command)
        try:
            async with asyncio.timeout(self.timeout_seconds):
                await done
        except TimeoutError as error:
            raise unavailable("The cache is cleared later: the server is busy. Send this again.") from error

    def _expire(self, jobs: Sequence[_Job]) -> None:
        late = f"No answer within {self.timeout_seconds:g} seconds. The server is busy: try again later."
        for job in jobs:
            if not job.future.done():
                job.future.set_exception(unavailable(late))

    def _work(self) -> None:
        usual, seconds = 1, 0.0  # Of the last pass.
        while True:
            batch: list[_Job] = []
            goes_on = self._take(self._queue.get(), batch)
            # Clients that were answered together send the next request together; a pass for the first of them alone
            # would cost nearly as much as one for all, and the others would wait for it.
            latest = monotonic() + LINGER * seconds
            while goes_on and batch and len(batch) < self.batch_size:
                rest = latest - monotonic() if len(batch) < usual else 0.0
                try:
                    goes_on = self._take(self._queue.get(block=rest > 0, timeout=max(rest, 0.0)), batch)
                except Empty:
                    break
            if batch:
                begun = monotonic()
                self._answer(batch)
                usual, seconds = len(batch), monotonic() - begun
                assert self._loop is not None
                self._loop.call_soon_threadsafe(self._deliver, batch)
            if not goes_on:
                return

    def _take(self, entry: _Job | Callable[[], None] | None, batch: list[_Job]) -> bool:
        """Put a job into the batch or run a command; False ends the thread."""
        if entry is None:
            return False
        if isinstance(entry, _Job):
            batch.append(entry)
        else:
            entry()
        return True

    def _answer(self, batch: list[_Job]) -> None:
        now = monotonic()
        engine = self.models.engine
        ready: list[tuple[_Job, KnownHistory]] = []
        for job in batch:
            if job.deadline < now or job.future.cancelled():
                continue  # Its client does not wait any more.
            try:
                ready.append((job, self._history(job.query, engine)))
            except Exception as error:
                job.result = error
        if not ready:
            return
        self.on_batch(len(ready))
        answers: Sequence[Answer | Exception]
        try:
            answers = engine.answer([(history, job.query.request) for job, history in ready])
        except Exception:
            log.exception("a pass of %d requests failed; each is tried alone", len(ready))
            answers = [_alone(engine, history, job.query.request) for job, history in ready]
        for (job, history), answer in zip(ready, answers, strict=True):
            if isinstance(answer, Answer):
                latest = None if job.query.user_id is None else history.latest
                num_unknown, digest = len(history.unknown), _digest(history)
                job.result = InferenceResult(answer, engine, history.num_events, num_unknown, latest, digest)
            else:
                job.result = answer

    def _history(self, request: InferenceRequest, engine: Engine) -> KnownHistory:
        if request.model is not None and request.model != engine.version:
            raise other_model(request.model, engine.version)
        if request.user_id is None:
            given = engine.given(request.history)
            return given if self.history_key is None else self._hashed(given, history_rows(request.history))
        version = self.store.version(request.user_id)
        known = self.cache.get(request.user_id, version, engine.version)
        if known is None:
            events = self.store.history(request.user_id)
            rows = [(one.item_id, one.timestamp, one.behavior, one.value) for one in events]
            known = self._hashed(engine.history(rows, request.user_id), rows)
            self.cache.put(request.user_id, version, engine.version, known)
        return known

    def _hashed(self, history: KnownHistory, rows: Sequence[HistoryRow]) -> KnownHistory:
        key = self.history_key
        return history if key is None else replace(history, hash=history_hash(rows, key))

    def _deliver(self, batch: list[_Job]) -> None:
        for job in batch:
            self.num_waiting -= 1
            if job.future.done():
                continue
            if isinstance(job.result, InferenceResult):
                job.future.set_result(job.result)
            else:
                job.future.set_exception(job.result or unavailable("The request waited too long. Try again later."))


def _digest(history: KnownHistory) -> HistoryDigest | None:
    if history.hash is None:
        return None
    num_events = history.num_events + len(history.unknown)
    return HistoryDigest(history.hash, num_events, history.latest if history.has_times else None)


def _alone(engine: Engine, history: KnownHistory, request: Request) -> Answer | Exception:
    try:
        return engine.answer([(history, request)])[0]
    except Exception as error:
        return error
