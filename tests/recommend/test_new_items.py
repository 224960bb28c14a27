from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.model.some_networks import NUM_ITEMS, small_network
from variseq.content.item_content import ItemContent
from variseq.errors import CheckpointError, InputError
from variseq.events.items import CategoryLinks, ItemTable
from variseq.events.vocabulary import Vocabulary
from variseq.model.network import Network
from variseq.ranking.calibration import Calibration
from variseq.ranking.catalog import Catalog
from variseq.ranking.content_table import DECAY, ContentTable
from variseq.ranking.mixture import MixtureModel
from variseq.ranking.new_items import NewItemForecast, NewItemVectors
from variseq.ranking.selection import Constraints, Selector
from variseq.ranking.softmax import Columns
from variseq.recommend.network_model import CONTENT as CONTENT_NAME
from variseq.recommend.network_model import count_events, mixture_model
from variseq.recommend.new_items import MIN_TARGETS, fit_new_items, rate_of_new_items
from variseq.sequences.histories import Histories
from variseq.training.config import TrainingConfig
from variseq.training.new_items import RIDGES, folded_with_new_items, ridge

NEW = (2, 7)
KNOWN_ITEMS = [item for item in range(NUM_ITEMS) if item not in NEW]
GENERATOR = np.random.default_rng(0)
KNOWN = Histories.of_items([GENERATOR.choice(KNOWN_ITEMS, size=size).tolist() for size in (5, 9, 2, 14, 3, 8)])
WITHOUT = Histories.of_items([[], [], []])
LINKS = CategoryLinks(np.arange(NUM_ITEMS + 1), np.arange(NUM_ITEMS) % 3, ("c0", "c1", "c2"))
CONTENT = GENERATOR.normal(size=(NUM_ITEMS, 5)).astype(np.float32)
ITEMS = ItemTable(
    pa.table(
        {
            "title": pa.array([f"{['red', 'green', 'blue'][item % 3]} no {item}" for item in range(NUM_ITEMS)]),
            "category": [[f"c{item % 3}"] for item in range(NUM_ITEMS)],
        }
    )
)


def with_content() -> Network:
    network = small_network()
    network.embedding.use_categories(LINKS)
    network.embedding.use_content(CONTENT)
    torch.nn.init.normal_(network.embedding.category)
    torch.nn.init.normal_(network.embedding.content_map)
    network.set_known(KNOWN)
    return network.eval()


def model_with_new(num_samples: int = 0) -> MixtureModel:
    content = {CONTENT_NAME: torch.from_numpy(ContentTable.of(CONTENT).codes)}
    return mixture_model(small_network(), count_events(NUM_ITEMS, KNOWN) | content, Calibration(num_samples))


def test_item_vector_is_the_sum_of_its_own_its_categories_and_its_content() -> None:
    embedding = with_content().embedding
    for item in range(NUM_ITEMS):
        shared = embedding.category[item % 3] + torch.from_numpy(CONTENT[item]) @ embedding.content_map
        own = 0 if item in NEW else embedding.item[item]
        torch.testing.assert_close(embedding.vectors()[item], own + shared)


def test_folded_network_keeps_the_vectors_of_items_with_events_and_fits_those_without() -> None:
    network = with_content()
    folded, new_items = folded_with_new_items(network, KNOWN, TrainingConfig(batch_tokens=16))
    torch.testing.assert_close(folded.item_vectors[KNOWN_ITEMS], network.folded().item_vectors[KNOWN_ITEMS])
    assert new_items is not None
    expected = CONTENT @ new_items.content + new_items.category[np.arange(NUM_ITEMS) % 3]
    np.testing.assert_allclose(folded.item_vectors.detach().numpy()[list(NEW)], expected[list(NEW)], rtol=1e-4)
    assert not np.allclose(expected[list(NEW)], network.folded().item_vectors.detach().numpy()[list(NEW)])


def test_part_of_the_content_can_be_taken_out_of_folded_vectors() -> None:
    network = with_content()
    folded, new_items = folded_with_new_items(network, KNOWN, TrainingConfig(batch_tokens=16))
    assert new_items is not None
    part = slice(1, 3)
    left = folded.item_vectors.detach().numpy() - CONTENT[:, part] @ new_items.content_of_known[part]
    with torch.no_grad():
        network.embedding.content_map[part] = 0
    expected = network.folded().item_vectors.detach().numpy()
    np.testing.assert_allclose(left[KNOWN_ITEMS], expected[KNOWN_ITEMS], atol=1e-5)


def test_network_without_categories_and_content_is_left_as_it_is() -> None:
    network = small_network()
    assert folded_with_new_items(network, KNOWN, TrainingConfig()) == (network, None)


