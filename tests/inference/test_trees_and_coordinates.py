"""Items in a tree and on a map: what they share, and one forecast in Python, from an export and over HTTP."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from tests.conftest import small_model
from tests.serving.server_process import serving_here
from variseq import read
from variseq.artifacts.folder import TABLES, add_files
from variseq.errors import InputError
from variseq.estimator import VariationalAttention, load
from variseq.events.items import read_new_items
from variseq.export import export
from variseq.inference.engine import load_engine
from variseq.ranking.calibration import NEAR
from variseq.ranking.catalog_changes import CatalogChanges, details_of
from variseq.ranking.changed_engine import ChangeableEngine
from variseq.ranking.engine import Request
from variseq.ranking.near_items import COORDINATES
from variseq.ranking.options import RecommendOptions
from variseq.sequences.histories import Histories

NUM_TOWNS, OF_TOWN, NUM_USERS = 8, 12, 150
NUM_ITEMS = NUM_TOWNS * OF_TOWN
TOWN = np.arange(NUM_ITEMS) // OF_TOWN
OPTIONS = RecommendOptions(k=20, exclude_seen=False)


def items() -> pd.DataFrame:
    """Items of towns half a degree apart; a town is a branch of a tree. One item has no coordinates."""
    random = np.random.default_rng(0)
    latitude = 40 + 0.5 * TOWN + random.normal(0, 0.01, NUM_ITEMS)
    longitude = random.normal(7, 0.01, NUM_ITEMS)
    latitude[-1] = longitude[-1] = np.nan
    tree = [f"{'east' if town % 2 else 'west'}|town {town}|{item}" for item, town in enumerate(TOWN.tolist())]
    ids = np.arange(NUM_ITEMS)
    return pd.DataFrame({"item_id": ids, "hierarchy": tree, "lat": latitude, "lon": longitude})


def events() -> pd.DataFrame:
    """People who move on within a town, and sometimes to another one."""
    random, rows = np.random.default_rng(1), []
    for user in range(NUM_USERS):
        town, time = random.integers(NUM_TOWNS), 1_600_000_000
        for _ in range(9):
            town = random.integers(NUM_TOWNS) if random.random() < 0.1 else town
            time += int(random.integers(60, 90_000))
            rows.append((user, int(town * OF_TOWN + random.integers(OF_TOWN)), time))
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("towns") / "run"
    train, valid, _ = read(events(), items=items()).split("leave-one-out")
    small_model(exclude_seen=False).fit(train, valid, folder=folder, verbose=0)
    return folder


@pytest.fixture(scope="module")
def model(run: Path) -> VariationalAttention:
    return load(run)


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(run, tmp_path_factory.mktemp("served") / "model")


def test_near_items_have_weight_where_people_move_on_nearby(model: VariationalAttention) -> None:
    mixture = model._engine().model
    histories = Histories.of_items([[0, 1], [30, 31, 32]])
    weights = mixture.distribution(mixture.encode(histories), histories).weights
    assert mixture.near is not None
    assert (weights[NEAR] > 0.02).all()
    assert mixture.near.dense(histories)[0, TOWN == 0].sum() > 0.9


@pytest.mark.slow
def test_export_and_server_give_the_probabilities_of_the_model(model: VariationalAttention, bundle: Path) -> None:
    engine, histories = load_engine(bundle), [[0, 1], [40, 41, 42], [NUM_ITEMS - 1], []]
    with serving_here(bundle) as server:
        for history in histories:
            expected = model.recommend(history=history, options=OPTIONS).to_pandas()
            (answer,) = engine.answer([(engine.given(history), Request(OPTIONS))])
            assert not isinstance(answer, InputError)
            served = server.recommend(history=[{"item_id": item} for item in history], k=20, exclude_seen=False)
            found = [answer.recommendations.to_pandas(), pd.DataFrame(served["recommendations"])]
            for table in found:
                assert table["item_id"].tolist() == expected["item_id"].tolist()
                np.testing.assert_allclose(table["probability"], expected["probability"], rtol=2e-4)


def test_coordinates_of_another_catalog_are_refused(bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bundle, tmp_path / "model")
    arrays = load_file(bundle / TABLES)
    save_file(arrays | {COORDINATES: arrays[COORDINATES][1:]}, tmp_path / TABLES)
    add_files(folder, {TABLES: tmp_path / TABLES})
    with pytest.raises(InputError, match="different numbers of items"):
        load_engine(folder)


def test_new_item_of_the_branch_of_a_history_ranks_above_one_of_another_branch(run: Path) -> None:
    changed = load(run)
    changed.add_items(pd.DataFrame({"item_id": [1001, 1002], "hierarchy": ["west|town 0|x", "east|town 5|x"]}))
    for history, first in (([0, 3, 5, 7], 1001), ([60, 63, 65, 67], 1002)):
        assert changed.recommend(history=history, candidates=[1001, 1002], k=1).item_id == [first]


@pytest.mark.slow
def test_tree_code_over_http_does_what_the_column_does(bundle: Path, tmp_path: Path) -> None:
    codes = {1001: "west|town 0|x", 1002: "east|town 5", 1003: " west | town 9 "}
    changed = load_engine(shutil.copytree(bundle, tmp_path / "of_column"))
    engines, vocabulary = ChangeableEngine(changed), changed.vocabulary
    table = pd.DataFrame({"item_id": list(codes), "hierarchy": list(codes.values())})
    expected = details_of(*read_new_items(table, vocabulary.items.type))
    after, _ = engines.with_items(CatalogChanges(), expected)
    with serving_here(shutil.copytree(bundle, tmp_path / "served")) as server:
        given = [{"item_id": item_id, "hierarchy": code} for item_id, code in codes.items()]
        response = server.client.post("/v1/items", json={"items": [{"item_id": 7, "hierarchy": "a||b"}, *given]})
        assert response.status_code == 400
        assert "item 7 has 'a||b'" in response.json()["error"]["message"]
        assert server.client.post("/v1/items", json={"items": given}).json()["added"] == len(codes)
        added = server.client.get("/v1/items/added").json()["items"]
        assert {one["item_id"]: tuple(one["categories"]) for one in added} == {
            one.item_id: one.categories for one in after.items
        }
        assert added[2]["categories"] == ["west", "west|town 9"]
        for history, first in (([0, 3, 5, 7], 1001), ([60, 63, 65, 67], 1002)):
            listed = server.recommend(history=history, candidates=[1001, 1002], k=1)["recommendations"]
            assert [one["item_id"] for one in listed] == [first]
        updated = [{"item_id": 1002, "categories": ["own"], "hierarchy": "west|own"}]
        assert server.client.post("/v1/items", json={"items": updated}).json()["updated"] == 1
        added = server.client.get("/v1/items/added").json()["items"]
        assert added[1]["categories"] == ["own", "west", "west|own"]


def test_new_item_that_is_near_ranks_above_one_that_is_far(run: Path) -> None:
    changed = load(run)
    added = {"item_id": [1001, 1002], "latitude": [40.0, 42.5], "longitude": [7.0, 7.0]}
    assert changed.add_items(pd.DataFrame(added)).added == 2
    for history, first in (([0, 3, 5, 7], 1001), ([60, 63, 65, 67], 1002)):
        assert changed.recommend(history=history, candidates=[1001, 1002], k=1).item_id == [first]
    with pytest.raises(InputError, match="item 1003"):
        changed.add_items(pd.DataFrame({"item_id": [1003], "latitude": [95.0], "longitude": [7.0]}))


def test_items_with_few_events_learn_from_their_siblings() -> None:
    """The vectors of rare items point to their own branch, without any coordinates."""
    log, rare = events(), np.arange(0, NUM_ITEMS, OF_TOWN)
    is_rare = log["item_id"].isin(rare)
    log = log[~is_rare | (log.groupby(log["item_id"].where(is_rare)).cumcount() < 1)]
    inside = []
    for table in (items()[["item_id", "hierarchy"]], None):
        train, valid, _ = read(log, items=table).split("leave-one-out")
        fitted = small_model(exclude_seen=False, refit_fraction=0).fit(train, valid, verbose=0)
        known = [item for item in rare.tolist() if item in set(fitted.vocabulary.items.to_pylist())]
        similar = fitted.similar_items(known, k=OF_TOWN - 1)
        inside.append(float(np.mean(TOWN[similar["similar_item_id"]] == TOWN[similar["item_id"]])))
    assert inside[0] > inside[1] + 0.2
