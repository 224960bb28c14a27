"""A run on another catalog: forecasts from what is known of its items in every way of answering; clear refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from tests.conftest import small_model
from tests.recommend.test_changed_catalog import answered
from tests.terminal.invoke import refuse, succeed
from variseq.errors import InputError
from variseq.estimator import VariationalAttention, load
from variseq.export import export
from variseq.inference.engine import load_engine
from variseq.log import LogPart

KINDS = ("Toys", "Garden", "Books", "Music")
OTHER = pd.DataFrame(
    {
        "item_id": [f"x{number}" for number in range(12)],
        "title": [f"{KINDS[number % 4]} no. {number}" for number in range(12)],
        "category": [KINDS[number % 4] for number in range(12)],
    }
)
EVERYTHING = {"k": 12, "exclude_seen": False}


@pytest.fixture(scope="module")
def model(shop_parts: tuple[LogPart, LogPart, LogPart]) -> VariationalAttention:
    train, valid, _ = shop_parts
    return small_model(max_epochs=2).fit(train, valid, verbose=0)


@pytest.fixture(scope="module")
def other(model: VariationalAttention) -> VariationalAttention:
    return model.with_catalog(OTHER)


def test_vectors_are_those_of_the_map_and_the_other_weights_stay(
    model: VariationalAttention, other: VariationalAttention
) -> None:
    expected, _ = model.checkpoint.new_item_vectors.of(other.checkpoint.items)
    network, before = other.checkpoint.network, model.checkpoint.network
    torch.testing.assert_close(network.item_vectors.detach(), torch.from_numpy(expected))
    torch.testing.assert_close(network.embedding.item[-1], before.embedding.item[-1])
    torch.testing.assert_close(network.encoder.state_dict(), before.encoder.state_dict())
    assert not network.item_bias.any()


def test_other_items_are_forecast_by_their_content_alone(other: VariationalAttention) -> None:
    for history in ([], ["x0"], ["x0", "x5", "x0"]):
        table = other.recommend(history=history, **EVERYTHING).to_pandas()
        assert sorted(table["item_id"]) == sorted(OTHER["item_id"])
        assert table["probability"].sum() == pytest.approx(1, abs=1e-5)
        assert set(table["source"]) == {"content"}
    assert not {"x0"} & set(other.recommend(history=["x0"], k=11).to_pandas()["item_id"])


def test_order_of_the_rows_and_of_the_ids_decides_nothing(model: VariationalAttention) -> None:
    renamed = OTHER.assign(item_id=[900 - number for number in range(12)]).sample(frac=1, random_state=0)
    expected = model.with_catalog(OTHER).recommend(history=["x3", "x4"], **EVERYTHING).to_pandas()
    found = model.with_catalog(renamed).recommend(history=[897, 896], **EVERYTHING).to_pandas()
    assert found["item_id"].dtype == np.int64
    by_title = [one.set_index("title")["probability"].sort_index() for one in (expected, found)]
    np.testing.assert_allclose(by_title[0], by_title[1], rtol=1e-4)


def test_own_model_stays_as_it_was(model: VariationalAttention, other: VariationalAttention) -> None:
    assert model.vocabulary.num_items == 40
    assert set(model.recommend(history=["i00"], k=3).to_pandas()["source"]) == {"events"}
    assert other.vocabulary.num_users == 0


def test_saved_and_exported_run_answers_alike(
    other: VariationalAttention, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("variseq.export.EXACT_ITEMS", 5)
    other.save(tmp_path / "run")
    expected = other.recommend(history=["x1", "x6"], **EVERYTHING).to_pandas()
    pd.testing.assert_frame_equal(
        load(tmp_path / "run", device="cpu").recommend(history=["x1", "x6"], **EVERYTHING).to_pandas(), expected
    )
    engine = load_engine(export(tmp_path / "run", tmp_path / "export"))
    assert engine.index is None, "all items are new, and all are looked at"
    found = answered(engine, ["x1", "x6"], **EVERYTHING)
    assert found["item_id"].tolist() == expected["item_id"].tolist()
    np.testing.assert_allclose(found["probability"], expected["probability"], rtol=1e-4, atol=1e-6)


def test_items_can_be_added_to_another_catalog(model: VariationalAttention) -> None:
    changed = model.with_catalog(OTHER)
    changed.add_items(pd.DataFrame({"item_id": ["n1"], "title": ["Toys no. 99"]}))
    table = changed.recommend(history=["x0"], k=13, exclude_seen=False).to_pandas()
    assert "n1" in set(table["item_id"])
    assert table["probability"].sum() == pytest.approx(1, abs=1e-5)


def test_items_of_which_nothing_is_read_are_counted(model: VariationalAttention) -> None:
    with pytest.warns(UserWarning, match=r"1 of 3 items have nothing that the run reads .*: 'b'"):
        model.with_catalog(pa.table({"item_id": ["a", "b", "c"], "title": ["Toys", "qqq", "Books no."]}))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (pa.table({"item_id": ["a", "b"], "title": ["qqq", "zzz"]}), "reads nothing of these 2 items. It reads: text"),
        (pa.table({"item_id": ["a"], "title": ["Toys"]}), "at least 2"),
        (pa.table({"item_id": ["a", "a"], "title": ["Toys", "Books"]}), "'a'"),
        (pa.table({"title": ["Toys", "Books"]}), "item_id"),
    ],
)
def test_bad_catalog_is_one_error(model: VariationalAttention, items: pa.Table, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.with_catalog(items)


def test_sets_are_refused_as_nothing_was_calibrated_there(other: VariationalAttention) -> None:
    with pytest.raises(InputError, match="conformal"):
        other.recommend(history=["x0"], conformal_level=0.9)


def test_run_that_knows_nothing_of_its_items_is_refused(shop_parts: tuple[LogPart, LogPart, LogPart]) -> None:
    train, valid, _ = shop_parts
    by_events = small_model(max_epochs=1, use_content=False, use_categories=False).fit(train, valid, verbose=0)
    with pytest.raises(InputError, match="by their events alone"):
        by_events.with_catalog(OTHER)


def test_commands_recommend_from_another_catalog_and_write_its_run(model: VariationalAttention, tmp_path: Path) -> None:
    run, items = tmp_path / "run", tmp_path / "other.csv"
    model.save(run)
    OTHER.to_csv(items, index=False)
    first = succeed("recommend", run, "--items", items, "--history", "x0,x4", "-k", "3").out
    assert "no." in first
    refuse("whose users the run does not know", "recommend", run, "--items", items, "--user", "u1")
    assert "12 items" in succeed("items", "replace", run, items, "--out", tmp_path / "replaced").out
    assert succeed("recommend", tmp_path / "replaced", "--history", "x0,x4", "-k", "3").out == first
    refuse("exists", "items", "replace", run, items, "--out", tmp_path / "replaced")
