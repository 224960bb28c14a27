"""Codes of item vectors: what they decode to, how large they are, and what they keep."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ranking.test_index import clustered
from variseq.ranking.item_codes import ItemCodes, int8_codes, product_codes
from variseq.ranking.softmax import Columns, Softmaxes

Arrays = dict[str, np.ndarray]


def coded(form: str, vectors: np.ndarray, mean_square: np.ndarray | None = None) -> ItemCodes:
    if form == "int8":
        return int8_codes(vectors)
    square = np.eye(vectors.shape[1]) if mean_square is None else mean_square
    return product_codes(vectors, square, np.full(len(vectors), 1 / len(vectors)))


def decoded(codes: ItemCodes) -> np.ndarray:
    """Every item alone, number by number."""
    rows = []
    for of_item in codes.codes.tolist():
        parts = [[one] for one in of_item]
        if codes.centroids is not None:
            parts = [codes.centroids[part, one] for part, one in enumerate(of_item)]
        rows.append(np.concatenate(parts).astype(np.float64) @ codes.basis)
    return np.array(rows)


@pytest.mark.parametrize("form", ["int8", "pq"])
@given(st.integers(1, 40), st.integers(2, 19), st.integers(0, 5))
def test_rows_and_logits_are_those_of_the_decoded_vectors(form: str, num_items: int, width: int, seed: int) -> None:
    codes = coded(form, clustered(num_items, width, seed))
    plain, preference = decoded(codes), clustered(3, width, seed + 1)
    rows = np.random.default_rng(seed).integers(num_items, size=(2, 5))
    np.testing.assert_allclose(codes[rows], plain[rows], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(codes[0 : num_items // 2], plain[: num_items // 2], rtol=1e-5, atol=1e-5)
    out = np.empty((3, num_items), dtype=np.float32)
    np.testing.assert_allclose(codes.logits(preference, out), preference @ plain.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", ["int8", "pq"])
def test_softmax_decodes_block_by_block_and_keeps_no_vectors(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("variseq.ranking.softmax.BLOCK_ITEMS", 64)
    monkeypatch.setattr("variseq.ranking.item_codes.DECODED_AT_ONCE", 24)
    codes, preference = coded(form, clustered(300)), clustered(6, seed=1).reshape(3, 2, 17)
    columns = Columns.whole(codes)
    assert all(np.shares_memory(block.vectors.codes, codes.codes) for block in columns.blocks)
    found, plain = Softmaxes(columns, preference), Softmaxes(Columns.whole(decoded(codes).astype("f4")), preference)
    np.testing.assert_allclose(found.log_mass, plain.log_mass, rtol=1e-5)


@pytest.mark.parametrize(("form", "factor"), [("int8", 3.9), ("pq", 12.5)])
def test_codes_are_so_much_smaller_than_the_vectors(form: str, factor: float) -> None:
    vectors = clustered(20_000, 17)
    assert coded(form, vectors).nbytes * factor < vectors.nbytes


def test_number_of_eight_bits_is_at_most_half_a_step_off() -> None:
    vectors = clustered(500)
    step = np.abs(vectors).max(axis=0) / 127
    assert (np.abs(int8_codes(vectors)[0:500] - vectors) <= 0.501 * step).all()


def test_product_codes_of_no_more_items_than_centroids_lose_nothing() -> None:
    vectors = clustered(200, 11)
    np.testing.assert_allclose(coded("pq", vectors)[0:200], vectors, atol=1e-4)


def test_errors_of_product_codes_are_where_preferences_do_not_look() -> None:
    vectors, generator = (
        np.random.default_rng(0).standard_normal((4000, 17)).astype(np.float32),
        np.random.default_rng(1),
    )
    preference = generator.standard_normal((500, 17)) * np.linspace(0.1, 3, 17)
    mean_square = preference.T @ preference / 500
    errors = [coded("pq", vectors, square)[0:4000] - vectors for square in (mean_square, None)]
    of_logits, of_plain = (np.square(error @ preference.T).mean() for error in errors)
    assert of_logits < 0.8 * of_plain
    np.testing.assert_allclose(of_logits, np.einsum("ij,jk,ik->i", errors[0], mean_square, errors[0]).mean(), rtol=1e-4)


DAMAGES: dict[str, Callable[[Arrays], Arrays]] = {
    "a part less": lambda tables: {"centroids": tables["centroids"][:-1]},
    "centroids less": lambda tables: {"centroids": tables["centroids"][:, :-1]},
    "narrower centroids": lambda tables: {"centroids": tables["centroids"][..., :-1]},
    "no centroids": lambda tables: {"centroids": None},
    "another basis": lambda tables: {"basis": tables["basis"][:-1]},
    "no number": lambda tables: {"basis": np.full_like(tables["basis"], np.nan)},
}


@pytest.mark.parametrize("name", DAMAGES)
def test_tables_that_do_not_fit_together_are_refused(name: str) -> None:
    tables = coded("pq", clustered(600)).tensors()
    changed = {key: one for key, one in {**tables, **DAMAGES[name](tables)}.items() if one is not None}
    assert len(ItemCodes.of_tensors(tables)) == 600
    with pytest.raises(ValueError, match=r"fit together|beyond"):
        ItemCodes.of_tensors(changed)
