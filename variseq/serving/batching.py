"""Batches of requests, answered by one thread in one pass of the model each, and its cache of decoded histories."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import monotonic

from variseq.events.vocabulary import Id
from variseq.ranking.engine import Answer, Engine, KnownHistory, Request
from variseq.sequences.given_history import GivenEvent
from variseq.serving.http import HTTPError, overloaded, unavailable
from variseq.serving.models import ModelManager
from variseq.serving.requests import other_model
from variseq.serving.stores.protocol import HistoryStore

OVERHEAD_BYTES = 1000  # Of an entry besides its arrays (measured: 850 for the objects, and the table).


@dataclass(frozen=True, slots=True)
class _Entry:
    store_version: int
    model: str
    history: KnownHistory
    nbytes: int


class HistoryCache:
    """Of one thread only. An entry counts only for the very version of the history and of the model it was made with,
    so that what other processes write is seen."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._entries: OrderedDict[Id, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, user_id: Id, store_version: int, model: str) -> KnownHistory | None:
        entry = self._entries.get(user_id)
        if entry is None or entry.store_version != store_version or entry.model != model:
            return None
        self._entries.move_to_end(user_id)
        return entry.history

    def put(self, user_id: Id, store_version: int, model: str, history: KnownHistory) -> None:
        self.drop(user_id)
        nbytes = history.nbytes + OVERHEAD_BYTES
        if nbytes > self.max_bytes:
            return
        self._entries[user_id] = _Entry(store_version, model, history, nbytes)
        self.nbytes += nbytes
        while self.nbytes > self.max_bytes:
            _, evicted = self._entries.popitem(last=False)
            self.nbytes -= evicted.nbytes

    def drop(self, user_id: Id) -> None:
        entry = self._entries.pop(user_id, None)
        if entry is not None:
            self.nbytes -= entry.nbytes

    def clear(self) -> None:
        self._entries.clear()
        self.nbytes = 0


log = logging.getLogger("variseq.serving")
LINGER = 0.125
"""For how long, as a share of the time of the last pass, a pass waits for as many requests as the last one had."""


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """A request about a user of the store, or about a history that was sent. `model` is the version that it needs."""

    request: Request
    user_id: Id | None = None
    history: Sequence[Id | GivenEvent] = ()
    model: str | None = None


@dataclass(frozen=True, slots=True)
class InferenceResult:
    """An answer, its engine, and facts about the history."""

    answer: Answer
    engine: Engine
    num_events: int
    num_unknown: int
    latest: int | None


@dataclass(slots=True, eq=False)
class _Job:
    query: InferenceRequest
    future: asyncio.Future[InferenceResult]
    deadline: float
    result: InferenceResult | Exception | None = None


_Command = Callable[[], None]


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
        self._queue: SimpleQueue[_Job | _Command | None] = SimpleQueue()
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
        self._check_queue(1)
        return await self._queued(request)

    async def submit_all(self, requests: Sequence[InferenceRequest]) -> list[InferenceResult]:
        """All answers, in order; the first error of any of them in place of the answers."""
        self._check_queue(len(requests))
        found = await asyncio.gather(*(self._queued(one) for one in requests), return_exceptions=True)
        answers = []
        for one in found:
            if isinstance(one, BaseException):
                raise one
            answers.append(one)
        return answers

    def _check_queue(self, num_requests: int) -> None:
        if self.num_waiting + num_requests > self.queue_length:
            raise overloaded(f"{self.num_waiting} requests wait for the model already. Send fewer at once, or later.")

    async def _queued(self, request: InferenceRequest) -> InferenceResult:
        loop = asyncio.get_running_loop()
        job = _Job(request, loop.create_future(), monotonic() + self.timeout_seconds)
        self.num_waiting += 1
        self._queue.put(job)
        timer = loop.call_later(self.timeout_seconds, self._expire, job)
        try:
            return await job.future
        finally:
            timer.cancel()

    async def forget(self, user_id: Id | None) -> None:
        """Drop a user (None: all) from the cache, after every pass that may have read them before."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def command() -> None:
            if user_id is None:
                self.cache.clear()
            else:
                self.cache.drop(user_id)
            loop.call_soon_threadsafe(_finish, done)

        self._queue.put(command)
        try:
            async with asyncio.timeout(self.timeout_seconds):
                await done
        except TimeoutError as error:
            raise unavailable("The cache is cleared later: the server is busy. Send this again.") from error

    def _expire(self, job: _Job) -> None:
        if not job.future.done():
            job.future.set_exception(
                unavailable(f"No answer within {self.timeout_seconds:g} seconds. The server is busy: try again later.")
            )

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

    def _take(self, entry: _Job | _Command | None, batch: list[_Job]) -> bool:
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
                job.result = InferenceResult(answer, engine, history.num_events, len(history.unknown), latest)
            else:
                job.result = answer

    def _history(self, request: InferenceRequest, engine: Engine) -> KnownHistory:
        if request.model is not None and request.model != engine.version:
            raise other_model(request.model, engine.version)
        if request.user_id is None:
            return engine.given(request.history)
        version = self.store.version(request.user_id)
        known = self.cache.get(request.user_id, version, engine.version)
        if known is None:
            events = self.store.history(request.user_id)
            known = engine.history([(one.item_id, one.timestamp, one.behavior, one.value) for one in events])
            self.cache.put(request.user_id, version, engine.version, known)
        return known

    def _deliver(self, batch: list[_Job]) -> None:
        for job in batch:
            self.num_waiting -= 1
            if job.future.done():
                continue
            if isinstance(job.result, InferenceResult):
                job.future.set_result(job.result)
            else:
                late = HTTPError(503, "The request waited too long. Try again later.", {"Retry-After": "1"})
                job.future.set_exception(job.result or late)


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _alone(engine: Engine, history: KnownHistory, request: Request) -> Answer | Exception:
    try:
        return engine.answer([(history, request)])[0]
    except Exception as error:
        return error
