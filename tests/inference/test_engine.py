from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from variseq.errors import CheckpointError, InputError
from variseq.estimator import VariationalAttention
from variseq.inference.engine import load_engine
from variseq.ranking.engine import Answer, Engine, KnownHistory, Request
from variseq.ranking.options import RecommendOptions
from variseq.ranking.when import WhenOptions
from variseq.sequences.given_history import HistoryRow

NUM_USERS = 12
USERS = range(NUM_USERS)


@pytest.fixture(scope="module")
def engine(bundle_folder: Path) -> Engine:
    return load_engine(bundle_folder)


def rows_of(fitted: VariationalAttention, user: int) -> list[HistoryRow]:
    checkpoint = fitted.checkpoint
    history, vocabulary = checkpoint.histories.history(user), checkpoint.vocabulary
    behaviors = [vocabulary.behaviors[place] for place in history.behavior]
    ids = vocabulary.item_ids(history.item)
    return list(zip(ids, history.timestamp.tolist(), behaviors, history.value.tolist(), strict=True))


def asking(shown: Sequence[str] = (), attention: bool = False, **options: Any) -> Request:
    return Request(RecommendOptions(**options), shown, attention)


def answered(engine: Engine, asked: list[tuple[KnownHistory, Request]]) -> list[Answer]:
    answers = engine.answer(asked)
    assert all(isinstance(answer, Answer) for answer in answers), answers
    return [answer for answer in answers if isinstance(answer, Answer)]


def assert_same(answer: Answer, expected: pd.DataFrame) -> None:
    found = answer.recommendations.to_pandas()
    for column in ("item_id", "rank", "title"):
        assert found[column].tolist() == expected[column].tolist()
    for column in ("score", "probability", "probability_low", "probability_high"):
        np.testing.assert_allclose(found[column], expected[column], atol=1e-5, rtol=1e-4)
    for column in found.columns[found.columns.str.startswith("propensity")]:
        np.testing.assert_allclose(found[column], expected[column], rtol=1e-4)
    assert found["reasons"].map(list).tolist() == expected["reasons"].map(list).tolist()
    for name, value in answer.uncertainty.items():
        assert value == pytest.approx(expected[f"uncertainty_{name}"].iloc[0], abs=1e-4)


QUESTIONS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "another sample of every posterior": {"k": 5, "strategy": "thompson", "seed": 3},
    "a spread": {"k": 6, "diversity": 0.4},
    "a set": {"conformal_level": 0.6},
    "a spread of one sample": {"strategy": "thompson", "seed": 1, "diversity": 0.7},
    "what is known too": {"exclude_seen": False},
    "some of it": {"k": 4},
    "boosted": {"boost_items": "first", "boost_categories": "first", "k": 7},
    "pinned": {"pin": "first", "k": 5},
    "pinned in one sample": {"strategy": "thompson", "seed": 2, "pin": "first", "k": 5},
    "drawn": {"k": 5, "strategy": "softmax", "seed": 4, "temperature": 1.0},
    "drawn with pins": {
        "k": 6,
        "strategy": "softmax",
        "seed": 5,
        "pin": "first",
        "boost_categories": "first",
        "pool": 9,
    },
    "all at once": {"boost_items": "first", "pin": "first", "exclude": "some", "diversity": 0.2, "exclude_seen": False},
    "of a category": {"categories": "first", "exclude": "some", "pin": "first"},
    "only these": {"candidates": "some", "k": 3},
    "at a time": {"at": "2026-11-24T15:00:00Z"},
    "a set at a time": {"at": 1_790_000_000, "conformal_level": 0.6, "exclude_seen": False},
}


def arguments(fitted: VariationalAttention, named: dict[str, Any]) -> dict[str, Any]:
    """The words of a question as ids and categories of the simulated shop."""
    checkpoint = fitted.checkpoint
    ids = checkpoint.vocabulary.item_ids(range(10))
    category = sorted({name for names in checkpoint.items.categories(range(40)) for name in names})[0]
    meant = {
        "boost_items": {ids[0]: 4.0, ids[3]: 0.5},
        "boost_categories": {category: 1.7},
        "pin": {2: ids[5], 3: ids[6]},
        "exclude": ids[2:5],
        "candidates": ids,
        "categories": [category],
    }
    return {name: meant[name] if value in ("first", "some") else value for name, value in named.items()}


@pytest.mark.parametrize("name", QUESTIONS)
def test_answer_without_torch_is_that_of_the_model(engine: Engine, fitted: VariationalAttention, name: str) -> None:
    wanted = arguments(fitted, QUESTIONS[name])
    request = Request(RecommendOptions(**wanted))
    users = fitted.vocabulary.user_ids(USERS)
    expected = fitted.recommend(users=users, **wanted).to_pandas()
    asked = [(engine.history(rows_of(fitted, user), name), request) for user, name in zip(USERS, users, strict=True)]
    for user, answer in zip(users, answered(engine, asked), strict=True):
        assert_same(answer, expected[expected["user_id"] == user])


