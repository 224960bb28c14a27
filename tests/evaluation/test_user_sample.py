"""The sample of users on which a large log is evaluated."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation.scored import GivenScores
from variseq.errors import InputError
from variseq.estimator import VariationalAttention
from variseq.evaluation import user_sample
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.significance import require_same_protocol
from variseq.evaluation.splits import Part, by_user_time
from variseq.evaluation.user_sample import sampled_users
from variseq.sequences.histories import Histories

NUM_USERS, NUM_ITEMS = 40, 40


def a_part() -> Part:
    """The test part of users whose first item is their number; they have one to six targets."""
    generator = np.random.default_rng(0)
    lists = [
        [user, *generator.integers(NUM_ITEMS, size=generator.integers(3, 13)).tolist()] for user in range(NUM_USERS)
    ]
    return by_user_time(Histories.of_items(lists), test=0.5, valid=0.1, num_items=NUM_ITEMS)[2]


@given(
    most_cells=st.integers(1, 10_000),
    targets=st.sampled_from(["first", "last", "all"]),
    most_users=st.none() | st.integers(1, 50),
)
def test_sample_is_bounded_and_has_users_with_all_their_queries(
    most_cells: int, targets: str, most_users: int | None
) -> None:
    part = a_part()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(user_sample, "MOST_CELLS", most_cells)
        sample, again = sampled_users(part, targets, most_users), sampled_users(part, targets, most_users)
    found, every = sample.queries(targets), part.queries(targets)
    users = np.unique(found.user)
    np.testing.assert_array_equal(found.position, every.position[np.isin(every.user, users)])
    np.testing.assert_array_equal(found.position, again.queries(targets).position)
    assert len(found) * NUM_ITEMS <= most_cells or len(users) == 1
    assert len(users) <= (most_users or NUM_USERS)
    assert (sample is part) == (len(users) == NUM_USERS)


def test_small_log_is_evaluated_whole() -> None:
    part = a_part()
    assert sampled_users(part, "all") is part
    amazon_beauty = 22_363 * 12_101
    assert amazon_beauty < user_sample.MOST_CELLS


def test_sample_has_the_same_values_as_the_whole_and_is_not_compared_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    part, model = a_part(), GivenScores(np.random.default_rng(1).normal(size=(NUM_USERS, NUM_ITEMS)))
    monkeypatch.setattr(user_sample, "MOST_CELLS", 10 * NUM_ITEMS)
    options = EvaluationOptions(repeat_share=0.1)
    whole, sample = evaluate(model, part, options), evaluate(model, sampled_users(part), options)
    inside = np.isin(whole.user, sample.user)
    np.testing.assert_array_equal(sample.rank, whole.rank[inside])
    np.testing.assert_allclose(sample.metric("nll"), whole.metric("nll")[inside], rtol=1e-6)
    counted = ("num_users_evaluated", "num_users_with_targets")
    assert [sample.protocol[name] for name in counted] == [10, NUM_USERS]
    assert [whole.protocol[name] for name in counted] == [NUM_USERS, NUM_USERS]
    require_same_protocol([sample, dataclasses.replace(sample)])
    with pytest.raises(InputError, match="num_users_evaluated: 40 and 10"):
        require_same_protocol([whole, sample])


@pytest.mark.unchecked
def test_model_says_how_many_users_it_was_evaluated_on(
    fitted: VariationalAttention, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_sample, "MOST_CELLS", 20 * fitted.vocabulary.num_items)
    sample, whole = fitted.evaluate(), fitted.evaluate(all_users=True)
    assert "of a random sample of 20 of 150 users" in str(sample)
    users = [[evaluation.user.tolist() for evaluation in one.evaluations] for one in (sample, whole)]
    assert [len(of_first) for of_first, *_ in users] == [20, 150]
    assert all(of_model == of_models[0] for of_models in users for of_model in of_models)
