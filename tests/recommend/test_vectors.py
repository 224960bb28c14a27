"""Vectors that leave the model say what the model says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.terminal.invoke import refuse, succeed
from variseq.errors import InputError
from variseq.estimator import VariationalAttention, load
from variseq.model.posterior import NetworkScorer
from variseq.recommend import vectors as room


def matrix(table: pa.Table) -> np.ndarray:
    column = table["vector"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), -1)


def scores_of(model: VariationalAttention) -> np.ndarray:
    items = model.item_vectors()
    return matrix(model.user_vectors()) @ matrix(items).T + items["bias"].to_numpy()


def test_vectors_are_of_fixed_width_in_single_precision(fitted: VariationalAttention) -> None:
    items, users = fitted.item_vectors(), fitted.user_vectors()
    assert items.column_names == ["item_id", "title", "vector", "bias"]
    assert users.column_names == ["user_id", "vector"]
    assert items.schema.field("vector").type == users.schema.field("vector").type == pa.list_(pa.float32(), 16)
    assert items["item_id"].to_pylist() == fitted.vocabulary.items.to_pylist()
    assert users["user_id"].to_pylist() == fitted.vocabulary.users.to_pylist()
    assert items["title"][0].as_py() is not None


def test_cosine_of_item_vectors_is_the_score_of_similar_items(fitted: VariationalAttention) -> None:
    vectors = matrix(fitted.item_vectors())
    ids = fitted.vocabulary.items.to_pylist()
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = directions @ directions.T
    for row in fitted.similar_items(ids[:5], k=6).to_dict("records"):
        found = cosine[ids.index(row["item_id"]), ids.index(row["similar_item_id"])]
        assert found == pytest.approx(row["score"], abs=1e-5)


def test_inner_product_and_bias_are_the_logits_of_the_network(fitted: VariationalAttention) -> None:
    checkpoint = fitted.checkpoint
    logits = NetworkScorer(checkpoint.network).scores(checkpoint.histories)
    np.testing.assert_allclose(scores_of(fitted), logits.numpy(), rtol=1e-4, atol=1e-4)


def test_users_are_given_some_at_a_time_and_in_the_order_asked(
    fitted: VariationalAttention, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fitted.user_vectors()
    monkeypatch.setattr(room, "USERS_AT_ONCE", 7)
    np.testing.assert_allclose(matrix(fitted.user_vectors()), matrix(whole), rtol=1e-4, atol=1e-5)
    asked = fitted.vocabulary.users.to_pylist()[20:2:-1]
    some = fitted.user_vectors(asked)
    assert some["user_id"].to_pylist() == asked
    np.testing.assert_allclose(matrix(some), matrix(whole)[20:2:-1], rtol=1e-4, atol=1e-5)
    assert fitted.user_vectors([]).num_rows == 0


def test_unknown_users_and_a_run_without_histories_have_no_vectors(
    fitted: VariationalAttention, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="'nobody'"):
        fitted.user_vectors(["nobody"])
    with pytest.raises(InputError, match="Give a list of ids"):
        fitted.user_vectors("u001")
    fitted.save(tmp_path / "bare", with_histories=False)
    bare = load(tmp_path / "bare", device="cpu")
    with pytest.raises(InputError, match="without histories"):
        bare.user_vectors()
    with pytest.raises(InputError, match="without histories"):
        bare.vectors_to_file(tmp_path / "users.parquet", "users")
    assert bare.item_vectors() == fitted.item_vectors()
    assert [path.name for path in tmp_path.iterdir()] == ["bare"]


@pytest.mark.parametrize("of", ["items", "users"])
def test_file_holds_what_python_gives(
    fitted: VariationalAttention, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    monkeypatch.setattr(room, "USERS_AT_ONCE", 40)
    told: list[tuple[int, int]] = []
    num_rows = fitted.vectors_to_file(tmp_path / "out.parquet", of, lambda *rows: told.append(rows))
    expected = fitted.item_vectors() if of == "items" else fitted.user_vectors()
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.schema == expected.schema
    assert found.to_pylist() == expected.to_pylist()
    assert told[-1] == (num_rows, num_rows) == (len(expected), len(expected))
    assert (len(told) > 1) == (of == "users")


def test_command_writes_the_file_and_refuses_what_it_cannot(run_folder: Path, tmp_path: Path) -> None:
    done = succeed("vectors", run_folder, "--out", tmp_path / "items.parquet")
    assert "40 vectors of items" in done.out
    assert pq.read_table(tmp_path / "items.parquet").num_rows == 40
    succeed("vectors", run_folder, "--of", "users", "--out", tmp_path / "users.parquet")
    assert pq.read_table(tmp_path / "users.parquet").num_rows == 150
    refuse(".parquet", "vectors", run_folder, "--out", tmp_path / "items.csv")
    refuse("'items' and 'users'", "vectors", run_folder, "--of", "both", "--out", tmp_path / "both.parquet")
    refuse("cannot be written", "vectors", run_folder, "--out", tmp_path / "nowhere" / "items.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["items.parquet", "users.parquet"]
