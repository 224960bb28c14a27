"""A private run from a log to recommendations: what its folder holds, what it answers, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from typer.testing import CliRunner

import variseq as vs
from tests.model.some_networks import small_network
from variseq.cli import app
from variseq.errors import CheckpointError, InputError
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.log import Log
from variseq.privacy.alike_items import AlikeItems, public_content, with_alike
from variseq.privacy.chosen_weight import CONTENT_WEIGHTS, chosen_weight
from variseq.privacy.guarantee import faults_of, guarantee
from variseq.privacy.noise import no_noise
from variseq.privacy.private_run import NetworkShare, PrivateRun, item_tables, mixture_model
from variseq.privacy.private_state import PrivateState
from variseq.privacy.release import PrivacyOptions, pair_counts, release
from variseq.private_model import PrivateModel
from variseq.ranking.calibration import LENGTH_EDGES, Calibration
from variseq.ranking.mixture import MixtureModel
from variseq.recommend.network_model import ModelRecommender, NetworkEncoder
from variseq.terminal.personal_data import find

pytestmark = pytest.mark.unchecked
"""Whole fits; their parts are tested with checks of types beside them."""
SHOP = vs.simulate(vs.SimulationOptions(num_users=500, num_items=40, seed=5))
CATALOG = pd.concat(
    [SHOP.items().to_pandas(), pd.DataFrame({"item_id": ["never"], "title": ["Nobody had it"], "category": ["Toys"]})]
)


@pytest.fixture(scope="module")
def log() -> Log:
    return vs.read(SHOP.events()).on_catalog(CATALOG)


@pytest.fixture(scope="module")
def private_run(log: Log, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("private") / "run"
    train, valid, _ = log.split("leave-one-out")
    PrivateModel.fit(train, valid, folder, PrivacyOptions(8.0, exclude_seen=False))
    return folder


def test_catalog_decides_which_items_there_are(log: Log) -> None:
    assert log.vocabulary.items.to_pylist() == sorted(CATALOG["item_id"])
    assert log.items is not None
    position = log.vocabulary.item_positions(["never"])[0]
    assert log.items.titles([position]) == ["Nobody had it"]
    assert position not in log.histories.item


def test_events_of_other_items_are_counted_and_left_out() -> None:
    whole = vs.read(SHOP.events())
    few = whole.on_catalog(CATALOG.iloc[:10])
    expected = np.isin(whole.vocabulary.item_ids(whole.histories.item), CATALOG["item_id"].iloc[:10]).sum()
    assert few.histories.num_events == expected
    assert few.report.filtered["item not in the catalog"] == whole.histories.num_events - expected
    assert few.vocabulary.num_users == (few.histories.lengths > 0).sum()
    titles = few.items.titles(range(10)) if few.items is not None else []
    assert titles == CATALOG.iloc[:10].sort_values("item_id")["title"].tolist()


def test_folder_names_no_user_and_holds_nothing_but_the_release(private_run: Path) -> None:
    assert faults_of(private_run) == []
    content = b"".join(path.read_bytes() for path in private_run.rglob("*") if path.is_file())
    users = SHOP.events().to_pandas()["user_id"].unique()
    assert not any(f'"{user}"'.encode() in content for user in users)
    manifest = json.loads((private_run / "manifest.json").read_text())
    assert "split_hash" not in json.dumps(manifest)
    assert manifest["privacy"]["epsilon"] <= 8


def test_what_an_ordinary_run_gives_away_names_each_of_its_files(run_folder: Path) -> None:
    printed = CliRunner().invoke(app, ["privacy", str(run_folder)])
    assert printed.exit_code == 1
    assert "is not private" in printed.stdout
    files = {path.relative_to(run_folder).as_posix() for path in run_folder.rglob("*") if path.is_file()}
    assert [name for name in files if f"- {name}: " not in printed.stdout] == []


def test_erasure_leaves_private_runs_as_they_are(private_run: Path) -> None:
    users = SHOP.events().to_pandas()["user_id"].unique().tolist()
    assert find([private_run.parent], users, private_run.parent / "receipts") == []


def test_further_file_in_the_folder_is_found(private_run: Path) -> None:
    further = private_run / "evaluation.json"
    further.write_text("{}")
    found = faults_of(private_run)
    further.unlink()
    assert len(found) == 1
    assert "evaluation.json" in found[0]


def test_private_model_is_better_than_popularity_and_recommends_the_catalog(log: Log, private_run: Path) -> None:
    model = PrivateModel(private_run)
    _, valid, test = log.split("leave-one-out")
    results = model.evaluate(test, valid)
    assert results.row("variseq, private")["ndcg@10"] > 1.5 * results.row("popular")["ndcg@10"]
    assert results.row("variseq, private")["nll"] < results.row("popular")["nll"]
    found = model.recommend(history=["i01", "i02"], k=5).to_pandas()
    assert len(found) == 5
    assert np.all(np.diff(found["probability"]) <= 0)
    assert model.recommend(history=[], k=1).to_pandas()["fallback"].notna().all()
    assert model.engine.catalog.similar("i01", 3)[0]["score"] <= 1.0001


def test_content_of_the_catalog_helps_where_noise_is_large(log: Log, tmp_path: Path) -> None:
    train, valid, test = log.split("leave-one-out")
    found = {}
    for content in (0.0, 0.5):
        options = PrivacyOptions(0.2, exclude_seen=False, content=content)
        model = PrivateModel.fit(train, valid, tmp_path / str(content), options)
        found[content] = model.evaluate(test, valid).row("variseq, private")["nll"]
    assert found[0.5] < found[0.0]
    bare = vs.read(SHOP.events()).on_catalog(CATALOG[["item_id"]]).split("leave-one-out")
    with pytest.raises(InputError, match="content"):
        PrivateModel.fit(*bare[:2], tmp_path / "bare", PrivacyOptions(1.0, content=0.3))
    with pytest.raises(InputError, match="content"):
        PrivacyOptions(1.0, content=1.0)


def test_choice_of_content_is_paid_for_where_there_is_content(log: Log, tmp_path: Path) -> None:
    bare = vs.read(SHOP.events()).on_catalog(CATALOG[["item_id"]])
    for name, of_catalog, num_mechanisms in (("own", log, 3), ("bare", bare, 2)):
        train, valid, _ = of_catalog.split("leave-one-out")
        model = PrivateModel.fit(train, valid, tmp_path / name, PrivacyOptions(3.0, content="auto"))
        assert len(model.ledger.mechanisms) == num_mechanisms
        assert 2.9 < model.ledger.epsilon() <= 3


def test_content_that_says_nothing_is_not_chosen(log: Log) -> None:
    """Titles of the shop name its groups; titles that are dealt anew say nothing."""
    dealt = CATALOG.assign(item_id=np.random.default_rng(0).permutation(CATALOG["item_id"]))
    assert chosen_of(log) > chosen_of(vs.read(SHOP.events()).on_catalog(dealt))


def chosen_of(log: Log) -> float:
    """The weight that is chosen for a log without noise."""
    train, valid, _ = log.split("leave-one-out")
    return chosen_weight(model_of(log), CONTENT_WEIGHTS, valid.part, train.vocabulary.users.to_pylist(), 1.0, no_noise)


def model_of(log: Log) -> Callable[[float], MixtureModel]:
    """The model of a release without noise, by the weight of content."""
    train, _, _ = log.split("leave-one-out")
    assert train.items is not None
    options, content = PrivacyOptions(3.0), public_content(train.items, train.vocabulary)
    assert content is not None
    counts = pair_counts(release(train.part.history(), train.part.num_items, options, no_noise))
    alike = AlikeItems.of(content, counts.share)
    return lambda weight: mixture_model(with_alike(counts, alike, weight), options)


def test_choice_without_noise_is_that_of_the_best_weight(log: Log) -> None:
    """The noisy sum without noise finds the weight whose evaluation is best."""
    _, valid, _ = log.split("leave-one-out")
    models = [ModelRecommender(model_of(log)(weight)) for weight in CONTENT_WEIGHTS]
    ndcg = [evaluate(model, valid.part, EvaluationOptions()).metric("ndcg").mean() for model in models]
    assert chosen_of(log) == CONTENT_WEIGHTS[int(np.argmax(ndcg))]


def test_model_in_memory_answers_as_the_one_of_the_folder(log: Log, tmp_path: Path) -> None:
    train, _, test = log.split("leave-one-out")
    assert train.items is not None
    options = PrivacyOptions(3.0, content=0.0)
    released = release(train.part.history(), train.part.num_items, options)
    counts = pair_counts(released)
    catalog = (train.vocabulary, train.items, {"method": "leave-one-out"})
    PrivateRun(released.ledger, counts, options, *catalog).save(tmp_path / "run")
    histories = test.part.histories_before(test.part.queries())
    scores = [
        ModelRecommender(model).scores(histories)
        for model in (mixture_model(counts, options), PrivateModel(tmp_path / "run").engine.model)
    ]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5)


def test_network_stands_beside_the_counts(log: Log, tmp_path: Path) -> None:
    """With weight w, p is w times that of the network and 1 - w times that of the counts; the folder answers alike."""
    train, _, test = log.split("leave-one-out")
    assert train.items is not None
    options, share = PrivacyOptions(3.0, content=0.0, exclude_seen=False), NetworkShare(0.3, temperature=1.5)
    released = release(train.part.history(), train.part.num_items, options)
    counts, network = pair_counts(released), small_network(num_items=train.part.num_items)
    catalog = (train.vocabulary, train.items, {"method": "leave-one-out"})
    PrivateRun(released.ledger, counts, options, *catalog, network=(network, share)).save(tmp_path / "run")
    found = PrivateModel(tmp_path / "run")
    assert not faults_of(tmp_path / "run")
    histories = test.part.histories_before(test.part.queries()).rows(np.arange(20))
    encoder, vectors = NetworkEncoder(network), network.vectors_with_bias
    warm = Calibration(0, temperatures=(share.temperature,) * len(LENGTH_EDGES))
    models = [
        mixture_model(counts, options, (encoder, vectors, share)),
        found.engine.model,
        mixture_model(counts, options),
        MixtureModel(encoder, item_tables(counts, vectors), warm),
    ]
    in_memory, of_folder, of_counts, alone = (ModelRecommender(one).scores(histories).exp().numpy() for one in models)
    np.testing.assert_allclose(in_memory, 0.3 * alone + 0.7 * of_counts, rtol=2e-4, atol=1e-7)
    np.testing.assert_allclose(of_folder, in_memory, rtol=1e-3, atol=1e-6)
    assert len(found.recommend(history=["i01", "i02"]).item_id) == 10


def test_same_log_gives_another_release_each_time(log: Log, private_run: Path, tmp_path: Path) -> None:
    train, valid, _ = log.split("leave-one-out")
    again = PrivateModel.fit(train, valid, tmp_path / "again", PrivacyOptions(8.0, exclude_seen=False))
    assert (again.engine.model.tables.log_share != PrivateModel(private_run).engine.model.tables.log_share).any()


@pytest.mark.parametrize("options", [{"conformal_level": 0.9}, {"strategy": "thompson"}])
def test_what_a_private_model_has_not_is_refused(private_run: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        PrivateModel(private_run).recommend(history=["i01"], **options)


def test_reading_that_depends_on_other_users_is_refused(log: Log, tmp_path: Path) -> None:
    without = vs.read(SHOP.events()).split("leave-one-out")
    by_time = log.split("time")
    core, drawn = (
        vs.read(SHOP.events(), options=options).on_catalog(CATALOG).split("leave-one-out")
        for options in (vs.ReadOptions(min_item_events=5), vs.ReadOptions(ties="shuffle"))
    )
    parts = {"catalog": without, "split": by_time, "min_item_events": core, "ties": drawn}
    for word, (train, valid, _) in parts.items():
        with pytest.raises(InputError, match=word):
            PrivateModel.fit(train, valid, tmp_path / "run", PrivacyOptions(1.0))
    assert not (tmp_path / "run").exists()


def test_private_run_has_no_network_to_load(private_run: Path) -> None:
    with pytest.raises(CheckpointError, match="private"):
        vs.load(private_run)


def test_command_fits_prints_the_guarantee_and_recommends(tmp_path: Path) -> None:
    events, items, out = tmp_path / "events.csv", tmp_path / "items.csv", str(tmp_path / "run")
    SHOP.events().to_pandas().to_csv(events, index=False)
    CATALOG.to_csv(items, index=False)
    runner, fit = CliRunner(), ["fit", str(events), "--private", "3", "--out", out]
    assert isinstance(runner.invoke(app, fit).exception, InputError)
    for wrong in (["--size", "tiny"], ["--seed", "0"], ["--resume"], ["--set", "model.hidden_size=8"]):
        assert isinstance(runner.invoke(app, [*fit, "--items", str(items), *wrong]).exception, InputError)
    for option in (
        ["--delta", "1e-6"],
        ["--max-user-events", "5"],
        ["--pairs", "near"],
        ["--content", "0"],
        ["--network", "no"],
    ):
        assert isinstance(runner.invoke(app, ["fit", str(events), "--out", out, *option]).exception, InputError)
    done = runner.invoke(app, [*fit, "--items", str(items)])
    assert done.exit_code == 0, done.exception
    assert "ε = 3.000" in done.stdout
    assert "variseq, private" in done.stdout
    checked = runner.invoke(app, ["privacy", out, "--files"])
    assert checked.exit_code == 0
    assert "one user with all events" in checked.stdout
    listed = runner.invoke(app, ["recommend", out, "--history", "i01,i02", "-k", "3", "--json"])
    assert len(json.loads(listed.stdout)) == 3
    assert isinstance(runner.invoke(app, ["recommend", out, "--user", "u1"]).exception, InputError)


def test_network_is_trained_where_it_is_wanted_and_stays_in_the_budget(few_steps: int, tmp_path: Path) -> None:
    shop = vs.simulate(vs.SimulationOptions(num_users=30, num_items=12, num_categories=2, mean_events=6, seed=5))
    train, valid, test = vs.read(shop.events()).on_catalog(shop.items()).split("leave-one-out")
    options = PrivacyOptions(8.0, exclude_seen=False, content=0.0, network="yes")
    model = PrivateModel.fit(train, valid, tmp_path / "run", options)
    assert model.ledger.has_choice
    assert 0.99 * 8 < model.ledger.epsilon() <= 8
    *_, steps = model.ledger.mechanisms
    assert (steps.num_steps, steps.sampling_rate) == (few_steps, 0.2)
    assert f"{few_steps} steps with 20.0% of the users" in guarantee(model.engine.health["privacy"])
    assert not faults_of(tmp_path / "run")
    scores = ModelRecommender(model.engine.model).scores(test.part.histories_before(test.part.queries()))
    np.testing.assert_allclose(scores.exp().sum(dim=1), 1.0, rtol=1e-3)


@pytest.mark.usefixtures("few_steps")
def test_interrupted_fit_goes_on_from_its_own_release(tmp_path: Path) -> None:
    shop = vs.simulate(vs.SimulationOptions(num_users=30, num_items=12, num_categories=2, mean_events=6, seed=5))
    train, valid, _ = vs.read(shop.events()).on_catalog(shop.items()).split("leave-one-out")
    options, out = PrivacyOptions(8.0, exclude_seen=False, content=0.0, network="yes"), tmp_path / "run"

    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(InputError):
        PrivateModel.fit(train, valid, out, options, resume=True)
    with pytest.raises(KeyboardInterrupt):
        PrivateModel.fit(train, valid, out, options, interrupt)
    assert [one.name for one in tmp_path.iterdir()] == ["run.unfinished"]
    with safe_open(tmp_path / "run.unfinished" / "state.safetensors", framework="np") as state:
        popularity = state.get_tensor("popularity")
    # A second release would spend the budget again.
    with pytest.raises(InputError, match="--resume"):
        PrivateModel.fit(train, valid, out, options)
    with pytest.raises(InputError, match="epsilon"):
        PrivateModel.fit(train, valid, out, replace(options, epsilon=7.0), resume=True)
    model = PrivateModel.fit(train, valid, out, options, resume=True)
    assert [one.name for one in tmp_path.iterdir()] == ["run"]
    share = np.exp(model.engine.model.tables.log_share)
    likely = popularity > np.median(popularity)
    np.testing.assert_allclose(
        (share / share.sum())[likely] / popularity[likely], (share / popularity)[likely].mean(), rtol=1e-4
    )
    assert model.ledger.epsilon() <= 8
    with pytest.raises(InputError, match="resume"):
        PrivateModel.fit(train, valid, tmp_path / "counts", replace(options, network="no"), resume=True)


def test_damaged_state_is_one_message(tmp_path: Path) -> None:
    state = PrivateState(tmp_path, PrivacyOptions(8.0), "digest")
    (tmp_path / "state.safetensors").write_bytes(b"no state")
    with pytest.raises(CheckpointError):
        state.load()


def test_network_is_trained_for_many_users_alone() -> None:
    decided = [PrivacyOptions(8.0).decided(*one).network for one in ((1_000, 500), (100_000, 500), (100_000, 50_000))]
    assert decided == ["no", "yes", "no"]
    assert PrivacyOptions(0.1).decided(100_000, 500).network == "no"
    assert PrivacyOptions(8.0, network="no").decided(100_000, 500).schedule(100_000) is None
    steps = PrivacyOptions(8.0, network="yes").schedule(100_000)
    assert steps is not None
    assert (steps.expected_users, steps.num_steps) == (1_000, 100)
