"""One answer by attributes: in Python, from an export, over HTTP and on the command line."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tests.serving.server_process import serving_here
from tests.terminal.invoke import refuse, succeed
from variseq.artifacts.folder import TABLES, add_files
from variseq.errors import InputError
from variseq.estimator import VariationalAttention, load
from variseq.inference.engine import load_engine
from variseq.ranking.attributes import MAX_LENGTH, Attribute, UserAttributes
from variseq.ranking.engine import Answer, Request
from variseq.ranking.options import RecommendOptions

GIVEN = {"plan": "paid", "age": "44"}


@pytest.fixture(scope="module")
def model(fitted: VariationalAttention) -> VariationalAttention:
    """The fitted model with attributes."""
    checkpoint = fitted.checkpoint
    assert checkpoint is not None
    num_items = checkpoint.vocabulary.num_items
    count = np.random.default_rng(0).integers(0, 40, size=(2, num_items)).astype(np.int32)
    attributes = UserAttributes(
        (
            Attribute("plan", ("free", "paid"), strength=0.75),
            Attribute("age", ("up to 30", "above 30"), True, (30.0,), (0, 1), strength=0.5),
        ),
        np.arange(num_items),
        np.concatenate([count, count[::-1]]),
        fade=0.5,
    )
    tensors = {name: torch.from_numpy(array) for name, array in attributes.tensors().items()}
    found = VariationalAttention("tiny", device="cpu")
    found.checkpoint = replace(checkpoint, counts=checkpoint.counts | tensors)
    return found


@pytest.fixture(scope="module")
def exported(model: VariationalAttention, bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported model with the same attributes."""
    folder = tmp_path_factory.mktemp("attributes")
    shutil.copytree(bundle_folder, folder / "model")
    assert model.checkpoint is not None
    assert model.checkpoint.attributes is not None
    save_file(load_file(bundle_folder / TABLES) | model.checkpoint.attributes.tensors(), folder / TABLES)
    add_files(folder / "model", {TABLES: folder / TABLES})
    return folder / "model"


def test_answer_follows_attributes_and_names_them(model: VariationalAttention) -> None:
    plain, paid = model.recommend(history=[]), model.recommend(history=[], attributes=GIVEN)
    assert list(plain.item_id) != list(paid.item_id)
    assert str(plain.fallback[0]).startswith("no known item")
    assert str(paid.fallback[0]).endswith("of people with plan=paid, age=above 30")
    unknown = model.recommend(users=["nobody"], attributes=GIVEN)
    assert list(unknown.item_id) == list(paid.item_id)
    assert str(unknown.fallback[0]).startswith("unknown user")
    odd = model.recommend(history=[], attributes={"plan": "gold"})
    assert list(odd.item_id) == list(plain.item_id)
    assert "plan='gold' has no group" in str(odd.fallback[0])
    short = model.recommend(history=["i01"], attributes=GIVEN)
    assert short.fallback[0] is None
    assert list(short.score) != list(model.recommend(history=["i01"]).score)


def test_impossible_attributes_are_refused(model: VariationalAttention, fitted: VariationalAttention) -> None:
    for attributes, message in (
        ({"plann": "paid"}, "'plann'.*plan, age"),
        ("plan=paid", "no mapping"),
        ({"plan": ["paid"]}, "texts and numbers"),
    ):
        with pytest.raises(InputError, match=message):
            model.recommend(history=[], attributes=attributes)
    with pytest.raises(InputError, match="--users FILE"):
        fitted.recommend(history=[], attributes=GIVEN)


def test_export_gives_the_same_answers_in_one_batch(model: VariationalAttention, exported: Path) -> None:
    engine = load_engine(exported)
    histories = [[], [], ["i01", "i02"], ["i01", "i02"]]
    attributes = [GIVEN, {}, GIVEN, {}]
    questions = [
        (engine.given(history), Request(RecommendOptions(attributes=given)))
        for history, given in zip(histories, attributes, strict=True)
    ]
    for history, given, answer in zip(histories, attributes, engine.answer(questions), strict=True):
        expected = model.recommend(history=history, attributes=given)
        assert isinstance(answer, Answer)
        assert list(answer.recommendations.item_id) == list(expected.item_id)
        np.testing.assert_allclose(answer.recommendations.probability, expected.probability, rtol=1e-3)
        assert answer.fallback == expected.fallback[0]


def test_server_takes_attributes(model: VariationalAttention, exported: Path) -> None:
    expected = model.recommend(history=[], attributes=GIVEN)
    with serving_here(exported) as server:
        found = server.recommend("nobody", attributes={"plan": "paid", "age": 44})
        assert [one["item_id"] for one in found["recommendations"]] == list(expected.item_id)
        assert found["fallback"].startswith("unknown user")
        assert found["fallback"].endswith("of people with plan=paid, age=above 30")
        bad = server.client.post("/v1/recommend", json={"history": [], "attributes": {"plann": "paid"}})
        assert bad.status_code == 400
        assert "plan, age" in bad.text


def test_command_line_takes_attributes(model: VariationalAttention, tmp_path: Path) -> None:
    model.save(tmp_path / "run")
    expected = list(load(tmp_path / "run").recommend(history=[], attributes=GIVEN, k=3).item_id)
    out = succeed("recommend", tmp_path / "run", "--attributes", "plan=paid,age=44", "-k", 3).out
    assert all(item in out for item in expected)
    assert "plan=paid" in out
    refuse("NAME=VALUE", "recommend", tmp_path / "run", "--attributes", "paid")


def test_evaluation_has_a_row_with_attributes(model: VariationalAttention) -> None:
    users = model.vocabulary.users.to_pylist()
    table = pd.DataFrame({"user_id": users, "plan": ["free", "paid"] * (len(users) // 2)})
    results, plain = (model.evaluate(users=users, targets="first") for users in (table, None))
    nll = [one.forecasts.nll for one in (plain["variseq"], results["variseq"], results["variseq, attributes"])]
    np.testing.assert_array_equal(nll[0], nll[1])
    is_short = plain["variseq"].history_length <= MAX_LENGTH
    assert (nll[0][is_short] != nll[2][is_short]).all()
    np.testing.assert_array_equal(nll[0][~is_short], nll[2][~is_short])
    assert results.num_competitors == 1
