from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from variseq.cli import app
from variseq.errors import InputError
from variseq.estimator import VariationalAttention
from variseq.ranking.options import RecommendOptions
from variseq.ranking.recommendations import ITEM_COLUMNS, Recommendations
from variseq.ranking.selection import with_pins
from variseq.serving import schemas
from variseq.serving.settings import ServeSettings

MORE = {"strategy": "thompson", "diversity": 0.2, "conformal_level": 0.9}
NAMES = {field.name for field in fields(RecommendOptions)}


def test_command_line_has_each_option_under_its_name_with_its_default() -> None:
    command = typer.main.get_command(app).commands["recommend"]  # type: ignore[attr-defined]
    options = {one.name: one.default for one in command.params}
    assert options.keys() >= NAMES
    plain = RecommendOptions()
    for name in NAMES:
        assert (options[name] or None) == (getattr(plain, name) or None), name


def test_http_has_each_option_but_ranks_only_under_its_name_with_its_default() -> None:
    request, plain = schemas.RecommendRequest(), RecommendOptions()
    own = {"user_id", "history", "page", "attention", "ids_as_text", "when", "log_exposure"}
    assert set(request.__struct_fields__) - own == NAMES - {"ranks_only"}
    of_server = ServeSettings(run=Path("run")).policy
    for name in NAMES - {"ranks_only"}:
        default = getattr(request, name) if name not in of_server else of_server[name]
        assert (default or None) == (getattr(plain, name) or None), name
    assert set(schemas.Recommendation.__struct_fields__) == set(ITEM_COLUMNS)
    assert set(ITEM_COLUMNS) < {field.name for field in fields(Recommendations)}


def test_unknown_option_is_refused(fitted: VariationalAttention, user: str) -> None:
    with pytest.raises(InputError, match="diversity"):
        fitted.recommend(users=[user], diversty=0.3)


@pytest.fixture(scope="module")
def user(fitted: VariationalAttention) -> str:
    return str(fitted.vocabulary.user_ids([3])[0])


def everything(fitted: VariationalAttention, user: str, **wanted: object) -> pd.DataFrame:
    return fitted.recommend(users=[user], k=40, **wanted).to_pandas()


def test_boost_is_a_factor_of_what_items_are_ranked_by_and_of_nothing_else(
    fitted: VariationalAttention, user: str
) -> None:
    plain = everything(fitted, user).set_index("item_id")
    factors = {plain.index[7]: 5.0, plain.index[2]: 0.01}
    boosted = everything(fitted, user, boost_items=factors).set_index("item_id")
    for column in ("probability", "probability_low", "probability_high"):
        np.testing.assert_allclose(boosted[column], plain[column].loc[boosted.index], rtol=1e-4)
    worth = plain["probability"] * pd.Series(factors).reindex(plain.index).fillna(1.0)
    assert boosted.index.tolist() == worth.sort_values(ascending=False, kind="stable").index.tolist()


def test_boost_of_a_category_is_that_of_its_items(fitted: VariationalAttention, user: str) -> None:
    checkpoint = fitted.checkpoint
    of_items = checkpoint.items.categories(range(checkpoint.vocabulary.num_items))
    name = of_items[0][0]
    inside = [
        item for item, names in zip(checkpoint.vocabulary.items.to_pylist(), of_items, strict=True) if name in names
    ]
    by_category = everything(fitted, user, boost_categories={name: 3.0})
    pd.testing.assert_frame_equal(by_category, everything(fitted, user, boost_items=dict.fromkeys(inside, 3.0)))


def test_power_of_a_column_ranks_by_expected_value(fitted: VariationalAttention, user: str) -> None:
    checkpoint = fitted.checkpoint
    assert checkpoint is not None
    table = checkpoint.items.table
    price = [None if number % 7 == 0 else float(1 + number) for number in range(len(table))]
    priced = VariationalAttention()
    items = replace(checkpoint.items, table=table.append_column("price", pa.array(price)))
    priced.checkpoint = replace(checkpoint, items=items)
    plain, ranked = everything(fitted, user), everything(priced, user, boost_columns={"price": 0.5})
    known = dict(zip(checkpoint.vocabulary.items.to_pylist(), price, strict=True))
    middle = float(np.median([one for one in price if one]))
    expected = plain["probability"] * np.sqrt([known[item] or middle for item in plain["item_id"]])
    order = plain["item_id"][expected.sort_values(ascending=False, kind="stable").index].tolist()
    assert ranked["item_id"].tolist() == order
    first, second = (one.set_index("item_id")["probability"][order] for one in (ranked, plain))
    np.testing.assert_allclose(first, second, rtol=1e-4)
    with pytest.raises(InputError, match="There are: price"):
        everything(priced, user, boost_columns={"title": 1.0})


