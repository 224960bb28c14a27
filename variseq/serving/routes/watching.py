"""Whether the server lives, whether it should be sent requests, and what it has done."""

from __future__ import annotations

from variseq.serving.exchange import Page
from variseq.serving.metrics import CONTENT_TYPE
from variseq.serving.operations import Call, Operation
from variseq.serving.refusals import Refusal
from variseq.serving.schemas import HealthAnswer, ReadyAnswer
from variseq.serving.services import Services

RETRY = {"Retry-After": "1"}


async def health(services: Services, call: Call) -> HealthAnswer:
    """The process answers; nothing else is looked at."""
    return HealthAnswer("alive")


async def ready(services: Services, call: Call) -> ReadyAnswer:
    """Whether requests should come here; 503 with the reason where not."""
    reasons = []
    if services.door.is_draining:
        reasons.append("The server is stopping.")
    if not services.batcher.is_alive:
        reasons.append("The model does not answer any more. Start the server again.")
    store_problem = await services.store_problem()
    if store_problem is not None:
        reasons.append("The store cannot be used now; the log of the server says why.")
    if reasons:
        raise Refusal(503, " ".join(reasons), RETRY)
    problem = services.models.problem
    return ReadyAnswer(True, services.models.engine.version, [] if problem is None else [problem])


async def metrics(services: Services, call: Call) -> Page:
    """All counters and gauges, as Prometheus reads them."""
    services.note_levels()
    return Page(await services.readers.run(services.metrics.text), CONTENT_TYPE)


OPERATIONS: list[Operation[Services]] = [
    Operation("GET", "/health", "Tell that the server is alive", None, health, HealthAnswer),
    Operation("GET", "/ready", "Tell whether requests should be sent here", None, ready, ReadyAnswer, statuses=(503,)),
    Operation("GET", "/metrics", "Show what Prometheus reads", "read", metrics, media_type="text/plain"),
]