def test_time_of_the_next_event_is_the_same_without_torch(engine: Engine, fitted: VariationalAttention) -> None:
    asked = [(engine.history(rows_of(fitted, user)), Request(when=WhenOptions(within=["1d", "2w"]))) for user in USERS]
    found = [answer.when for answer in answered(engine, asked)]
    expected = fitted.when(fitted.vocabulary.user_ids(USERS), within=["1d", "2w"])
    for name in ("low", "median", "high"):
        seconds = [getattr(one, name)[0] / 1e6 for one in found]
        np.testing.assert_allclose(seconds, [one.timestamp() for one in expected[name]], rtol=0, atol=1e-2)
    np.testing.assert_allclose([one.within[0] for one in found], expected[["within 1d", "within 2w"]])


def test_history_of_bare_items_is_answered_as_recommend_does(engine: Engine, fitted: VariationalAttention) -> None:
    ids = fitted.vocabulary.item_ids([3, 9, 3, 11])
    (answer,) = answered(engine, [(engine.given(ids), asking(k=8))])
    assert_same(answer, fitted.recommend(history=ids, k=8).to_pandas())
    assert answer.fallback is None


def test_empty_history_is_answered_with_what_is_expected_of_nobody(
    engine: Engine, fitted: VariationalAttention
) -> None:
    (answer,) = answered(engine, [(engine.given([]), asking())])
    expected = fitted.recommend(history=[]).to_pandas()
    assert_same(answer, expected)
    assert answer.fallback == expected["fallback"].iloc[0]


def test_answer_does_not_depend_on_what_is_asked_along(engine: Engine, fitted: VariationalAttention) -> None:
    requests = [asking(), asking(k=3, strategy="thompson"), asking(reasons=False), asking(diversity=0.5)]
    asked = [(engine.history(rows_of(fitted, user)), requests[user % 4]) for user in USERS]
    together = answered(engine, asked)
    for one, answer in zip(asked, together, strict=True):
        (alone,) = answered(engine, [one])
        assert alone.recommendations.item_id == answer.recommendations.item_id
        found = alone.recommendations.probability
        np.testing.assert_allclose(found, answer.recommendations.probability, rtol=1e-4)


def test_large_catalog_is_answered_in_blocks(
    engine: Engine, bundle_folder: Path, fitted: VariationalAttention, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [(engine.history(rows_of(fitted, user)), asking()) for user in USERS]
    whole = answered(engine, asked)
    monkeypatch.setattr("variseq.ranking.softmax.BLOCK_ITEMS", 7)
    monkeypatch.setattr("variseq.ranking.mixture.CELLS_AT_ONCE", 1600)  # So five histories of 8 samples and 40 items.
    engine = load_engine(bundle_folder)
    for before, after in zip(whole, answered(engine, asked), strict=True):
        assert before.recommendations.item_id == after.recommendations.item_id
        assert before.uncertainty == pytest.approx(after.uncertainty, rel=1e-4, abs=1e-5)
        high = after.recommendations.probability_high
        np.testing.assert_allclose(before.recommendations.probability_high, high, rtol=1e-4)


def test_next_page_goes_on_where_the_first_ended(engine: Engine, fitted: VariationalAttention) -> None:
    history = engine.history(rows_of(fitted, 0))
    (whole,) = answered(engine, [(history, asking(k=10))])
    ids = list(whole.recommendations.item_id)
    (second,) = answered(engine, [(history, asking(k=5, shown=ids[:5]))])
    assert second.recommendations.item_id == ids[5:]
    assert second.recommendations.rank.tolist() == [6, 7, 8, 9, 10]


def test_request_that_is_not_possible_gets_its_own_error(engine: Engine) -> None:
    history = engine.given([])
    good, bad, worse = engine.answer(
        [(history, asking()), (history, asking(k=1000)), (history, asking(conformal_level=0.123))]
    )
    assert isinstance(good, Answer)
    assert isinstance(bad, InputError)
    assert "k=1000" in str(bad)
    assert isinstance(worse, InputError)
    assert "conformal_level=0.123" in str(worse)


def test_items_and_behaviors_that_the_model_does_not_know_are_counted_and_left_out(engine: Engine) -> None:
    known: Any = engine.catalog.ids[4]
    unknown: Any = 10**9 if isinstance(known, int) else "nothing like it"
    history = engine.history([(unknown, 5, None, None), (known, 7, "no such behavior", None)])
    assert (history.num_events, len(history.unknown), history.latest) == (1, 1, 7)


def test_attention_has_a_weight_for_each_event(engine: Engine, fitted: VariationalAttention) -> None:
    rows = rows_of(fitted, 0)
    (answer,) = answered(engine, [(engine.history(rows * 3), asking(attention=True))])
    assert answer.attention is not None
    assert len(answer.attention) == 3 * len(rows)
    assert 0 < sum(answer.attention) <= 1 + 1e-5
    # The window is 20 tokens: older events have no weight.
    assert not any(answer.attention[:-20])


def test_changed_file_of_an_export_is_refused(bundle_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(bundle_folder, folder)
    path = folder / "tables.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match=r"tables\.safetensors is changed"):
        load_engine(folder)
    with pytest.raises(CheckpointError, match="does not exist"):
        load_engine(tmp_path / "nowhere")
