from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from variseq.errors import InputError
from variseq.estimator import VariationalAttention
from variseq.ranking.options import id_list

COLUMNS = [
    *("user_id", "item_id", "rank", "score", "probability", "probability_low", "probability_high", "title"),
    *("source", "reasons", "fallback", "uncertainty_total", "uncertainty_aleatoric", "uncertainty_epistemic"),
]


@pytest.fixture(scope="module")
def user_ids(fitted: VariationalAttention) -> list[str]:
    return fitted.checkpoint.vocabulary.users.to_pylist()


@pytest.fixture(scope="module")
def item_ids(fitted: VariationalAttention) -> list[str]:
    return fitted.checkpoint.vocabulary.items.to_pylist()


def items_of(model: VariationalAttention, user: str) -> list[str]:
    checkpoint = model.checkpoint
    (position,) = checkpoint.vocabulary.user_positions([user])
    return checkpoint.vocabulary.item_ids(checkpoint.histories.history(int(position)).item)


def test_users_get_ranked_items_that_they_have_not_seen(fitted: VariationalAttention, user_ids: list[str]) -> None:
    asked = user_ids[5:8]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fitted.recommend(users=asked, k=4).to_pandas()
    assert list(found.columns) == COLUMNS
    assert found["user_id"].tolist() == [user for user in asked for _ in range(4)]
    assert found["rank"].tolist() == [1, 2, 3, 4] * 3
    assert found["fallback"].isna().all()
    for user, rows in found.groupby("user_id"):
        assert not set(rows["item_id"]) & set(items_of(fitted, str(user)))
        assert rows["score"].is_monotonic_decreasing
        assert rows["probability"].is_monotonic_decreasing
        assert 0 < rows["probability"].sum() < 1
    with_seen = fitted.recommend(users=user_ids, k=5, exclude_seen=False).to_dicts(["user_id", "item_id"])
    assert any(one["item_id"] in items_of(fitted, one["user_id"]) for one in with_seen)


def test_titles_and_categories_are_those_of_the_items_file(
    fitted: VariationalAttention, shop: object, user_ids: list[str]
) -> None:
    table = shop.items().to_pandas().set_index("item_id")
    found = fitted.recommend(users=user_ids[:5], k=3, categories=["Books"]).to_pandas()
    assert found["title"].tolist() == table.loc[found["item_id"], "title"].tolist()
    assert set(table.loc[found["item_id"], "category"]) == {"Books"}


def test_only_exclude_and_category_limit_what_is_recommended(fitted: VariationalAttention, item_ids: list[str]) -> None:
    only = item_ids[:6]
    found = fitted.recommend(history=[item_ids[10]], k=6, candidates=only, exclude=[only[0], "not an item"]).to_pandas()
    assert set(found["item_id"]) == set(only[1:])
    few = fitted.recommend(history=item_ids[:2], k=5, candidates=item_ids[:3]).to_pandas()
    assert few["item_id"].tolist() == [item_ids[2]], "fewer candidates than k give fewer rows"
    both = fitted.recommend(history=[item_ids[10]], k=10, categories=["Books", "Toys"]).to_pandas()
    one = fitted.recommend(history=[item_ids[10]], k=10, categories=["Toys"]).to_pandas()
    assert set(one["item_id"]) < set(both["item_id"]) | set(one["item_id"])
    assert len(both) == 10


def test_unknown_user_gets_a_labelled_fallback(fitted: VariationalAttention, user_ids: list[str]) -> None:
    found = fitted.recommend(users=[user_ids[0], "nobody"], k=2).to_pandas()
    assert found["user_id"].tolist() == [user_ids[0]] * 2 + ["nobody"] * 2
    assert found["fallback"].isna().tolist() == [True, True, False, False]
    assert all(source.startswith("unknown user") for source in found["fallback"].tolist()[2:])
    assert [len(reasons) for reasons in found["reasons"][2:]] == [0, 0]


def test_unknown_items_of_a_history_are_left_out_and_warned_of(
    fitted: VariationalAttention, item_ids: list[str]
) -> None:
    with pytest.warns(UserWarning, match="2 of 3 items of the history are not in the catalog.*'x', 'y'"):
        found = fitted.recommend(history=["x", item_ids[3], "y"], k=3).to_pandas()
    expected = fitted.recommend(history=[item_ids[3]], k=3).to_pandas()
    pd.testing.assert_frame_equal(found, expected)
    assert found["fallback"].isna().all()


def test_history_without_a_known_item_gets_a_labelled_fallback(fitted: VariationalAttention) -> None:
    with pytest.warns(UserWarning, match="1 of 1 items"):
        found = fitted.recommend(history=["x"], k=3).to_pandas()
    assert all(source.startswith("no known item") for source in found["fallback"])
    empty = fitted.recommend(history=[], k=3).to_pandas()
    assert empty["item_id"].tolist() == found["item_id"].tolist()


