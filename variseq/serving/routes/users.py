"""Users: found, looked at, erased."""

from __future__ import annotations

from collections.abc import Sequence
from time import time

from variseq.events.vocabulary import Id
from variseq.inference.engine import Engine
from variseq.inference.question import Question
from variseq.serving import ids
from variseq.serving.batching import Asked
from variseq.serving.operations import Call, Operation
from variseq.serving.questions import moment
from variseq.serving.refusals import Refusal
from variseq.serving.routes.recommending import uncertainty_of
from variseq.serving.schemas import ErasedAnswer, EventKnown, FindQuery, IdsQuery, Posterior, UserAnswer, UsersAnswer
from variseq.serving.services import Services
from variseq.serving.stores.protocol import Event


async def find_users(services: Services, call: Call) -> UsersAnswer:
    """Users whose id begins with a prefix."""
    query: FindQuery = call.query
    found = await services.readers.run(lambda: services.store.users(query.prefix, query.limit))
    return UsersAnswer([ids.in_answer(user_id, query.ids_as_text) for user_id in found])


async def show_user(services: Services, call: Call) -> UserAnswer:
    """The history of a user, and what the model believes."""
    user_id = ids.user_id(call.path["user_id"], services.models.engine.vocabulary)
    query: IdsQuery = call.query
    events = await services.readers.run(lambda: services.store.history(user_id))
    if not events:
        raise Refusal(404, "There is no such user in the store.")
    answered = await services.batcher.ask(Asked(Question(k=1, because=False), user_id))
    known = await services.readers.run(lambda: _known(answered.engine, events, query.ids_as_text))
    posterior = Posterior(uncertainty_of(answered.answer))
    shown = ids.in_answer(user_id, query.ids_as_text)
    return UserAnswer(shown, len(events), known, posterior, answered.engine.version)


async def erase_user(services: Services, call: Call) -> ErasedAnswer:
    """Remove all events of a user, drop what is cached, and read back that nothing is left."""
    user_id = ids.user_id(call.path["user_id"], services.models.engine.vocabulary)
    began = int(time() * 1e6)
    caller, request_id = call.exchange.caller.name, call.exchange.request_id
    try:
        num_events = await services.writers.run(lambda: services.store.erase(user_id))
        await services.batcher.forget(user_id)
        left = await services.readers.run(lambda: services.store.history(user_id))
    except Exception:
        await services.door.audit.write("erase user", caller, "failed", request_id, user_id)
        raise
    # What was sent after the erasure is a new history, not a remainder.
    is_confirmed = all(event.timestamp >= began for event in left)
    outcome = "erased and confirmed" if is_confirmed else "events left"
    await services.door.audit.write("erase user", caller, outcome, request_id, user_id)
    if not is_confirmed:
        raise Refusal(500, "Events were found after the erasure. Send the request again and tell the operator.")
    return ErasedAnswer(num_events, is_confirmed)


def _known(engine: Engine, events: Sequence[Event], as_text: bool) -> list[EventKnown]:
    item_ids: list[Id] = [event.item_id for event in events]
    positions = engine.vocabulary.item_positions(item_ids)
    titles: list[str | None] = [None] * len(events)
    if engine.items is not None:
        found = iter(engine.items.titles(positions[positions >= 0]))
        titles = [next(found) if position >= 0 else None for position in positions.tolist()]
    return [
        EventKnown(
            ids.in_answer(event.item_id, as_text),
            title,
            moment(event.timestamp),
            event.behavior,
            event.value,
            position >= 0,
        )
        for event, title, position in zip(events, titles, positions.tolist(), strict=True)
    ]


OPERATIONS: list[Operation[Services]] = [
    Operation(
        "GET",
        "/v1/users/{user_id}",
        "Show the history and the posterior of a user",
        "read",
        show_user,
        UserAnswer,
        query=IdsQuery,
        statuses=(404, 503),
    ),
    Operation(
        "DELETE",
        "/v1/users/{user_id}",
        "Erase a user",
        "erase",
        erase_user,
        ErasedAnswer,
        statuses=(503,),
    ),
    Operation("GET", "/v1/users", "Find users", "read", find_users, UsersAnswer, query=FindQuery, statuses=(503,)),
]
