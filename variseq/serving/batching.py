"""Requests that arrive together into one pass of the model, in one thread; what cannot be kept up with is refused."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import monotonic

from variseq.events.vocabulary import Id
from variseq.ranking.engine import Answer, Engine, KnownHistory, Request
from variseq.sequences.given_history import GivenEvent
from variseq.serving.history_cache import HistoryCache
from variseq.serving.http import HTTPError, overloaded, unavailable
from variseq.serving.models import ModelManager
from variseq.serving.paging import other_model
from variseq.serving.stores.protocol import HistoryStore

log = logging.getLogger("variseq.serving")
LINGER = 0.125
"""For how long, as a share of the time of the last pass, a pass waits for as many requests as the last one had."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request about a user of the store, or about a history that was sent. `model` is the version that it needs."""

    request: Request
    user_id: Id | None = None
    history: Sequence[Id | GivenEvent] = ()
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, and the engine and the history that it was made of."""

    answer: Answer
    engine: Engine
    num_events: int
    num_unknown: int
    latest: int | None


@dataclass(slots=True, eq=False)
class _Job:
    asked: Asked
    future: asyncio.Future[Answered]
    deadline: float
    result: Answered | Exception | None = None


_Order = Callable[[], None]


class Batcher:
    """A thread that answers. Ask from the event loop it was started in."""

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
        self._queue: SimpleQueue[_Job | _Order | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)

    def start(self) -> None:
        """Begin to answer, for the event loop that runs now."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """Answer what is queued, and end the thread."""
        self._queue.put(None)
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    async def ask(self, asked: Asked) -> Answered:
        """The answer. Raises HTTPError when too many wait or time runs out, InputError, StoreUnavailable."""
        self._refuse_unless_room(1)
        return await self._queued(asked)

    async def ask_all(self, asked: Sequence[Asked]) -> list[Answered]:
        """All answers, in order; the first error of any of them in place of the answers."""
        self._refuse_unless_room(len(asked))
        found = await asyncio.gather(*(self._queued(one) for one in asked), return_exceptions=True)
        answers = []
        for one in found:
            if isinstance(one, BaseException):
                raise one
            answers.append(one)
        return answers

    def _refuse_unless_room(self, num_asked: int) -> None:
        if self.num_waiting + num_asked > self.queue_length:
            raise overloaded(f"{self.num_waiting} requests wait for the model already. Send fewer at once, or later.")

    async def _queued(self, asked: Asked) -> Answered:
        loop = asyncio.get_running_loop()
        job = _Job(asked, loop.create_future(), monotonic() + self.timeout_seconds)
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

        def order() -> None:
            if user_id is None:
                self.cache.clear()
            else:
                self.cache.drop(user_id)
            loop.call_soon_threadsafe(_finish, done)

        self._queue.put(order)
        try:
            async with asyncio.timeout(self.timeout_seconds):
                await done
        except TimeoutError as error:
            raise unavailable("The cache is cleared later than asked: the server is busy. Send this again.") from error

    def _expire(self, job: _Job) -> None:
        if not job.future.done():
            job.future.set_exception(
                unavailable(f"No answer within {self.timeout_seconds:g} seconds. The server is busy: try again later.")
            )

    def _work(self) -> None:
        usual, seconds = 1, 0.0  # The number of requests of the last pass, and how long it took.
        while True:
            batch: list[_Job] = []
            goes_on = self._take(self._queue.get(), batch)
            # Clients that were answered together ask again together; a pass for the first of them alone would cost
            # nearly as much as one for all, and let the others wait for it.
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

    def _take(self, entry: _Job | _Order | None, batch: list[_Job]) -> bool:
        """Put a job into the batch or carry out an order; False ends the thread."""
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
                continue  # Nobody waits for it any more.
            try:
                ready.append((job, self._history(job.asked, engine)))
            except Exception as error:
                job.result = error
        if not ready:
            return
        self.on_batch(len(ready))
        answers: Sequence[Answer | Exception]
        try:
            answers = engine.answer([(history, job.asked.request) for job, history in ready])
        except Exception:
            log.exception("a pass of %d requests failed; each is tried alone", len(ready))
            answers = [_alone(engine, history, job.asked.request) for job, history in ready]
        for (job, history), answer in zip(ready, answers, strict=True):
            if isinstance(answer, Answer):
                latest = None if job.asked.user_id is None else history.latest
                job.result = Answered(answer, engine, history.num_events, len(history.unknown), latest)
            else:
                job.result = answer

    def _history(self, asked: Asked, engine: Engine) -> KnownHistory:
        if asked.model is not None and asked.model != engine.version:
            raise other_model(asked.model, engine.version)
        if asked.user_id is None:
            return engine.given(asked.history)
        version = self.store.version(asked.user_id)
        known = self.cache.get(asked.user_id, version, engine.version)
        if known is None:
            events = self.store.history(asked.user_id)
            known = engine.history([(one.item_id, one.timestamp, one.behavior, one.value) for one in events])
            self.cache.put(asked.user_id, version, engine.version, known)
        return known

    def _deliver(self, batch: list[_Job]) -> None:
        for job in batch:
            self.num_waiting -= 1
            if job.future.done():
                continue
            if isinstance(job.result, Answered):
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