def test_new_items_have_the_counted_share_together() -> None:
    model, histories = model_with_new(), KNOWN.rows(np.arange(4))
    calibration = fit_new_items(model, histories, np.array([2, 0, 1, 3]), KNOWN)
    assert calibration.new is not None
    assert calibration.new.share == (1 + 0.5) / (4 + 1)
    tuned = MixtureModel(model.encoder, model.tables, calibration)
    p = tuned.distribution(tuned.encode(histories), histories).probabilities()
    np.testing.assert_allclose(p[:, list(NEW)].sum(axis=1), calibration.new.share, rtol=1e-5)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-5)


def test_what_the_targets_follow_is_trusted() -> None:
    model = model_with_new()
    histories = KNOWN.rows(np.tile(np.arange(6), 2 * MIN_TARGETS))
    logits = model.encoder.encode(histories, model.noise(0)).preference[0] @ model.tables.vectors[list(NEW), :-1].T
    logits += model.tables.vectors[list(NEW), -1]
    likeness, _ = model.like(histories)
    targets = {
        "scale": np.array(NEW)[logits.argmax(axis=1)],
        "likeness": np.array(NEW)[likeness.argmax(axis=1)],
        "nothing": np.random.default_rng(0).choice(NEW, len(histories)),
    }
    fits = {name: fit_new_items(model, histories, target, KNOWN).new for name, target in targets.items()}
    trust = {name: ((1 - one.uniform) * one.scale, (1 - one.uniform) * one.likeness) for name, one in fits.items()}
    assert trust["scale"][0] > trust["nothing"][0]
    assert trust["likeness"][1] > trust["nothing"][1]


def test_rate_is_counted_in_the_latest_tenth_of_the_events() -> None:
    item = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 5, 6], dtype=np.int32)
    plain = Histories.of_items([item.tolist()])
    timed = replace(plain, timestamp=np.arange(20, dtype=np.int64) ** 2 * 10**9)
    assert rate_of_new_items(timed, NUM_ITEMS) == pytest.approx(1 / 2)
    assert 0 < rate_of_new_items(replace(plain, timestamp=np.zeros(20, dtype=np.int64)), NUM_ITEMS) < 1


def test_history_of_content_is_the_decayed_mean_of_directions() -> None:
    table = ContentTable.of(CONTENT)
    found = table.of_histories(KNOWN)
    for row in range(len(KNOWN)):
        items = KNOWN.history(row).item
        weight = DECAY ** np.arange(len(items))[::-1]
        direction = CONTENT[items] / np.linalg.norm(CONTENT[items], axis=1, keepdims=True)
        np.testing.assert_allclose(found[row], weight @ direction / weight.sum(), atol=0.01)
    assert not ContentTable.of(CONTENT).of_histories(WITHOUT).any()


@given(st.integers(0, 1000), st.floats(0, 2), st.floats(0, 20), st.floats(0, 1))
def test_forecast_of_new_items_sums_to_one(seed: int, scale: float, likeness: float, uniform: float) -> None:
    generator = np.random.default_rng(seed)
    log_p, like = generator.normal(scale=30, size=(3, 2, 5)), generator.uniform(-1, 1, size=(3, 5))
    p = NewItemForecast(0.1, scale, likeness, uniform).of_logits(log_p, like)
    np.testing.assert_allclose(p.sum(axis=-1), 1.0)
    assert (p >= 0).all()


@given(st.integers(0, 1000), st.integers(1, 8), st.integers(0, 8))
def test_reserved_ranks_go_to_the_best_new_items_and_the_rest_stays_in_order(seed: int, k: int, num_new: int) -> None:
    generator = np.random.default_rng(seed)
    p = generator.random((1, NUM_ITEMS)).astype(np.float32)
    is_new, num_new = generator.random(NUM_ITEMS) < 0.3, min(num_new, k)
    vectors = np.ones((NUM_ITEMS, 3), dtype=np.float32)
    columns = Columns.whole(vectors)
    constraints = Constraints(NUM_ITEMS, k, num_new=num_new, is_new=is_new)
    found = Selector.of(WITHOUT.rows(np.array([0])), [constraints], columns).best(p, 0.0, vectors)[0][0].tolist()
    order = np.argsort(-p[0], kind="stable").tolist()
    new, top = [item for item in order if is_new[item]], order[:k]
    wanted = max(min(num_new, len(new)), sum(is_new[item] for item in top))
    known = [item for item in order if not is_new[item]][: k - wanted]
    assert sorted(found) == sorted([*known, *new[:wanted]])
    assert [item for item in found if item in top] == [item for item in top if item in found]


