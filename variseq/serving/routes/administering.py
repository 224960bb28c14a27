"""Models: listed, and swapped while requests go on."""

from __future__ import annotations

from variseq.errors import CheckpointError
from variseq.serving.operations import Call, Operation
from variseq.serving.refusals import Refusal
from variseq.serving.schemas import ModelAnswer, ModelRequest, ModelsAnswer
from variseq.serving.services import Services


async def swap_model(services: Services, call: Call) -> ModelAnswer:
    """Load a model and let it answer from now on; one that cannot be loaded changes nothing."""
    request: ModelRequest = call.body
    caller, request_id = call.exchange.caller.name, call.exchange.request_id
    try:
        await services.readers.run(lambda: services.models.swap(request.model))
    except CheckpointError as error:
        services.metrics.refused_models.inc()
        await services.door.audit.write(f"swap model to {request.model}", caller, "refused", request_id)
        reason = services.models.without_root(str(error))
        raise Refusal(409, f"The model was refused and the one before goes on. {reason}") from error
    services.metrics.model(services.models.engine.version)
    await services.batcher.forget(None)
    await services.door.audit.write(f"swap model to {request.model}", caller, "done", request_id)
    return ModelAnswer(services.models.engine.version, services.models.name)


async def list_models(services: Services, call: Call) -> ModelsAnswer:
    """What can be swapped to."""
    models = services.models
    names = [] if models.shelf is None else await services.readers.run(models.shelf.names)
    await services.door.audit.write("list models", call.exchange.caller.name, "done", call.exchange.request_id)
    return ModelsAnswer(names, models.name, models.engine.version)


OPERATIONS: list[Operation[Services]] = [
    Operation(
        "POST",
        "/v1/admin/model",
        "Swap the model",
        "admin",
        swap_model,
        ModelAnswer,
        ModelRequest,
        statuses=(409, 503),
    ),
    Operation("GET", "/v1/admin/models", "List the models", "admin", list_models, ModelsAnswer, statuses=(503,)),
]