def test_reasons_are_titles_of_the_own_history(fitted: VariationalAttention, user_ids: list[str]) -> None:
    checkpoint = fitted.checkpoint
    found = fitted.recommend(users=user_ids[:20], k=1).to_pandas()
    for user, because in zip(found["user_id"], found["reasons"], strict=True):
        positions = checkpoint.vocabulary.item_positions(items_of(fitted, user))
        assert len(because) <= 3
        assert set(because) <= set(checkpoint.items.titles(positions))


@pytest.mark.parametrize("k", [0, -1, 41])
def test_impossible_k_is_refused(fitted: VariationalAttention, k: int) -> None:
    with pytest.raises(InputError, match="Allowed: whole numbers from 1"):
        fitted.recommend(history=[], k=k)


@pytest.mark.parametrize("argument", ["users", "history", "candidates", "exclude", "categories"])
def test_single_id_in_place_of_a_list_is_refused(fitted: VariationalAttention, argument: str) -> None:
    ask = {argument: "i09"} if argument in ("users", "history") else {"history": [], argument: "i09"}
    with pytest.raises(InputError, match=f"{argument}='i09' is one value. Give a list"):
        fitted.recommend(**ask)


def test_ids_may_be_a_list_a_tuple_or_an_array(user_ids: list[str]) -> None:
    asked = user_ids[3:6]
    for collection in (asked, tuple(asked), np.array(asked, dtype=object), pd.Series(asked, index=[7, 8, 9])):
        assert id_list(collection, "users") == asked
    with pytest.raises(InputError, match="history=7 is one value"):
        id_list(7, "history")


def test_wrong_wishes_are_refused_with_what_is_allowed(fitted: VariationalAttention, user_ids: list[str]) -> None:
    with pytest.raises(InputError, match="candidates names items that are not in the catalog: 'nix'"):
        fitted.recommend(history=[], candidates=["nix"]).to_pandas()
    with pytest.raises(InputError, match=r"No item has the category 'Cars'. There are: Books, "):
        fitted.recommend(history=[], categories=["Cars"]).to_pandas()
    with pytest.raises(InputError, match="either users or a history"):
        fitted.recommend(users=user_ids[:1], history=[]).to_pandas()
    with pytest.raises(InputError, match="list of users is empty"):
        fitted.recommend(users=[]).to_pandas()
    with pytest.raises(InputError, match="ids of this data are text"):
        fitted.recommend(users=[3]).to_pandas()


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_file_of_all_users_holds_what_recommend_says(
    fitted: VariationalAttention, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    expected = fitted.recommend(fitted.vocabulary.users.to_pylist(), k=3).to_pandas()
    monkeypatch.setattr("variseq.ranking.known_users.USERS_AT_ONCE", 64)
    path = tmp_path / f"recs.{ending}"
    assert fitted.recommend_to_file(path, k=3) == len(expected) == 3 * 150
    found = pd.read_parquet(path) if ending == "parquet" else pd.read_csv(path)
    for column in ("user_id", "item_id", "rank", "title"):
        assert found[column].tolist() == expected[column].tolist()
    for column in ("score", "probability"):
        np.testing.assert_allclose(found[column], expected[column], rtol=1e-4)
    reasons = found["reasons"].fillna("") if ending == "csv" else found["reasons"].map("; ".join)
    assert reasons.tolist() == expected["reasons"].map("; ".join).tolist()


def test_similar_items_are_others_by_falling_cosine(fitted: VariationalAttention, item_ids: list[str]) -> None:
    asked = item_ids[4:6]
    found = fitted.similar_items(asked, k=5)
    assert found["item_id"].tolist() == [item for item in asked for _ in range(5)]
    assert (found["item_id"] != found["similar_item_id"]).all()
    vectors = fitted.checkpoint.network.item_vectors.detach().numpy()
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for item, rows in found.groupby("item_id"):
        cosine = vectors @ vectors[item_ids.index(item)]
        cosine[item_ids.index(item)] = -np.inf
        best = np.argsort(-cosine)[:5]
        assert rows["similar_item_id"].tolist() == [item_ids[place] for place in best]
        np.testing.assert_allclose(rows["score"], cosine[best], rtol=1e-4)


def test_similar_items_refuse_what_they_cannot_answer(fitted: VariationalAttention, item_ids: list[str]) -> None:
    assert len(fitted.similar_items(item_ids[:1], k=39)) == 39
    with pytest.raises(InputError, match="from 1 to 39, the number of other items"):
        fitted.similar_items(item_ids[:1], k=40)
    with pytest.raises(InputError, match="not in the catalog: 'nix'"):
        fitted.similar_items(["nix"])
    with pytest.raises(InputError, match="Give a list"):
        fitted.similar_items("i01")
