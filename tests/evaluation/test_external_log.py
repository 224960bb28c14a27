"""An external test log: ids are matched, every row is counted, and the model stays as it was."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.conftest import small_model
from variseq.errors import InputError
from variseq.estimator import VariationalAttention
from variseq.evaluation.results import Results
from variseq.events.vocabulary import positions_in
from variseq.log import Log, LogPart, read

DAY = 86_400
LATER = 2_000_000_000
"""After every event of the shop."""

pytestmark = pytest.mark.filterwarnings("ignore::variseq.errors.PosteriorCollapseWarning")


def later(users: list[str], items: list[str], times: list[int] | None = None) -> Log:
    seconds = [LATER + DAY * place for place in range(len(users))] if times is None else times
    table = pa.table({"user_id": users, "item_id": items, "timestamp": seconds, "event": ["view"] * len(users)})
    return read(table)


@pytest.fixture(scope="module")
def no_test_model(shop_log: Log) -> VariationalAttention:
    """A model that was fitted without a test part."""
    train, valid, _ = shop_log.split("leave-one-out", test="none")
    return small_model(max_epochs=2).fit(train, valid, verbose=0)


def quietly(call: Callable[[], Results]) -> Results:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return call()


def known_ids(model: VariationalAttention, number: int) -> tuple[list[Any], list[Any]]:
    return model.vocabulary.user_ids(range(number)), model.vocabulary.item_ids(range(number))


def test_history_of_a_known_user_is_the_log_and_then_the_file(no_test_model: VariationalAttention) -> None:
    (user, *_), (first, second, *_) = known_ids(no_test_model, 3)
    results = no_test_model.evaluate(later([user, user], [first, second]))
    evaluation = results["variseq"]
    checkpoint = no_test_model.checkpoint
    assert evaluation.history_length.tolist() == [checkpoint.histories.lengths[0] + 1]
    assert no_test_model.vocabulary.item_ids(evaluation.target) == [second]


def test_same_events_as_test_part_or_as_test_file_give_the_same_figures(
    shop_log: Log, fitted: VariationalAttention, shop_parts: tuple[LogPart, LogPart, LogPart]
) -> None:
    test, vocabulary, histories = shop_parts[2].part, shop_log.vocabulary, shop_log.histories
    usual = fitted.evaluate()["variseq"]
    queries = test.queries()
    # The run's log holds its own test events; those at or after the first one of the file are not shown.
    table = pa.table(
        {
            "user_id": vocabulary.user_ids(queries.user),
            "item_id": vocabulary.item_ids(histories.item[queries.position]),
            "timestamp": pa.array(histories.timestamp[queries.position], pa.timestamp("us")),
            "event": [vocabulary.behaviors[place] for place in histories.behavior[queries.position]],
            "value": histories.value[queries.position],
        }
    )
    given = quietly(lambda: fitted.evaluate(read(table)))["variseq"]
    same = given.history_length == usual.history_length
    assert same.mean() > 0.9, "all but those whose events share a time"
    np.testing.assert_array_equal(given.rank[same], usual.rank[same])
    np.testing.assert_allclose(given.forecasts.nll[same], usual.forecasts.nll[same], rtol=1e-4)


def test_history_of_unknown_users_is_the_file_and_unknown_items_are_misses(
    no_test_model: VariationalAttention, tmp_path: Path
) -> None:
    (user, other, *_), (first, second, *_) = known_ids(no_test_model, 3)
    log = later([user, other, other, "stranger", "stranger"], ["never seen", "never seen", first, second, first])
    results = no_test_model.evaluate(log)
    evaluation = results["variseq"]
    by_user = dict(zip(log.vocabulary.user_ids(evaluation.user), range(len(evaluation.user)), strict=True))
    assert set(by_user) == {user, other, "stranger"}
    assert evaluation.history_length[by_user["stranger"]] == 1
    assert np.isinf(evaluation.rank[by_user[user]])
    assert evaluation.target.tolist().count(-1) == 1
    row = results.row("variseq")
    assert (row["unknown_targets"], row["num_queries"]) == (1, 3)
    assert np.isfinite(row["nll"])
    assert row["ndcg@10"] == pytest.approx(float(evaluation.metric("ndcg").mean()))
    counts = results.table["protocol"]["test_file"]
    assert counts["events"] == counts["rows"] == 5
    assert (counts["users"], counts["unknown_users"], counts["events_of_unknown_items"]) == (3, 1, 2)
    text = str(results)
    assert "5 rows = 0 rejected + 0 filtered + 5 events" in text
    assert "3 are targets (1 of items unknown" in text
    assert "1 are history only, 1 of unknown items" in text
    results.to_json(tmp_path / "table.json")
    assert "NaN" not in (tmp_path / "table.json").read_text()
    assert json.loads((tmp_path / "table.json").read_text())["protocol"]["part"] == "test file"


def test_unknown_item_is_in_no_history(no_test_model: VariationalAttention) -> None:
    (user, *_), (first, second, *_) = known_ids(no_test_model, 3)
    with_it = no_test_model.evaluate(later([user] * 3, [first, "never seen", second]))["variseq"]
    without = no_test_model.evaluate(later([user] * 2, [first, second], [LATER, LATER + 2 * DAY]))["variseq"]
    assert with_it.history_length.tolist() == without.history_length.tolist()
    np.testing.assert_array_equal(with_it.rank, without.rank)


def test_training_events_and_earlier_events_are_warned_of(shop_log: Log, no_test_model: VariationalAttention) -> None:
    vocabulary, histories = shop_log.vocabulary, shop_log.histories
    learned = histories.history(0)
    seconds = (learned.timestamp // 1_000_000).tolist()
    users = [vocabulary.user_ids([0])[0]] * len(seconds)
    table = pa.table(
        {
            "user_id": users,
            "item_id": vocabulary.item_ids(learned.item),
            "timestamp": pa.array(learned.timestamp, pa.timestamp("us")),
            "event": [vocabulary.behaviors[place] for place in learned.behavior],
        }
    )
    with pytest.warns(UserWarning, match="of the test file|of the log") as caught:
        no_test_model.evaluate(read(table))
    told = " ".join(str(one.message) for one in caught)
    assert f"{len(seconds)} events of the test file are training events" in told
    assert "earlier than the latest training event" in told
    assert f"{len(seconds)} events of the log are not earlier" in told


def test_test_file_changes_no_weight_and_no_count(no_test_model: VariationalAttention) -> None:
    checkpoint = no_test_model.checkpoint
    before = {name: tensor.clone() for name, tensor in checkpoint.network.state_dict().items()}
    memory = {name: tensor.clone() for name, tensor in checkpoint.counts.items()}
    (user, *_), (first, *_) = known_ids(no_test_model, 3)
    no_test_model.evaluate(later([user, user], [first, first]))
    assert all(tensor.equal(before[name]) for name, tensor in checkpoint.network.state_dict().items())
    assert all(tensor.equal(memory[name]) for name, tensor in checkpoint.counts.items())


def test_file_of_other_items_or_behaviors_is_refused(no_test_model: VariationalAttention) -> None:
    (user, *_), (first, *_) = known_ids(no_test_model, 3)
    with pytest.raises(InputError, match="No item of the test file is an item of the log"):
        no_test_model.evaluate(later([user], ["never seen"]))
    table = pa.table({"user_id": [user], "item_id": [first], "timestamp": [LATER], "event": ["telephoned"]})
    with pytest.raises(InputError, match="No event of the test file has a behavior of the log: it has telephoned"):
        no_test_model.evaluate(read(table))


def test_run_without_a_test_part_says_what_can_be_done(no_test_model: VariationalAttention) -> None:
    with pytest.raises(InputError, match=r"without a test part.*--test-file"):
        no_test_model.evaluate()


@pytest.mark.parametrize(
    ("known", "ids", "expected"),
    [
        (pa.array([3, 7]), pa.array(["7", "07", "x", "-3"]), [1, -1, -1, -1]),
        (pa.array(["3", "7"]), pa.array([7, 8]), [1, -1]),
        (pa.array(["a"]), pa.array([], pa.string()), []),
    ],
)
def test_ids_match_across_text_and_integers(known: pa.Array, ids: pa.Array, expected: list[int]) -> None:
    assert positions_in(known, ids).tolist() == expected
