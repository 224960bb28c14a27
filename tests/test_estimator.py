from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from tests.conftest import BASELINES, SHORT_TRAINING, SMALL_NETWORK, small_model
from tests.training.some_runs import are_equal, weights_of, without_times
from variseq.errors import CheckpointError, InputError
from variseq.estimator import VariationalAttention, load
from variseq.events.simulate import SimulationOptions, simulate
from variseq.log import Log, LogPart, read
from variseq.training.callbacks import TrainingCallback, read_metrics

Parts = tuple[LogPart, LogPart, LogPart]


@pytest.fixture(scope="module")
def trained(shop_parts: Parts) -> VariationalAttention:
    """A model that was trained in this process as the one in `run_folder` was."""
    return small_model().fit(*shop_parts[:2], verbose=0)


def test_loaded_model_recommends_the_same(trained: VariationalAttention, run_folder: Path) -> None:
    loaded = load(run_folder)
    users = trained.vocabulary.users.to_pylist()[:30]
    assert loaded.recommend(users=users).to_dicts() == trained.recommend(users=users).to_dicts()
    items = trained.vocabulary.items.to_pylist()[:3]
    pd.testing.assert_frame_equal(
        loaded.recommend(history=items).to_pandas(), trained.recommend(history=items).to_pandas()
    )
    pd.testing.assert_frame_equal(loaded.similar_items(items), trained.similar_items(items))
    assert repr(loaded) == repr(trained)
    assert (loaded.size, loaded.seed) == ("tiny", 0)
    assert loaded.model.items() >= SMALL_NETWORK.items()
    assert loaded.training.items() >= SHORT_TRAINING.items()


def test_loaded_model_evaluates_on_its_own_split_to_the_same_numbers(
    trained: VariationalAttention, run_folder: Path, shop_parts: Parts
) -> None:
    own = trained.evaluate(shop_parts[2], k=5)
    loaded = load(run_folder).evaluate(k=5)
    assert loaded.row("variseq") == own.row("variseq")
    assert [evaluation.model for evaluation in own.evaluations] == ["variseq", *BASELINES]
    assert "ndcg@5" in str(own)


def test_run_without_histories_knows_no_users_and_answers_for_a_history(
    fitted: VariationalAttention, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "bare", with_histories=False)
    assert not list((tmp_path / "bare").glob("histor*"))
    somebody = fitted.vocabulary.users[0].as_py().encode()
    files = [path for path in (tmp_path / "bare").rglob("*") if path.is_file()]
    assert not [path.name for path in files if somebody in path.read_bytes()]
    bare = load(tmp_path / "bare")
    items = fitted.vocabulary.items.to_pylist()[:3]
    pd.testing.assert_frame_equal(
        bare.recommend(history=items).to_pandas(), fitted.recommend(history=items).to_pandas()
    )
    for ask in (lambda: bare.recommend(users=["u001"]), bare.evaluate):
        with pytest.raises(InputError, match="saved without histories"):
            ask()
    assert fitted.checkpoint.histories is not None, "the model that was saved keeps its own"


def test_part_of_another_log_or_split_is_refused(
    fitted: VariationalAttention, shop_log: Log, shop_parts: Parts
) -> None:
    by_time = shop_log.split("time")
    with pytest.raises(InputError, match="another log or split"):
        fitted.evaluate(by_time[2])
    with pytest.raises(InputError, match="of another log or split"):
        small_model().fit(shop_parts[0], by_time[1], verbose=0)
    with pytest.raises(InputError, match="'train' part and a 'test' part"):
        small_model().fit(shop_parts[0], shop_parts[2], verbose=0)
    with pytest.raises(InputError, match="no event to predict"):
        fitted.evaluate(shop_parts[0])


