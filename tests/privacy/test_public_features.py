"""Titles and categories of a public catalog in a network over several logs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from variseq.errors import InputError
from variseq.events.items import ItemTable

pytest.importorskip("cryptography")

from msgspec.structs import replace

from tests.privacy.test_federated_network import NUM_ITEMS, VOCABULARY, add_up, shared_of, terms_of
from variseq.federation.messages import NetworkTerms
from variseq.federation.party import same_features
from variseq.federation.public_features import PublicFeatures
from variseq.federation.rounds import Rounds


def items_of(categories: int, title: str = "the") -> ItemTable:
    names = [[f"kind {item % categories}"] for item in range(NUM_ITEMS)]
    titles = [f"{title} {'red' if item % 2 else 'blue'} one of kind {item % 5}" for item in range(NUM_ITEMS)]
    return ItemTable(pa.table({"title": titles, "category": names}))


FEATURES = PublicFeatures.of(items_of(3), VOCABULARY)
NETWORK = NetworkTerms("tiny", 1, 3, content=FEATURES.digest, num_features=FEATURES.number)


def test_every_item_vector_learns_from_categories_and_titles_and_the_run_has_the_sums() -> None:
    assert FEATURES.links is not None
    assert FEATURES.content is not None
    assert FEATURES.number == 3 + FEATURES.content.shape[1]
    rounds = Rounds(terms_of(network=NETWORK), FEATURES)
    add_up(rounds, 3)
    embedding = shared_of(rounds).network.embedding
    before = {name: getattr(embedding, name).detach().clone() for name in ("category", "content_map")}
    add_up(rounds, rounds.number)
    embedding = shared_of(rounds).network.embedding
    assert all(float((getattr(embedding, name) - before[name]).detach().abs().max()) > 0 for name in before)
    trained = rounds.trained()
    assert trained is not None
    network = trained[0]
    assert not network.embedding.is_sum
    shared = embedding.shared_vectors().detach().numpy() + embedding.item.detach().numpy()[:-1]
    np.testing.assert_allclose(network.item_vectors.detach().numpy(), shared, atol=1e-6)


@pytest.mark.parametrize("items", [items_of(4), items_of(3, "a"), None], ids=["categories", "titles", "no table"])
def test_catalog_with_other_columns_is_refused(items: ItemTable | None) -> None:
    terms = terms_of(network=NETWORK)
    assert same_features(terms, lambda: FEATURES) is FEATURES
    with pytest.raises(InputError, match="other titles, categories"):
        same_features(terms, None if items is None else lambda: PublicFeatures.of(items, VOCABULARY))


def test_catalog_is_not_compared_where_its_columns_are_not_used() -> None:
    assert same_features(terms_of(), lambda: FEATURES) is None


def test_catalog_without_columns_is_refused() -> None:
    empty = pa.table(
        {"title": pa.nulls(NUM_ITEMS, pa.string()), "category": pa.nulls(NUM_ITEMS, pa.list_(pa.string()))}
    )
    with pytest.raises(InputError, match="--content"):
        PublicFeatures.of(ItemTable(empty), VOCABULARY)


def test_many_features_count_as_items_where_too_large_a_network_is_refused() -> None:
    from variseq.federation.rounds import refuse_network

    with pytest.raises(InputError, match="items"):
        refuse_network(terms_of(network=replace(NETWORK, num_features=10**9)))
