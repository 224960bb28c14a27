"""A run that goes on from an earlier one: what is known keeps its weights, what is new joins, nothing leaks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.conftest import SMALL_NETWORK, small_model
from tests.training.some_runs import every_step
from tests.training.test_resume import InterruptedStep
from variseq.errors import InputError
from variseq.estimator import VariationalAttention
from variseq.events.simulate import Simulation
from variseq.log import Log, LogPart, read
from variseq.model.network import Network, NetworkConfig
from variseq.training.config import TrainingConfig
from variseq.training.warm_start import EPOCHS_SHARE, Start, take_over, warm_training

FEW = {"max_epochs": 2}
Parts = tuple[LogPart, LogPart, LogPart]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::variseq.errors.PosteriorCollapseWarning")]


def before_share(table: pa.Table, share: float) -> pa.Table:
    """The first events, without one of the items."""
    time = np.asarray(table["timestamp"].to_numpy()).astype("datetime64[us]").astype(np.int64)
    earlier = pa.array(time < np.sort(time)[int(share * len(time))])
    kept = table.filter(earlier)
    first_item = sorted(kept["item_id"].to_pylist())[0]
    return kept.filter(pa.compute.not_equal(kept["item_id"], first_item))


@pytest.fixture(scope="module")
def earlier(shop: Simulation) -> VariationalAttention:
    old = read(before_share(shop.events(), 0.6), items=shop.items())
    train, valid, _ = old.split("time", test="none")
    return small_model(**FEW).fit(train, valid, verbose=0)


@pytest.fixture(scope="module")
def newer(shop_log: Log) -> Parts:
    return shop_log.split("time")


def started(earlier: VariationalAttention, log: Log, with_categories: bool) -> tuple[Network, Start]:
    checkpoint = earlier.checkpoint
    torch.manual_seed(0)
    config = checkpoint.network.config.model_copy(update={"num_items": log.vocabulary.num_items})
    network = Network(config)
    if with_categories:
        network.embedding.use_categories(log.items.category_links())
    start = Start.of(checkpoint, log.vocabulary)
    take_over(network, start)
    return network, start


@pytest.mark.parametrize("with_categories", [True, False])
def test_known_items_keep_their_vectors_and_new_ones_begin_among_the_others(
    earlier: VariationalAttention, shop_log: Log, with_categories: bool
) -> None:
    network, start = started(earlier, shop_log, with_categories)
    known = np.flatnonzero(start.items >= 0)
    new = np.flatnonzero(start.items < 0)
    assert len(new)
    old = start.network.item_vectors.detach()
    vectors = network.item_vectors.detach()
    torch.testing.assert_close(vectors[known], old[start.items[known]])
    torch.testing.assert_close(network.item_bias[known], start.network.item_bias[start.items[known]])
    spread = float((old - old.mean(dim=0)).norm(dim=1).max())
    assert float((vectors[new] - old.mean(dim=0)).norm(dim=1).max()) <= spread + 0.5
    torch.testing.assert_close(network.encoder.state_dict(), start.network.encoder.state_dict())
    torch.testing.assert_close(network.embedding.vectors()[-1], start.network.embedding.vectors()[-1])


def test_new_item_begins_at_the_mean_of_its_categories(earlier: VariationalAttention, shop_log: Log) -> None:
    network, start = started(earlier, shop_log, with_categories=True)
    embedding = network.embedding
    new = int(np.flatnonzero(start.items < 0)[0])
    (category,) = embedding.link_category[embedding.link_offsets[new] : embedding.link_offsets[new + 1]].tolist()
    alike = [
        item
        for item in np.flatnonzero(start.items >= 0)
        if embedding.link_category[embedding.link_offsets[item]] == category
    ]
    mean = network.item_vectors[alike].detach().mean(dim=0)
    assert float((network.item_vectors[new].detach() - mean).norm()) < 0.2


def test_warm_start_answers_for_the_newer_log_with_fewer_epochs(
    earlier: VariationalAttention, newer: Parts, shop_log: Log
) -> None:
    train, valid, test = newer
    default = VariationalAttention("tiny", 0, "cpu", SMALL_NETWORK)
    cold, warm = default.settings(train), default.settings(train, earlier)
    assert warm.training.max_epochs == round(EPOCHS_SHARE * cold.training.max_epochs)
    assert (warm.training.deterministic_fraction, cold.training.deterministic_fraction > 0) == (0.0, True)
    model = small_model(**FEW).fit(train, valid, verbose=0, start=earlier)
    assert len(model.checkpoint.metrics) == 2, "what is set by hand wins"
    assert model.vocabulary.num_items == shop_log.vocabulary.num_items
    assert len(model.evaluate(test)["variseq"].user)


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_warm_start_goes_on_with_noise_where_the_earlier_run_chose_it(
    earlier: VariationalAttention, noise: float
) -> None:
    metrics = [record | {"noise": noise} for record in earlier.checkpoint.metrics]
    config = TrainingConfig(deterministic_fraction=0.8, noise_learning_rate=0.001)
    warm = warm_training(config, replace(earlier.checkpoint, metrics=metrics), {})
    assert warm.deterministic_fraction == 1 - noise
    assert not warm.chooses_noise


@pytest.mark.parametrize(
    ("size", "model", "training", "told"),
    [
        ("small", {}, {}, "size='small' does not fit the earlier run. Give its size, 'tiny'"),
        ("tiny", {"hidden_size": 32}, {}, "model.hidden_size=32 does not fit the earlier run, which has 16"),
        ("tiny", {}, {"deterministic_fraction": 1.0}, "trained with noise and this one is to be trained without"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    earlier: VariationalAttention, newer: Parts, size: Any, model: dict[str, Any], training: dict[str, Any], told: str
) -> None:
    other = VariationalAttention(size, 0, "cpu", model, training)
    with pytest.raises(InputError, match=told):
        other.fit(newer[0], newer[1], verbose=0, start=earlier)


@pytest.mark.slow
def test_run_that_has_learned_from_the_test_part_is_refused(shop_log: Log, newer: Parts) -> None:
    train, valid, _ = shop_log.split("time", test="none")
    knows_all = small_model(max_epochs=1).fit(train, valid, verbose=0)
    with pytest.raises(InputError, match=r"has learned from \d+ events of the test part"):
        small_model(**FEW).fit(newer[0], newer[1], verbose=0, start=knows_all)
    with pytest.warns(UserWarning, match=r"has learned from \d+ events of the validation part"):
        small_model(max_epochs=1).fit(train, valid, verbose=0, start=knows_all)


def test_run_that_is_not_fitted_or_of_other_items_is_refused(newer: Parts) -> None:
    with pytest.raises(InputError, match="not fitted"):
        small_model().fit(newer[0], newer[1], verbose=0, start=small_model())
    other = read(
        pa.table(
            {
                "user_id": [f"u{place % 9}" for place in range(90)],
                "item_id": [f"other {place % 7}" for place in range(90)],
                "timestamp": [1_600_000_000 + 60 * place for place in range(90)],
            }
        )
    )
    train, valid, _ = other.split("time", test="none")
    stranger = small_model(max_epochs=1).fit(train, valid, verbose=0)
    with pytest.raises(InputError, match="knows no item of this log"):
        small_model().fit(newer[0], newer[1], verbose=0, start=stranger)


@pytest.mark.slow
def test_resumed_warm_start_is_the_uninterrupted_one_and_needs_its_start(
    earlier: VariationalAttention, newer: Parts, tmp_path: Path
) -> None:
    train, valid, _ = newer
    whole = small_model(**FEW).fit(train, valid, verbose=0, start=earlier)
    with every_step(InterruptedStep(at=7)), pytest.raises(KeyboardInterrupt):
        small_model(**FEW).fit(train, valid, tmp_path / "run", verbose=0, start=earlier)
    with pytest.raises(InputError, match="other settings or data"):
        small_model(**FEW).fit(train, valid, tmp_path / "run", resume=True, verbose=0)
    resumed = small_model(**FEW).fit(train, valid, tmp_path / "run", resume=True, verbose=0, start=earlier)
    ours, theirs = whole.checkpoint.network.state_dict(), resumed.checkpoint.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_behavior_that_the_earlier_run_lacks_begins_anew() -> None:
    old = Network(NetworkConfig(num_items=3, num_behaviors=2, hidden_size=8, latent_dim=4))
    new = Network(NetworkConfig(num_items=3, num_behaviors=3, hidden_size=8, latent_dim=4))
    before = new.embedding.behavior.detach().clone()
    take_over(new, Start(old, np.arange(3), np.array([1, -1, 0])))
    torch.testing.assert_close(new.embedding.behavior[[0, 2]], old.embedding.behavior[[1, 0]])
    torch.testing.assert_close(new.embedding.behavior[1], before[1])