def test_pinned_items_stand_at_their_ranks_and_the_others_in_their_order(
    fitted: VariationalAttention, user: str
) -> None:
    plain = everything(fitted, user)
    ids = plain["item_id"].tolist()
    pinned = everything(fitted, user, pin={1: ids[9], 3: ids[0]})
    assert pinned["item_id"].tolist() == [ids[9], ids[1], ids[0], *[i for i in ids[2:] if i != ids[9]]]
    both = pinned.merge(plain, on="item_id")
    np.testing.assert_allclose(both["probability_x"], both["probability_y"], rtol=1e-4)
    np.testing.assert_allclose(both["score_x"], both["score_y"], atol=1e-4)


def test_what_may_not_be_recommended_is_not_pinned(fitted: VariationalAttention, user: str) -> None:
    ids = everything(fitted, user)["item_id"].tolist()
    seen = next(item for item in fitted.vocabulary.items.to_pylist() if item not in ids)
    assert everything(fitted, user, pin={1: seen})["item_id"].tolist() == ids
    assert ids[5] not in everything(fitted, user, pin={1: ids[5]}, exclude=[ids[5]])["item_id"].tolist()
    assert everything(fitted, user, pin={1: seen}, exclude_seen=False)["item_id"].iloc[0] == seen


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"boost_items": {"i01": 0.0}}, "Allowed: positive numbers"),
        ({"boost_items": {"i01": float("nan")}}, "Allowed: positive numbers"),
        ({"boost_items": {"nothing": 2.0}}, "boost_items names items that are not in the catalog"),
        ({"boost_categories": {"nothing": 2.0}}, "which no item has. There are: "),
        ({"boost_columns": {"price": 1.0}}, "no columns of numbers"),
        ({"boost_columns": {"price": 11.0}}, "numbers from -10 to 10"),
        ({"pin": {0: "i01"}}, "Allowed: ranks from 1 to k=5"),
        ({"pin": {6: "i01"}}, "Allowed: ranks from 1 to k=5"),
        ({"pin": {1: "i01", 2: "i01"}}, "at two ranks"),
        ({"pin": {1: "i01"}, "conformal_level": 0.9}, "Give one or the others"),
        ({"boost_items": {"i01": 2.0}, "conformal_level": 0.9}, "Give one or the others"),
        ({"conformal_level": 0.9, "diversity": 0.2}, "Give one or the others"),
        ({"conformal_level": 0.3}, "0.5 to 0.99"),
        *(({"diversity": value}, "diversity") for value in (-0.1, 1.1, float("nan"))),
        ({"strategy": "ucb"}, "Allowed: 'greedy', 'softmax' and 'thompson'"),
        ({"strategy": "softmax", "temperature": 0.0}, "numbers from 0.05"),
        ({"strategy": "softmax", "uniform_share": 1.5}, "numbers from 0.0001 to 0.9999"),
        ({"strategy": "softmax", "pool": 3}, "Give a larger pool"),
        ({"strategy": "softmax", "diversity": 0.2}, "would change them"),
        ({"strategy": "softmax", "conformal_level": 0.9}, "Give one or the others"),
        ({"strategy": "softmax", "new_items_share": 0.2}, "would change them"),
        ({"strategy": "thompson", "seed": -1}, "whole numbers from 0"),
        *(({"ranks_only": True, name: value}, "ranks_only gives the plain order") for name, value in MORE.items()),
    ],
)
def test_impossible_options_are_refused(
    fitted: VariationalAttention, user: str, wanted: dict[str, object], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        fitted.recommend(users=[user], k=5, **wanted).to_pandas()


@given(st.permutations(range(8)), st.dictionaries(st.integers(0, 4), st.integers(0, 9), max_size=3))
def test_pins_are_where_they_belong_whatever_the_list(ranked: list[int], wanted: dict[int, int]) -> None:
    pins = [(place, item) for place, item in sorted(wanted.items()) if list(wanted.values()).count(item) == 1]
    found = with_pins(ranked, pins, k=6)
    assert len(found) == len(set(found)) == 6
    for place, item in pins:
        assert found[place] == item
    others = [item for item in found if item not in dict(pins).values()]
    assert others == [item for item in ranked if item in others]
