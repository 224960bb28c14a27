from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.conftest import SHORT_TRAINING, SMALL_NETWORK
from variseq.estimator import VariationalAttention
from variseq.log import LogPart


@pytest.fixture(scope="module")
def user_ids(fitted: VariationalAttention) -> list[str]:
    return fitted.checkpoint.vocabulary.users.to_pylist()


def lists_of(table: pd.DataFrame) -> list[list[str]]:
    return [rows["item_id"].tolist() for _, rows in table.groupby("user_id", sort=False)]


def test_probabilities_lie_inside_their_intervals_and_uncertainty_adds_up(
    fitted: VariationalAttention, user_ids: list[str]
) -> None:
    found = fitted.recommend(users=user_ids[:30], k=5).to_pandas()
    assert (
        (found["probability_low"] <= found["probability"]) & (found["probability"] <= found["probability_high"])
    ).all()
    assert (found["probability_low"] < found["probability_high"]).any()
    assert ((found["probability_high"] <= 1) & (found["probability_low"] >= 0)).all()
    np.testing.assert_allclose(
        found["uncertainty_aleatoric"] + found["uncertainty_epistemic"], found["uncertainty_total"], atol=1e-4
    )
    num_items = fitted.vocabulary.num_items
    assert ((found["uncertainty_total"] > 0) & (found["uncertainty_total"] <= np.log(num_items) + 1e-4)).all()
    assert (found["uncertainty_epistemic"] > 0).any()


def test_probabilities_of_everything_sum_to_one(fitted: VariationalAttention, user_ids: list[str]) -> None:
    everything = fitted.recommend(users=user_ids[:10], k=fitted.vocabulary.num_items, exclude_seen=False).to_pandas()
    np.testing.assert_allclose(everything.groupby("user_id")["probability"].sum(), 1.0, atol=1e-4)


def test_one_seed_is_one_answer_and_another_seed_another(fitted: VariationalAttention, user_ids: list[str]) -> None:
    users = user_ids[:40]
    first = lists_of(fitted.recommend(users=users, k=5, strategy="thompson", seed=1).to_pandas())
    assert first == lists_of(fitted.recommend(users=users, k=5, strategy="thompson", seed=1).to_pandas())
    assert first != lists_of(fitted.recommend(users=users, k=5, strategy="thompson", seed=2).to_pandas())
    assert first != lists_of(fitted.recommend(users=users, k=5).to_pandas())


def test_exploring_changes_the_order_and_no_probability(fitted: VariationalAttention, user_ids: list[str]) -> None:
    num_items = fitted.vocabulary.num_items
    plain = fitted.recommend(users=user_ids[:5], k=num_items).to_pandas()
    explored = fitted.recommend(users=user_ids[:5], k=num_items, strategy="thompson", seed=3).to_pandas()
    both = plain.merge(explored, on=["user_id", "item_id"], suffixes=("", "_explored"))
    assert len(both) == len(plain) == len(explored)
    np.testing.assert_allclose(both["probability_explored"], both["probability"], rtol=1e-3)
    assert (both["rank"] != both["rank_explored"]).any()


def test_diversity_of_zero_is_the_plain_list_and_more_is_another(
    fitted: VariationalAttention, user_ids: list[str]
) -> None:
    users = user_ids[:20]
    plain = fitted.recommend(users=users, k=5).to_pandas()
    assert lists_of(fitted.recommend(users=users, k=5, diversity=0.0).to_pandas()) == lists_of(plain)
    spread = fitted.recommend(users=users, k=5, diversity=0.7).to_pandas()
    assert lists_of(spread) != lists_of(plain)
    assert spread.groupby("user_id")["probability"].sum().mean() < plain.groupby("user_id")["probability"].sum().mean()
    assert [len(one) for one in lists_of(spread)] == [5] * 20


def test_set_grows_with_the_level_and_is_the_top_of_the_list(fitted: VariationalAttention, user_ids: list[str]) -> None:
    users, num_items = user_ids[:15], fitted.vocabulary.num_items
    plain = lists_of(fitted.recommend(users=users, k=num_items).to_pandas())
    smaller, larger = (
        lists_of(fitted.recommend(users=users, conformal_level=level).to_pandas()) for level in (0.5, 0.9)
    )
    for whole, half, most in zip(plain, smaller, larger, strict=True):
        assert len(half) <= len(most)
        assert half == whole[: len(half)]
        assert most == whole[: len(most)]
    assert sum(map(len, smaller)) < sum(map(len, larger))


def test_set_out_of_some_items_is_the_part_of_the_set_that_is_asked_for(
    fitted: VariationalAttention, user_ids: list[str]
) -> None:
    only = fitted.checkpoint.vocabulary.items.to_pylist()[::2]
    users = user_ids[:15]
    whole = lists_of(fitted.recommend(users=users, conformal_level=0.9).to_pandas())
    part = fitted.recommend(users=users, conformal_level=0.9, candidates=only).to_pandas()
    found = {str(user): rows["item_id"].tolist() for user, rows in part.groupby("user_id")}
    for user, items in zip(users, whole, strict=True):
        assert found.get(user, []) == [item for item in items if item in set(only)]


def test_deterministic_ablation_is_used_at_its_mean_alone(shop_parts: tuple[LogPart, LogPart, LogPart]) -> None:
    training = {**SHORT_TRAINING, "max_epochs": 1, "deterministic_fraction": 1.0}
    deterministic = VariationalAttention("tiny", device="cpu", model=SMALL_NETWORK, training=training)
    deterministic.fit(shop_parts[0], shop_parts[1], verbose=0)
    found = deterministic.recommend(history=[], k=3).to_pandas()
    np.testing.assert_allclose(found["probability_low"], found["probability"], rtol=1e-5)
    np.testing.assert_allclose(found["probability_high"], found["probability"], rtol=1e-5)
    assert found["uncertainty_epistemic"].tolist() == [0.0] * 3