def test_map_of_new_items_comes_back_from_its_tensors() -> None:
    encoder = ItemContent.fit(ITEMS.table, np.ones(NUM_ITEMS, dtype=bool))
    assert encoder is not None
    category = GENERATOR.normal(size=(3, 4)).astype(np.float32)
    ones = np.ones((encoder.dim, 4), dtype=np.float32)
    whole = NewItemVectors(ones, category, ("c0", "c1", "c2"), encoder, 2 * ones)
    again = NewItemVectors.of_tensors(whole.tensors())
    assert again is not None
    np.testing.assert_array_equal(again.of(ITEMS)[0], whole.of(ITEMS)[0])
    np.testing.assert_array_equal(again.content_of_known, 2 * ones)
    without = replace(whole, content=None, encoder=None, content_of_known=None)
    only_categories = NewItemVectors.of_tensors(without.tensors())
    assert only_categories is not None
    np.testing.assert_array_equal(only_categories.of(ITEMS)[0], category[np.arange(NUM_ITEMS) % 3])
    assert NewItemVectors.of_tensors({}) is None
    with pytest.raises(CheckpointError, match="new items"):
        NewItemVectors.of_tensors(whole.tensors() | {"new_items.content": np.ones((1, 4), dtype=np.float32)})


def test_similar_by_content_is_the_cosine_of_content_and_both_is_the_mean() -> None:
    model = model_with_new()
    catalog = Catalog(Vocabulary(pa.array(["u"]), pa.array(range(NUM_ITEMS)), ("event",)), ITEMS, model.tables)
    direction = CONTENT / np.linalg.norm(CONTENT, axis=1, keepdims=True)
    by_content = {one["item_id"]: one["score"] for one in catalog.similar(3, NUM_ITEMS - 1, "content")}
    for item, score in by_content.items():
        assert score == pytest.approx(float(direction[item] @ direction[3]), abs=0.02)
    by_events = {one["item_id"]: one["score"] for one in catalog.similar(3, NUM_ITEMS - 1)}
    for one in catalog.similar(3, NUM_ITEMS - 1, "both"):
        assert one["score"] == pytest.approx((by_content[one["item_id"]] + by_events[one["item_id"]]) / 2)
    with pytest.raises(InputError, match="Allowed: 'events', 'content', 'both'"):
        catalog.similar(3, 2, "title")


def test_items_like_a_query_are_boosted_and_a_model_without_text_says_so() -> None:
    encoder = ItemContent.fit(ITEMS.table, np.ones(NUM_ITEMS, dtype=bool))
    assert encoder is not None
    tables = replace(model_with_new().tables, content=ContentTable.of(encoder.encode(ITEMS.table)))
    catalog = Catalog(Vocabulary(pa.array(["u"]), pa.array(range(NUM_ITEMS)), ("event",)), ITEMS, tables)
    boost = catalog.query_boost("green", encoder)
    assert {int(item) % 3 for item in np.argsort(-boost)[: NUM_ITEMS // 3]} == {1}
    with pytest.raises(InputError, match="no word"):
        catalog.query_boost("東京", encoder)
    with pytest.raises(InputError, match="text"):
        catalog.query_boost("green", None)
    with pytest.raises(InputError, match="titles, descriptions or vectors"):
        Catalog(catalog.vocabulary, ITEMS, replace(tables, content=None)).query_boost("green", encoder)


def test_ridge_is_the_one_with_the_least_error_on_items_left_out() -> None:
    generator = np.random.default_rng(0)
    features, noise = generator.normal(size=(30, 8)), generator.normal(size=(30, 3))
    vectors = features @ generator.normal(size=(8, 3)) + 3 * noise
    found = ridge(torch.from_numpy(features), torch.from_numpy(vectors)).numpy()

    def fit(rows: np.ndarray, penalty: float) -> np.ndarray:
        return np.linalg.solve(
            features[rows].T @ features[rows] + penalty * np.eye(8), features[rows].T @ vectors[rows]
        )

    every = np.arange(30)
    errors = {
        penalty: sum(((vectors[row] - features[row] @ fit(every != row, penalty)) ** 2).sum() for row in every)
        for penalty in RIDGES
    }
    np.testing.assert_allclose(found, fit(every >= 0, min(errors, key=errors.get)), rtol=1e-8)


@given(st.integers(0, 1000), st.integers(2, 8), st.integers(0, 8), st.integers(1, 8))
def test_pin_keeps_its_rank_beside_reserved_ranks(seed: int, k: int, num_new: int, rank: int) -> None:
    generator = np.random.default_rng(seed)
    p = generator.random((1, NUM_ITEMS)).astype(np.float32)
    is_new, num_new, rank, pinned = generator.random(NUM_ITEMS) < 0.4, min(num_new, k), min(rank, k), 5
    vectors = np.ones((NUM_ITEMS, 3), dtype=np.float32)
    constraints = Constraints(NUM_ITEMS, k, pins=((rank - 1, pinned),), num_new=num_new, is_new=is_new)
    selector = Selector.of(WITHOUT.rows(np.array([0])), [constraints], Columns.whole(vectors))
    found = selector.best(p, 0.0, vectors)[0][0].tolist()
    assert found[rank - 1] == pinned
    assert len(set(found)) == k
    possible = min(num_new, int(is_new.sum()), k if is_new[pinned] else k - 1)
    assert sum(is_new[item] for item in found) >= possible
