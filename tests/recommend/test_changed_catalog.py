"""Items that a model has never seen are recommended at once; removed ones never; both engines agree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.terminal.invoke import refuse, succeed
from variseq.artifacts.folder import CHANGES
from variseq.errors import InputError
from variseq.estimator import VariationalAttention, load
from variseq.inference.engine import load_engine
from variseq.ranking.catalog_changes import CatalogChanges, ChangeCounts, ItemDetails
from variseq.ranking.changed_engine import ChangeableEngine
from variseq.ranking.engine import Answer, Engine, Request
from variseq.ranking.options import RecommendOptions

ODD = "n'\"2"
NEW = pd.DataFrame(
    {"item_id": ["n1", ODD, "n3"], "title": ["New toy", "Toys no. 99", None], "category": ["Toys", "Garden", None]}
)
EVERYTHING = {"k": 43, "exclude_seen": False}


@pytest.fixture
def model(fitted: VariationalAttention) -> VariationalAttention:
    """A model of its own, not yet changed."""
    own = VariationalAttention("tiny", device="cpu")
    own.checkpoint = replace(fitted.checkpoint)
    return own


@pytest.fixture(scope="module")
def engines(bundle_folder: Path) -> ChangeableEngine:
    return ChangeableEngine(load_engine(bundle_folder))


def answered(engine: Engine, history: list[str], **options: Any) -> pd.DataFrame:
    (answer,) = engine.answer([(engine.given(history), Request(RecommendOptions(**options)))])
    assert isinstance(answer, Answer), answer
    return answer.recommendations.to_pandas()


def test_added_items_are_recommended_by_both_engines_alike(
    model: VariationalAttention, engines: ChangeableEngine
) -> None:
    assert model.add_items(NEW) == ChangeCounts(added=3)
    for history in ([], ["i00", "n1"], [ODD, ODD, "i07"]):
        expected = model.recommend(history=history, **EVERYTHING).to_pandas()
        found = answered(engines.engine(model.checkpoint.changes), history, **EVERYTHING)
        assert found["probability"].sum() == pytest.approx(1, abs=1e-5)
        assert set(found["item_id"][found["source"] == "content"]) == {*NEW["item_id"]}
        assert found["item_id"].tolist() == expected["item_id"].tolist()
        np.testing.assert_allclose(found["probability"], expected["probability"], rtol=1e-4, atol=1e-6)
        assert found["reasons"].map(list).tolist() == expected["reasons"].map(list).tolist()


def test_together_they_have_the_counted_rate_of_each(model: VariationalAttention) -> None:
    rate = model.checkpoint.calibrated.calibration.new.rate
    model.add_items(NEW)
    table = model.recommend(history=["i00", "i01"], **EVERYTHING).to_pandas()
    of_new = table["probability"][table["source"] == "content"].sum()
    # The part of repeats of a log whose seen items are left out is that of the two items of the history.
    seen = table["probability"][table["item_id"].isin(["i00", "i01"])].sum()
    assert of_new / (1 - seen) == pytest.approx(min(0.3, 3 * rate), rel=0.3)


def test_added_item_is_found_filtered_pinned_liked_and_a_reason(model: VariationalAttention) -> None:
    model.add_items(NEW)
    assert model.recommend(history=["i00"], candidates=["n1"], k=3).to_pandas()["item_id"].tolist() == ["n1"]
    assert model.recommend(history=["i00"], pin={1: ODD}, k=3).to_pandas()["item_id"].iloc[0] == ODD
    assert "n1" in set(model.recommend(history=["i00"], categories=["Toys"], k=43).to_pandas()["item_id"])
    assert model.recommend(history=["i00"], k=5, new_items_share=0.6).to_pandas()["source"].eq("content").sum() == 3
    assert [one["item_id"] for one in model._engine().catalog.search("new toy", 5)] == ["n1"]
    assert len(model.similar_items(["n1"], k=5)) == 5
    reasons = model.recommend(history=["i00", "n1"], k=20).to_pandas()["reasons"]
    assert "New toy" in {name for of_item in reasons for name in of_item}
    assert len(model.when(history=[{"item_id": "n1", "timestamp": 1_600_000_000}])) == 1


def test_removed_items_never_appear_and_may_stay_in_histories(model: VariationalAttention) -> None:
    model.add_items(NEW)
    assert model.remove_items(["i03", "n1"]) == ChangeCounts(removed=2)
    gone = {"i03", "n1"}
    for options in ({}, {"pin": {1: "i03"}}, {"conformal_level": 0.99}, {"candidates": ["i03", "i04"], "k": 2}):
        table = model.recommend(history=["i03", "i00"], **{"exclude_seen": False, **options}).to_pandas()
        assert len(table)
        assert not gone & set(table["item_id"])
    catalog = model._engine().catalog
    assert not gone & {one["item_id"] for one in [*catalog.search("", 99), *catalog.item_map()["items"]]}
    assert not gone & {one["item_id"] for one in catalog.similar("i00", 39)}
    with pytest.raises(InputError, match="i03"):
        model.similar_items(["i03"])
    assert model.add_items(NEW).added == 1
    assert "n1" in set(model.recommend(history=[], k=41).to_pandas()["item_id"])


def test_everything_can_be_removed(model: VariationalAttention) -> None:
    model.remove_items(model.vocabulary.items.to_pylist())
    assert not len(model.recommend(history=["i00"], k=5))
    assert model._engine().catalog.search("", 5) == model._engine().catalog.item_map()["items"] == []


def test_updated_titles_and_categories_show_everywhere(model: VariationalAttention) -> None:
    changed = pd.DataFrame({"item_id": ["i03"], "title": ["Renamed"], "category": ["Brand new"]})
    assert model.add_items(changed) == ChangeCounts(updated=1)
    assert model.add_items(changed) == ChangeCounts(unchanged=1)
    table = model.recommend(history=["i00"], categories=["Brand new"]).to_pandas()
    assert table[["item_id", "title"]].to_numpy().tolist() == [["i03", "Renamed"]]
    assert model.recommend(history=[], k=3, boost_categories={"Brand new": 1000.0}).to_pandas()["item_id"][0] == "i03"
    assert model._engine().catalog.search("renamed", 3)[0]["item_id"] == "i03"


def test_changes_are_kept_by_save_load_and_export_and_leave_the_run_whole(
    model: VariationalAttention, tmp_path: Path
) -> None:
    model.add_items(NEW)
    model.remove_items(["i03"])
    model.save(tmp_path / "run")
    again = load(tmp_path / "run", device="cpu")
    pd.testing.assert_frame_equal(
        again.recommend(history=["n1"], k=9).to_pandas(), model.recommend(history=["n1"], k=9).to_pandas()
    )
    (tmp_path / "run" / CHANGES).unlink()
    assert load(tmp_path / "run", device="cpu").checkpoint.changes == CatalogChanges()


def test_model_that_knows_an_added_item_serves_it_as_its_own(engines: ChangeableEngine) -> None:
    known = ItemDetails(item_id="i03", title="Its new title", texts={"text": "a toy"})
    engine = engines.engine(CatalogChanges(items=(known, ItemDetails(item_id="n1"))))
    assert (engine.vocabulary.num_items, engine.health["added_items"]) == (41, 1)
    table = answered(engine, [], **{**EVERYTHING, "k": 41})
    assert table.set_index("item_id").loc["i03", ["title", "source"]].tolist() == ["Its new title", "events"]


@pytest.mark.parametrize(
    ("table", "named"),
    [
        (pd.DataFrame({"item_id": ["n8", "n9", "n9"], "title": ["a", "b", "c"]}), "n9"),
        (pd.DataFrame({"item_id": ["n7", "n8", "n9"], "v": [[1.0, 2.0], [1.0, 2.0], [1.0]]}), "n9"),
        (pd.DataFrame({"item_id": ["n8", "n9"], "v": [[1.0, 2.0], [1.0, float("nan")]]}), "n9"),
        (pd.DataFrame({"item_id": ["n9"], "title": ["x" * 70_000]}), "n9"),
        (pd.DataFrame({"title": ["x"]}), "item_id"),
    ],
)
def test_bad_table_is_one_error_and_changes_nothing(
    model: VariationalAttention, table: pd.DataFrame, named: str
) -> None:
    with pytest.raises(InputError, match=named):
        model.add_items(table)
    assert model.checkpoint.changes == CatalogChanges()
    with pytest.raises(InputError, match="n9"):
        model.remove_items(["i00", "n9"])
    assert model.vocabulary.num_items == 40


@pytest.mark.unchecked
def test_evaluation_is_that_of_the_trained_items(model: VariationalAttention) -> None:
    model.add_items(NEW)
    assert "variseq" in str(model.evaluate(k=5))


def test_items_commands_say_what_happened(run_folder: Path, tmp_path: Path) -> None:
    load(run_folder, device="cpu").save(tmp_path / "run")
    (tmp_path / "new.csv").write_text('item_id,title,category\nn1,New toy,Toys\n"n,2",Other,Toys\ni00,Toys no. 1,\n')
    assert "2 added, 0 updated, 1 not changed" in succeed("items", "add", tmp_path / "run", tmp_path / "new.csv").out
    assert "n1\tNew toy\tToys" in succeed("items", "list", tmp_path / "run").out
    assert "2 removed, 0 not changed" in succeed("items", "remove", tmp_path / "run", "n,2", "i03").out
    assert "i03\tremoved" in succeed("items", "list", tmp_path / "run").out
    refuse("'n9'", "items", "remove", tmp_path / "run", "n9")
    shown = succeed("recommend", tmp_path / "run", "--history", "i00,n1", "--candidates", "n1", "--include-seen").out
    assert "New toy" in shown
