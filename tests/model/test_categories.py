"""Item vectors that share those of their categories while a network is trained."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch

from tests.model.some_networks import NUM_ITEMS, small_network
from variseq.estimator import VariationalAttention
from variseq.events.items import CategoryLinks, ItemTable
from variseq.log import LogPart
from variseq.model.network import Network, Weights
from variseq.model.scorer import NetworkScorer
from variseq.sequences.batches import make_batch, training_windows
from variseq.sequences.histories import Histories

HISTORIES = Histories.of_items([[0, 1, 2, 3], [4, 5, 6]])
LINKS = CategoryLinks(np.arange(0, 2 * NUM_ITEMS + 2, 2)[: NUM_ITEMS + 1], np.arange(2 * NUM_ITEMS) % 3, 3)


def with_categories() -> Network:
    network = small_network()
    network.embedding.use_categories(LINKS)
    assert network.embedding.category is not None
    torch.nn.init.normal_(network.embedding.category)
    return network.eval()


def test_vector_of_an_item_is_its_own_plus_the_mean_of_its_categories() -> None:
    network = with_categories()
    embedding = network.embedding
    assert embedding.category is not None
    for item in range(NUM_ITEMS):
        mean = embedding.category[LINKS.category[LINKS.offsets[item] : LINKS.offsets[item + 1]]].mean(dim=0)
        torch.testing.assert_close(embedding.vectors()[item], embedding.item[item] + mean)
    assert torch.equal(embedding.vectors()[NUM_ITEMS], embedding.item[NUM_ITEMS]), "the start token has none"


def test_item_without_categories_keeps_its_own_vector() -> None:
    network = small_network()
    network.embedding.use_categories(CategoryLinks(np.zeros(NUM_ITEMS + 1, dtype=np.int64), np.zeros(0, np.int64), 2))
    torch.testing.assert_close(network.embedding.vectors(), network.embedding.item)


def test_folded_network_says_the_same_and_has_no_categories_left() -> None:
    network = with_categories()
    folded = network.folded()
    assert "embedding.category" in network.state_dict()
    assert folded.state_dict().keys() == small_network().state_dict().keys()
    one, other = (NetworkScorer(each) for each in (network, folded))
    expected = one.scores(one.query(HISTORIES), 0, NUM_ITEMS)
    torch.testing.assert_close(other.scores(other.query(HISTORIES), 0, NUM_ITEMS), expected)
    assert folded.folded() is folded


def test_what_is_learned_of_an_item_moves_the_others_of_its_category() -> None:
    network = with_categories().train()
    windows = training_windows(HISTORIES, 10, np.random.default_rng(0))
    batch = make_batch(HISTORIES, windows, np.arange(len(windows.first)), NUM_ITEMS)
    network.objective(batch, Weights(noise=0.0)).loss.backward()
    assert network.embedding.category is not None
    assert network.embedding.category.grad is not None
    assert (network.embedding.category.grad.abs().sum(dim=1) > 0).all()


def test_categories_of_one_item_or_of_most_items_tell_nothing_and_are_left_out() -> None:
    categories = [["all", "rare"], ["all", "a", "a"], ["all", "a", "b"], ["all", "b"], []]
    table = pa.table({"title": pa.array([None] * 5, pa.string()), "category": categories})
    links = ItemTable(table).category_links()
    assert links.num_categories == 2
    assert np.diff(links.offsets).tolist() == [0, 1, 2, 1, 0]
    assert links.category.tolist() == [0, 0, 1, 1]


def test_categories_can_be_left_unused(shop_parts: tuple[LogPart, LogPart, LogPart]) -> None:
    train = shop_parts[0]
    assert VariationalAttention("tiny")._settings(train).links is not None
    assert VariationalAttention("tiny", training={"use_categories": False})._settings(train).links is None
