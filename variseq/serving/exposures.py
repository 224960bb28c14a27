"""The record of each list that is answered, and its erasure, where exposures are kept."""

from __future__ import annotations

import logging
from time import time_ns

from msgspec import UNSET, UnsetType

from variseq.errors import InputError
from variseq.events.vocabulary import Id
from variseq.exposures.erasing import erase_users
from variseq.exposures.records import ExposureRecord
from variseq.serving.batching import InferenceRequest, InferenceResult
from variseq.serving.http import unavailable
from variseq.serving.services import Services

log = logging.getLogger("variseq.serving")


def add_exposure(
    services: Services, exposure_id: str, query: InferenceRequest, result: InferenceResult
) -> str | UnsetType:
    """Leave a list to the thread that writes exposures; its id for the answer."""
    if services.exposures is None or result.history is None:
        return UNSET
    of_experiment: tuple[str, str, float | None] | tuple[()] = ()
    if services.experiment is not None and query.arm is not None:
        of_experiment = services.experiment.name, query.arm.name, result.answer.uncertainty.get("total")
    services.exposures.add(
        ExposureRecord(
            exposure_id,
            time_ns() // 1000,
            query.user_id,
            result.history,
            result.engine.version,
            query.request.options,
            result.answer.recommendations,
            query.request.shown,
            *of_experiment,
        )
    )
    return exposure_id


async def erase_exposures(services: Services, user_id: Id) -> None:
    """Remove the exposures and events of a user. Raises HTTPError (503) where the folder cannot be written."""
    if (exposures := services.exposures) is None:
        return
    try:
        await services.writers.run(lambda: erase_users(exposures.folder, [user_id]))
    except InputError as error:
        log.error("exposures were not erased: %s", error)
        raise unavailable("The events were erased, the exposures not yet. Send the request again.") from error
