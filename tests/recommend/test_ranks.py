from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from variseq.errors import InputError
from variseq.estimator import VariationalAttention
from variseq.pipeline import forecast_of
from variseq.recommend import ranks as room
from variseq.recommend.manner import Manner
from variseq.recommend.ranks import ranks
from variseq.recommend.recommender import rank_items
from variseq.recommend.wishes import Wish
from variseq.sequences.histories import Histories

COLUMNS = ["user_id", "item_id", "rank", "score", "title", "source"]


def known(fitted: VariationalAttention) -> Histories:
    assert fitted.checkpoint is not None
    assert fitted.checkpoint.histories is not None
    return fitted.checkpoint.histories


@pytest.mark.parametrize("tile_items", [7, 1000])
@pytest.mark.parametrize(
    "wished", ["nothing", "seen items too", "some items", "a boost", "a vast boost", "more than there is"]
)
def test_ranks_are_those_of_the_whole_way_at_the_posterior_mean(
    fitted: VariationalAttention, monkeypatch: pytest.MonkeyPatch, tile_items: int, wished: str
) -> None:
    num_items = fitted.vocabulary.num_items
    wish = Wish(k=5, num_items=num_items, exclude_seen=True, repeat_share=0.0)
    some = np.arange(num_items) % 3 == 0
    wish = {
        "nothing": wish,
        "seen items too": replace(wish, exclude_seen=False),
        "some items": replace(wish, candidates=some),
        "a boost": replace(wish, log_boost=np.where(some, 1.0, 0.0).astype(np.float32)),
        "a vast boost": replace(wish, log_boost=np.where(some, 700.0, -700.0).astype(np.float32)),
        "more than there is": replace(wish, k=num_items),
    }[wished]
    forecast = forecast_of(fitted.checkpoint).at_the_mean()
    plain = rank_items(forecast, known(fitted), wish)
    monkeypatch.setattr(room, "TILE_ITEMS", tile_items)
    quick = ranks(forecast, known(fitted), wish)
    there = plain.item >= 0
    assert np.array_equal(quick.item >= 0, there)
    np.testing.assert_allclose(quick.score[there], plain.score[there], rtol=1e-5, atol=1e-5)
    # What differs in the last bit only may stand in another order.
    assert (quick.item == plain.item).mean() > 0.999


def test_ranks_only_is_told_in_fewer_columns_and_has_the_best_items(fitted: VariationalAttention) -> None:
    users = fitted.vocabulary.users.to_pylist()[:20]
    quick, whole = fitted.recommend(users=users, k=4, ranks_only=True), fitted.recommend(users=users, k=4)
    assert list(quick.columns) == COLUMNS
    assert quick[["user_id", "rank", "source"]].equals(whole[["user_id", "rank", "source"]])
    both = quick.merge(whole, on=["user_id", "item_id"])
    assert len(both) > 0.5 * len(whole)  # a posterior that is wide moves the rest
    assert both["title_x"].equals(both["title_y"])


def test_somebody_new_is_ranked_too_and_a_stranger_gets_a_labelled_fallback(fitted: VariationalAttention) -> None:
    items = fitted.vocabulary.items.to_pylist()
    ranked = fitted.recommend(history=items[:3], k=3, ranks_only=True)
    assert ranked["rank"].tolist() == [1, 2, 3]
    assert not set(ranked["item_id"]) & set(items[:3])
    stranger = fitted.recommend(users=["nobody"], k=2, ranks_only=True)
    assert stranger["source"].str.contains("unknown user").all()


@pytest.mark.parametrize("name", ["everybody.parquet", "everybody.csv"])
def test_everybody_is_written_in_ranks(fitted: VariationalAttention, tmp_path: Path, name: str) -> None:
    fitted.recommend_to_file(tmp_path / name, manner=Manner(ranks_only=True))
    read = pd.read_parquet if name.endswith("parquet") else pd.read_csv
    assert list(read(tmp_path / name).columns) == COLUMNS


@pytest.mark.parametrize("more", [{"explore": "thompson"}, {"diversity": 0.2}, {"coverage": 0.9}])
def test_what_needs_more_than_the_order_is_refused(fitted: VariationalAttention, more: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="ranks_only gives the plain order"):
        fitted.recommend(history=[], ranks_only=True, **more)


def test_pin_stands_at_its_rank_in_the_plain_order_too(fitted: VariationalAttention) -> None:
    users = fitted.vocabulary.users.to_pylist()[:5]
    plain = fitted.recommend(users=users, k=9, ranks_only=True, exclude_seen=False)
    last = plain.groupby("user_id", sort=False).tail(1).iloc[0]
    answer = fitted.recommend(users=users, k=9, ranks_only=True, exclude_seen=False, pin={2: last["item_id"]})
    first = answer[answer["user_id"] == last["user_id"]].reset_index(drop=True)
    of_user = plain[plain["user_id"] == last["user_id"]]["item_id"].tolist()
    assert first["item_id"].tolist() == [of_user[0], last["item_id"], *of_user[1:-1]]
    assert first["score"][1] == pytest.approx(last["score"], abs=1e-5)
    assert answer[answer["rank"] == 2]["item_id"].eq(last["item_id"]).all()


def test_ranking_leaves_gradients_switched_on(fitted: VariationalAttention) -> None:
    wish = Wish(k=2, num_items=fitted.vocabulary.num_items, exclude_seen=True, repeat_share=0.0)
    ranks(forecast_of(fitted.checkpoint).at_the_mean(), known(fitted), wish)
    assert torch.is_grad_enabled()
