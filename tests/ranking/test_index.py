from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("faiss")

from variseq.errors import CheckpointError
from variseq.inference.engine import load_engine
from variseq.ranking import index as room
from variseq.ranking import selection
from variseq.ranking.calibration import GatingNetwork
from variseq.ranking.engine import Answer, Engine, Request
from variseq.ranking.index import ItemIndex, build_index
from variseq.ranking.item_codes import Compression
from variseq.ranking.options import RecommendOptions

pytestmark = pytest.mark.unchecked


def clustered(num_items: int, hidden_size: int = 17, seed: int = 0) -> np.ndarray:
    """Vectors as training leaves them: around a few directions, of different lengths."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((20, hidden_size))
    vectors = centres[generator.integers(20, size=num_items)] + 0.6 * generator.standard_normal(
        (num_items, hidden_size)
    )
    return (0.5 * vectors).astype(np.float32)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> ItemIndex:
    vectors, path = clustered(6000), tmp_path_factory.mktemp("index") / "index.faiss"
    build_index(vectors, path)
    return ItemIndex(path, vectors)


def test_the_highest_items_are_found_nearly_always(large: ItemIndex) -> None:
    query = clustered(50, seed=1)
    exact = np.argsort(-(query @ large.vectors.T), axis=1)[:, :10]
    found = large.best(query)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact.tolist(), found.tolist(), strict=True)])
    assert recall > 0.97


def test_removed_items_are_not_found_and_take_no_place_of_others(large: ItemIndex) -> None:
    query, added = clustered(50, seed=1), np.zeros((3, 17), dtype=np.float32)
    removed = np.unique(large.best(query)[:, :100])
    changed = large.changed(np.concatenate([large.vectors, added]), removed)
    found = changed.best(query)
    assert found.shape[1] == room.NUM_CANDIDATES
    assert not np.isin(found, removed).any()
    assert np.isin(large.best(query), removed).any()
    row = np.repeat(np.arange(50), 3)
    columns = changed.columns(row, np.tile(np.arange(6000, 6003), 50), 50)
    counts = sum(block.counts.sum(axis=1) for block in columns.blocks)
    np.testing.assert_allclose(counts, 6003, rtol=1e-5)


@pytest.mark.parametrize(("compress", "found"), [("int8", 0.95), ("pq", 0.6)])
def test_lists_of_codes_find_most_of_the_highest_items(compress: Compression, found: float, tmp_path: Path) -> None:
    vectors, query = clustered(6000), clustered(50, seed=1)
    build_index(vectors, tmp_path / "index.faiss", compress)
    candidates = ItemIndex(tmp_path / "index.faiss", vectors).best(query)
    exact = np.argsort(-(query @ vectors.T), axis=1)[:, :10]
    assert np.mean([np.isin(one, other).mean() for one, other in zip(exact, candidates, strict=True)]) > found


def test_sum_over_all_items_is_estimated_from_few(large: ItemIndex) -> None:
    query = clustered(20, seed=2)
    found = large.best(query)
    row = np.repeat(np.arange(20), found.shape[1])
    columns = large.columns(row, found.ravel(), 20)
    assert columns.num_columns < 3000
    listed, rest = columns.blocks
    np.testing.assert_allclose(rest.counts.sum(axis=1) + listed.counts.sum(axis=1), 6000, rtol=1e-5)
    out = (np.empty((20, 1, block.span.stop - block.span.start), dtype=np.float32) for block in (listed, rest))
    of_listed, of_rest = (np.exp(block.logits(query[:, None], next(out))[:, 0]) for block in (listed, rest))
    estimated = np.vecdot(of_listed, listed.counts) + np.vecdot(of_rest, rest.counts)
    assert np.abs(np.log(estimated) - np.log(np.exp(query @ large.vectors.T).sum(axis=1))).max() < 0.05


def with_index(engine: Engine, folder: Path, candidates: int, sampled: int, patch: pytest.MonkeyPatch) -> None:
    """Gives the engine of the small shop an index, as if its catalog were large."""
    patch.setattr(room, "NUM_CANDIDATES", candidates)
    patch.setattr(room, "NUM_SAMPLED", sampled)
    patch.setattr(room, "NUM_TRENDING", 8)
    vectors = engine.model.tables.vectors
    build_index(vectors, folder / "index.faiss")
    engine.index = ItemIndex(folder / "index.faiss", vectors)


OPTIONS = [
    RecommendOptions(k=5),
    RecommendOptions(k=5, strategy="thompson", seed=2),
    RecommendOptions(k=3, diversity=0.3),
    RecommendOptions(k=4, reasons=False, exclude_seen=False),
]


def answers(engine: Engine, options: RecommendOptions) -> list[Answer]:
    ids = engine.catalog.ids
    asked = [(engine.given(ids[first : first + 4]), Request(options)) for first in range(6)]
    found = engine.answer(asked)
    assert all(isinstance(one, Answer) for one in found)
    return [one for one in found if isinstance(one, Answer)]


@pytest.mark.parametrize("options", OPTIONS)
def test_where_the_sample_holds_every_item_nothing_is_lost(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: RecommendOptions
) -> None:
    # A spread list is chosen from a pool, which is not to be larger than the candidates.
    monkeypatch.setattr(selection, "MIN_POOL", 20)
    engine = load_engine(bundle_folder)
    exact = answers(engine, options)
    with_index(engine, tmp_path, candidates=36, sampled=40, patch=monkeypatch)
    for one, other in zip(exact, answers(engine, options), strict=True):
        assert (one.approximate, other.approximate) == (False, True)
        assert one.recommendations.item_id == other.recommendations.item_id
        for name in ("probability", "probability_low", "probability_high"):
            found = getattr(other.recommendations, name)
            np.testing.assert_allclose(found, getattr(one.recommendations, name), rtol=1e-3)
        assert one.recommendations.reasons == other.recommendations.reasons
        assert other.uncertainty == pytest.approx(one.uncertainty, abs=1e-3)


@pytest.mark.parametrize("options", OPTIONS)
def test_an_answer_does_not_depend_on_what_is_asked_together_with_it(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: RecommendOptions
) -> None:
    engine = load_engine(bundle_folder)
    with_index(engine, tmp_path, candidates=12, sampled=15, patch=monkeypatch)
    ids = engine.catalog.ids
    histories = [engine.given(ids[first : first + length]) for first, length in ((0, 0), (3, 1), (5, 9))]
    together = engine.answer([(history, Request(options)) for history in histories])
    for history, one in zip(histories, together, strict=True):
        (alone,) = engine.answer([(history, Request(options))])
        assert isinstance(one, Answer)
        assert isinstance(alone, Answer)
        assert one.recommendations.item_id == alone.recommendations.item_id
        assert one.recommendations.reasons == alone.recommendations.reasons
        found = one.recommendations.probability
        np.testing.assert_allclose(found, alone.recommendations.probability, rtol=1e-4)


def test_what_is_popular_of_late_is_found_however_far_its_vectors_lie(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load_engine(bundle_folder)
    model = engine.model
    model.calibration = replace(model.calibration, gate=GatingNetwork(trend=(50.0, 0.0, 0.0)))
    exact = answers(engine, RecommendOptions(k=3))
    with_index(engine, tmp_path, candidates=1, sampled=15, patch=monkeypatch)
    for one, other in zip(exact, answers(engine, RecommendOptions(k=3)), strict=True):
        assert one.recommendations.item_id == other.recommendations.item_id
        assert other.recommendations.to_dicts()[0]["probability"] > 0.01


def test_probabilities_are_estimated_from_a_sample_of_the_rest(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load_engine(bundle_folder)
    exact = answers(engine, RecommendOptions(k=3))
    with_index(engine, tmp_path, candidates=12, sampled=15, patch=monkeypatch)
    estimated = answers(engine, RecommendOptions(k=3))
    error = [
        abs(np.log(b["probability"] / a["probability"]))
        for one, other in zip(exact, estimated, strict=True)
        for a, b in zip(one.recommendations.to_dicts(), other.recommendations.to_dicts(), strict=True)
        if a["item_id"] == b["item_id"]
    ]
    assert len(error) >= 14
    assert float(np.mean(error)) < 0.25


@pytest.mark.parametrize(
    "options",
    [
        RecommendOptions(conformal_level=0.8),
        RecommendOptions(candidates=["i01", "i02", "i03"], k=3),
        RecommendOptions(categories=["c0"], k=3),
    ],
)
def test_what_an_index_could_miss_is_looked_for_exactly(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: RecommendOptions
) -> None:
    engine = load_engine(bundle_folder)
    if options.categories:
        options = RecommendOptions(categories=[sorted(engine.catalog.members)[0]], k=3)
    if options.candidates:
        options = RecommendOptions(candidates=engine.catalog.ids[-3:], k=3)
    exact = answers(engine, options)
    with_index(engine, tmp_path, candidates=12, sampled=15, patch=monkeypatch)
    monkeypatch.setattr("variseq.ranking.engine.MOST_EXCLUDED", 5)
    for one, other in zip(exact, answers(engine, options), strict=True):
        assert not other.approximate
        assert one.recommendations.item_id == other.recommendations.item_id


def test_index_of_another_model_is_refused(tmp_path: Path) -> None:
    build_index(clustered(400), tmp_path / "index.faiss")
    with pytest.raises(CheckpointError, match="of another model"):
        ItemIndex(tmp_path / "index.faiss", clustered(401))
    (tmp_path / "index.faiss").write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointError, match="is damaged"):
        ItemIndex(tmp_path / "index.faiss", clustered(401))