def test_model_that_is_not_fitted_says_so(tmp_path: Path) -> None:
    model = small_model()
    assert "not fitted" in repr(model)
    similar, save = (lambda: model.similar_items(["a"])), (lambda: model.save(tmp_path / "run"))
    for ask in (model.recommend, model.evaluate, similar, save):
        with pytest.raises(InputError, match="The model is not fitted"):
            ask()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"model": {"widht": 32}}, r"there is no model\.widht"),
        ({"model": {"hidden_size": 10, "num_heads": 4}}, "hidden_size 10 is not a multiple of num_heads 4"),
        ({"seed": -1}, r"training\.seed = -1: "),
    ],
)
def test_wrong_setting_is_one_message_that_names_the_field(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        VariationalAttention("tiny", **settings)
    assert "\n" not in str(caught.value)


def test_unknown_size_or_device_is_refused() -> None:
    with pytest.raises(InputError, match="Allowed: tiny, small, medium, large"):
        VariationalAttention("huge")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Allowed: 'auto', 'cpu', 'cuda'"):
        VariationalAttention(device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="torch finds no GPU"):
            VariationalAttention(device="cuda")
        assert VariationalAttention(device="auto").device.type == "cpu"


def test_folder_that_exists_is_refused_before_any_work(shop_parts: Parts, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match="exists already"):
        small_model(max_epochs=10_000).fit(shop_parts[0], shop_parts[1], folder=tmp_path / "run", verbose=0)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    with pytest.raises(InputError, match="Give a folder"):
        small_model().fit(shop_parts[0], shop_parts[1], resume=True, verbose=0)


class ImpatientUser(TrainingCallback):
    """A user who presses Ctrl-C after the second epoch."""

    def on_epoch(self, record: dict[str, Any]) -> None:
        if record["epoch"] == 1:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
def test_interrupted_fit_goes_on_to_the_same_run(run_folder: Path, shop_parts: Parts, tmp_path: Path) -> None:
    train, valid, _ = shop_parts
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        small_model().fit(train, valid, folder=folder, callback=ImpatientUser())
    assert [path.name for path in tmp_path.iterdir()] == ["run.unfinished"]
    with pytest.raises(CheckpointError, match="does not exist"):
        load(folder)
    with pytest.raises(InputError, match="unfinished run"):
        small_model().fit(train, valid, folder=folder, verbose=0)
    resumed = small_model().fit(train, valid, folder=folder, resume=True, verbose=0)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    whole = load(run_folder)
    assert are_equal(weights_of(resumed.checkpoint.network), weights_of(whole.checkpoint.network))
    assert (folder / "weights.safetensors").read_bytes() == (run_folder / "weights.safetensors").read_bytes()
    metrics = [without_times(read_metrics(one / "metrics.jsonl")) for one in (folder, run_folder)]
    assert metrics[0] == metrics[1]
    assert (folder / "config.yaml").read_text() == (run_folder / "config.yaml").read_text()


def test_seen_items_are_left_out_as_the_log_suggested_unless_asked_otherwise(
    fitted: VariationalAttention, run_folder: Path
) -> None:
    users = fitted.vocabulary.users.to_pylist()[:20]
    pd.testing.assert_frame_equal(
        fitted.recommend(users).to_pandas(), fitted.recommend(users, exclude_seen=True).to_pandas()
    )
    # Asked for all items, a model that was fitted to new ones gives seen items the counted share of repeats.
    catalog = fitted.recommend(users, k=fitted.vocabulary.num_items, exclude_seen=False).to_pandas()
    histories = load(run_folder).checkpoint.histories
    for user, found in enumerate(users):
        seen = set(fitted.vocabulary.item_ids(histories.history(user).item))
        of_user = catalog[catalog["user_id"] == found]
        assert of_user["probability"].sum() == pytest.approx(1, abs=1e-4)
        of_seen = of_user.loc[of_user["item_id"].isin(seen), "probability"].sum()
        assert of_seen == pytest.approx(fitted.checkpoint.calibrated.repeat_share, rel=1e-3)
    judged = [fitted.evaluate(exclude_seen=excludes).row("variseq") for excludes in (True, False)]
    assert judged[0]["nll"] == pytest.approx(judged[1]["nll"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::variseq.errors.PosteriorCollapseWarning")
def test_values_of_the_log_are_learned_and_integers_come_back_as_integers(tmp_path: Path) -> None:
    sim = simulate(SimulationOptions(num_users=60, num_items=20, num_categories=2, mean_events=10, seed=1))
    frame = sim.events().to_pandas()
    frame["user_id"] = frame["user_id"].str[1:].astype(int) * 7
    frame["item_id"] = frame["item_id"].str[1:].astype(int) + 1000
    train, valid, _ = read(frame).split("leave-one-out")
    model = small_model(max_epochs=2, value_loss_weight=1.0).fit(train, valid, folder=tmp_path / "run", verbose=0)
    assert model.checkpoint.network.value_head is not None
    losses = [record["regression"] for record in model.checkpoint.metrics]
    assert losses[1] < losses[0]
    found = load(tmp_path / "run").recommend(users=[14, 999_999], k=2).to_pandas()
    assert found["user_id"].tolist() == [14, 14, 999_999, 999_999]
    assert found["item_id"].between(1000, 1019).all()
