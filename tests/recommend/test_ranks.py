from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.ranking.plain import plain_mixture
from variseq.estimator import VariationalAttention
from variseq.ranking import softmax
from variseq.ranking.mixture import MixtureModel
from variseq.ranking.options import RecommendOptions
from variseq.recommend.network_model import engine_of
from variseq.sequences.histories import Histories

COLUMNS = ["user_id", "item_id", "rank", "score", "title", "source", "fallback"]


def known(fitted: VariationalAttention) -> Histories:
    return fitted.checkpoint.histories


@pytest.mark.parametrize("block_items", [7, 1000])
@pytest.mark.parametrize(
    "chosen", ["nothing", "seen items too", "some items", "a boost", "a vast boost", "more than there is"]
)
def test_ranks_are_those_of_sorting_the_plain_mixture_at_the_posterior_mean(
    fitted: VariationalAttention, monkeypatch: pytest.MonkeyPatch, block_items: int, chosen: str
) -> None:
    monkeypatch.setattr(softmax, "BLOCK_ITEMS", block_items)
    checkpoint = fitted.checkpoint
    engine = engine_of(checkpoint)
    ids, histories = fitted.vocabulary.items.to_pylist(), known(fitted)
    some = np.arange(len(ids)) % 3 == 0
    options, boost = {
        "nothing": (RecommendOptions(k=5), 0.0),
        "seen items too": (RecommendOptions(k=5, exclude_seen=False), 0.0),
        "some items": (RecommendOptions(k=5, candidates=[ids[item] for item in np.flatnonzero(some)]), 0.0),
        "a boost": (RecommendOptions(k=5, boost_items={ids[item]: np.e for item in np.flatnonzero(some)}), some * 1.0),
        "a vast boost": (
            RecommendOptions(k=5, boost_items={one: 1e300 if some[item] else 1e-300 for item, one in enumerate(ids)}),
            np.where(some, 1.0, -1.0) * np.log(1e300),
        ),
        "more than there is": (RecommendOptions(k=len(ids)), 0.0),
    }[chosen]
    found = engine.recommend(
        histories, range(len(histories)), [None] * len(histories), replace(options, ranks_only=True)
    )
    calibration = replace(engine.model.calibration, num_samples=0)
    at_the_mean = MixtureModel(engine.model.encoder, engine.model.tables, calibration)
    p = plain_mixture(at_the_mean, histories)[:, 0]
    seen = np.zeros(p.shape, dtype=bool)
    seen[np.repeat(np.arange(len(histories)), histories.lengths), histories.item] = True
    assert engine.exclude_seen
    new, repeat = ((p * part).sum(axis=1, keepdims=True) for part in (~seen, seen))
    of_seen = np.where(repeat > 0, engine.repeat_share / np.where(repeat > 0, repeat, 1), 0)
    score = np.log(p * np.where(seen, of_seen, np.where(repeat > 0, 1 - engine.repeat_share, 1) / new))
    score += boost
    if options.exclude_seen is not False:
        score[seen] = -np.inf
    if options.candidates is not None:
        score[:, ~some] = -np.inf
    order = np.argsort(-score, axis=1, kind="stable")[:, : options.k]
    row, index = np.nonzero(np.take_along_axis(score, order, axis=1) > -np.inf)
    assert found.user_id == row.tolist()
    assert found.rank.tolist() == (index + 1).tolist()
    np.testing.assert_allclose(found.score, score[row, order[row, index]], rtol=1e-4, atol=1e-4)
    # What differs in the last bit only may be in another order.
    expected = [ids[item] for item in order[row, index]]
    assert np.mean([one == other for one, other in zip(found.item_id, expected, strict=True)]) > 0.995


def test_ranks_only_has_fewer_columns_and_has_the_best_items(fitted: VariationalAttention) -> None:
    users = fitted.vocabulary.users.to_pylist()[:20]
    quick, whole = (
        fitted.recommend(users=users, k=4, ranks_only=True).to_pandas(),
        fitted.recommend(users=users, k=4).to_pandas(),
    )
    assert list(quick.columns) == COLUMNS
    assert quick[["user_id", "rank", "fallback"]].equals(whole[["user_id", "rank", "fallback"]])
    both = quick.merge(whole, on=["user_id", "item_id"])
    assert len(both) > 0.5 * len(whole)  # a posterior that is wide moves the rest
    assert both["title_x"].equals(both["title_y"])
    stranger = fitted.recommend(users=["nobody"], k=2, ranks_only=True).to_pandas()
    assert stranger["fallback"].str.contains("unknown user").all()


def test_pin_stands_at_its_rank_in_the_plain_order_too(fitted: VariationalAttention) -> None:
    users = fitted.vocabulary.users.to_pylist()[:5]
    plain = fitted.recommend(users=users, k=9, ranks_only=True, exclude_seen=False).to_pandas()
    last = plain.groupby("user_id", sort=False).tail(1).iloc[0]
    answer = fitted.recommend(
        users=users, k=9, ranks_only=True, exclude_seen=False, pin={2: last["item_id"]}
    ).to_pandas()
    first = answer[answer["user_id"] == last["user_id"]].reset_index(drop=True)
    of_user = plain[plain["user_id"] == last["user_id"]]["item_id"].tolist()
    assert first["item_id"].tolist() == [of_user[0], last["item_id"], *of_user[1:-1]]
    assert first["score"][1] == pytest.approx(last["score"], abs=1e-5)
    assert answer[answer["rank"] == 2]["item_id"].eq(last["item_id"]).all()
