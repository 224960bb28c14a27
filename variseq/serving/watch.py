"""What changes outside the process (the chosen model, the keys, erasures by others) into what the process goes by."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from pathlib import Path

from variseq.errors import InputError, VariseqError
from variseq.serving.keys import read_keys
from variseq.serving.services import Services
from variseq.serving.settings import ServeSettings

log = logging.getLogger("variseq.serving")
SECONDS = 0.5


async def watch(services: Services, settings: ServeSettings) -> None:
    """Look twice a second, for as long as the process serves."""
    keys_seen = _state(settings.keys)
    num_erased = await _erased(services)
    spared = ""
    while True:
        version = services.models.engine.version
        if version != spared:
            spared = version
            _spare_the_collector()
        await asyncio.sleep(SECONDS)
        try:
            num_refused = services.models.num_refused
            if await services.readers.run(services.models.follow):
                services.metrics.model(services.models.engine.version)
                await services.batcher.forget(None)
            services.metrics.refused_models.inc(services.models.num_refused - num_refused)
            now = await _erased(services)
            if now != num_erased:
                # Somebody was erased here or in another process: nobody's data may stay in this one's memory.
                num_erased = now
                await services.batcher.forget(None)
            if settings.keys is not None and (state := _state(settings.keys)) != keys_seen:
                keys_seen = state
                _follow_keys(services, settings.keys)
            services.note_levels()
        except Exception:
            log.exception("a look at what changed outside failed; the next one follows")


def _spare_the_collector() -> None:
    """What a model is made of stays. Python would walk through all of it now and then, and whoever is under way would
    wait for 50 to 70 ms at 100,000 items. What is left of an earlier model is collected first."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _follow_keys(services: Services, path: Path) -> None:
    try:
        services.door.keys = read_keys(path)
        log.info("the keys were read again")
    except InputError as error:
        log.error("the keys were not read again, those before go on: %s", error)


def _state(path: Path | None) -> tuple[int, int] | None:
    try:
        stat = os.stat(path) if path is not None else None
    except OSError:
        return None
    return None if stat is None else (stat.st_mtime_ns, stat.st_ino)


async def _erased(services: Services) -> int:
    try:
        return (await services.readers.run(services.store.counts)).erased
    except VariseqError:
        return -1
