"""Lists of item ids: that they are judged as by hand, and as the package judges its own models."""

from __future__ import annotations

import math

import pytest

from tests.benchmarks import peers_path  # noqa: F401
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.splits import leave_one_out
from variseq.recommend.baselines import Popular
from variseq.sequences.histories import Histories

from judge import judge  # isort: skip
from sequences import Sequences  # isort: skip

SEQUENCES = Sequences({1: [10, 11, 12, 13], 2: [13, 12, 10, 11], 3: [11, 13, 10, 12], 4: [11, 10, 13, 99]})


def test_lists_are_judged_as_by_hand() -> None:
    found_first, found_third = [13, 50], [50, 51, 11]
    result = judge({1: found_first, 2: found_third, 3: [50, 51]}, SEQUENCES)
    assert result["ndcg"] == pytest.approx((1 + 1 / math.log2(4) + 0 + 0) / 4)
    assert result["hit_rate"] == 2 / 4
    assert result["ndcg_interval"][0] <= result["ndcg"] <= result["ndcg_interval"][1]


def test_items_of_the_history_are_struck_out_and_counted() -> None:
    result = judge({1: [10, 11, 13]}, SEQUENCES)
    assert (result["ndcg"], result["lists_with_seen_items"]) == (1 / 4, 1)


def test_eleventh_item_does_not_count() -> None:
    assert judge({1: [*range(50, 60), 13]}, SEQUENCES)["hit_rate"] == 0


def test_target_that_was_never_trained_on_is_a_miss() -> None:
    assert judge({4: [99]}, SEQUENCES)["hit_rate"] == 0


def test_judging_lists_gives_what_the_package_gives_its_own_models() -> None:
    items = [[0, 1, 2, 3, 4], [1, 0, 3, 5], [2, 1, 0, 6], [1, 2, 3, 0], [4, 1, 2, 5]]
    train, _, test = leave_one_out(Histories.of_items(items), num_items=7)
    model = Popular(7).fit(train.known())
    judged = evaluate(model, test, EvaluationOptions(k=2, targets="last"))
    lists = {user: row[row >= 0].tolist() for user, row in enumerate(judged.top_item)}
    ours = judge(lists, Sequences(dict(enumerate(items))))
    # The lists hold no ties at the border, so breaking them against the model makes no difference.
    assert ours["hit_rate"] == judged.metric("recall").mean() > 0
