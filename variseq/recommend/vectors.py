"""A trained network into the vectors of its items and users, as tables for vector indexes and other models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from variseq.errors import InputError
from variseq.events.items import ItemTable
from variseq.events.table import Columns
from variseq.events.vocabulary import Id, Vocabulary
from variseq.model.network import Network
from variseq.model.posterior import NetworkScorer
from variseq.sequences.histories import Histories

USERS_AT_ONCE = 8192


def item_table(network: Network, vocabulary: Vocabulary, items: ItemTable | None) -> pa.Table:
    """item_id, title, vector and bias of every item, in the order of the vocabulary.

    The logit that the network gives an item is the inner product of a user's vector with the item's, plus the bias.
    """
    titles = [None] * vocabulary.num_items if items is None else items.titles(range(vocabulary.num_items))
    bias = network.item_bias.detach().cpu().numpy()
    return pa.table(
        {
            Columns.ITEM: vocabulary.items,
            Columns.TITLE: pa.array(titles, pa.string()),
            "vector": _vectors(network.item_vectors.detach().cpu().numpy()),
            "bias": pa.array(bias, pa.float32()),
        }
    )


def user_tables(
    network: Network, vocabulary: Vocabulary, histories: Histories | None, users: Sequence[Id] | None
) -> Iterator[pa.Table]:
    """user_id and vector, some thousand users at a time; all who have a history where `users` is None.

    A vector is the preference after the latest event of the history, at the mean of the posterior. Raises InputError
    for a run without histories and for users that it does not know.
    """
    if histories is None:
        raise InputError("This run was saved without histories, so no user has a vector. Save a run with histories.")
    if users is None:
        chosen = np.flatnonzero(histories.lengths[: vocabulary.num_users])
    else:
        chosen = vocabulary.user_positions(users)
        if unknown := [user for user, position in zip(users, chosen, strict=True) if position < 0]:
            named = ", ".join(map(repr, unknown[:10]))
            raise InputError(f"users names users that are not in the log: {named}. Leave them out.")
    scorer = NetworkScorer(network)
    for first in range(0, max(1, len(chosen)), USERS_AT_ONCE):
        positions = chosen[first : first + USERS_AT_ONCE]
        vectors = scorer.preferences(histories.rows(positions)).cpu().numpy()
        yield pa.table({Columns.USER: vocabulary.users.take(pa.array(positions)), "vector": _vectors(vectors)})


def _vectors(vectors: Float[np.ndarray, "row hidden"]) -> pa.FixedSizeListArray:
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
