from __future__ import annotations

import json
import math
import shutil
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import small_model
from tests.training.some_runs import are_equal, context_in, settings_for, weights_of
from variseq.errors import InputError, MissingDependencyError, PosteriorCollapseWarning
from variseq.estimator import load
from variseq.evaluation.splits import leave_one_out
from variseq.log import LogPart
from variseq.sequences.histories import Histories
from variseq.training.callbacks import MetricsFile, read_metrics
from variseq.training.run import Trained, train_network
from variseq.training.trainer import Validation

Parts = tuple[LogPart, LogPart, LogPart]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::variseq.errors.PosteriorCollapseWarning")]

FIXED = {"kl_target": None, "deterministic_fraction": 0.0, "kl_anneal_fraction": 0.0}


def train(parts: Parts, folder: Path | None = None, resume: bool = False, **training: object) -> Trained:
    settings = settings_for(parts[0].part, **training)
    return train_network(parts[0].part, parts[1].part, settings, context_in(folder, resume))


@pytest.mark.parametrize("mean_scale", [1.0, None])
def test_collapsed_run_raises_the_alarm(shop_parts: Parts, mean_scale: float | None) -> None:
    settings = settings_for(shop_parts[0].part, {"mean_scale": mean_scale}, max_epochs=4, beta=100.0, **FIXED)
    with pytest.warns(PosteriorCollapseWarning, match="hardly reads them") as caught:
        collapsed = train_network(shop_parts[0].part, shop_parts[1].part, settings, context_in(None))
    assert collapsed.metrics[-1]["alarms"]
    if mean_scale is None:  # with a scale the means still vary, and only the swap gap shows it
        assert "latent dimensions are active" in str(caught[0].message)
        assert collapsed.metrics[-1]["kl"] < 0.5


@pytest.mark.parametrize("mean_scale", [1.0, None])
def test_healthy_run_raises_no_alarm(shop_parts: Parts, mean_scale: float | None) -> None:
    settings = settings_for(shop_parts[0].part, {"mean_scale": mean_scale}, max_epochs=4, beta=1e-4, **FIXED)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        healthy = train_network(shop_parts[0].part, shop_parts[1].part, settings, context_in(None))
    assert healthy.metrics[-1]["alarms"] == []
    assert healthy.metrics[-1]["health"]["swap_gap"] > 0.1


@pytest.fixture(scope="module")
def unfinished(shop_parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained]:
    """The folder of a run that has trained but is not saved, and what it returned."""
    folder = tmp_path_factory.mktemp("runs") / "unfinished"
    return folder, train(shop_parts, folder, max_epochs=1)


@pytest.fixture
def folder(unfinished: tuple[Path, Trained], tmp_path: Path) -> Path:
    return Path(shutil.copytree(unfinished[0], tmp_path / "run"))


def test_other_settings_or_data_cannot_resume_a_run(shop_parts: Parts, folder: Path) -> None:
    with pytest.raises(InputError, match=r"\(training.learning_rate, training.max_epochs\)"):
        train(shop_parts, folder, resume=True, max_epochs=2, learning_rate=0.5)
    other = leave_one_out(Histories.of_items([[0, 1, 2, 3, 4]] * 30), shop_parts[0].part.num_items)
    # The same items in the same order, at other times.
    histories = shop_parts[0].part.histories
    later = replace(histories, timestamp=histories.timestamp + 1)
    shifted = [replace(part.part, histories=later) for part in shop_parts[:2]]
    for (train_part, valid), named in ((other[:2], "data.events, data.split_hash"), (shifted, "data.events")):
        with pytest.raises(InputError, match=rf"\({named}\)"):
            train_network(train_part, valid, settings_for(train_part, max_epochs=1), context_in(folder, resume=True))


def test_unfinished_run_is_never_started_over_in_silence(shop_parts: Parts, folder: Path) -> None:
    state = (folder / "state.safetensors").read_bytes()
    with pytest.raises(InputError, match="no unfinished run"):
        train(shop_parts, folder / "another", resume=True)
    assert not (folder / "another").exists()
    with pytest.raises(InputError, match="--resume"):
        train(shop_parts, folder, max_epochs=1)
    assert (folder / "state.safetensors").read_bytes() == state


@pytest.mark.parametrize("name", ["settings.json", "state.safetensors"])
def test_damaged_unfinished_run_is_refused(shop_parts: Parts, folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        train(shop_parts, folder, resume=True, max_epochs=1)


def test_missing_tensorboard_is_told_with_its_command_and_leaves_nothing(
    shop_parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    settings = settings_for(shop_parts[0].part, max_epochs=1)
    with pytest.raises(MissingDependencyError, match=r"pip install 'variseq\[tensorboard\]'"):
        train_network(shop_parts[0].part, shop_parts[1].part, settings, context_in(tmp_path / "run", tensorboard=True))
    assert list(tmp_path.iterdir()) == []


def test_log_in_which_nobody_has_two_events_to_learn_from_is_refused() -> None:
    train_part, valid, _ = leave_one_out(Histories.of_items([[0, 1, 2]] * 5))
    with pytest.raises(InputError, match="two events"):
        train_network(train_part, valid, settings_for(train_part), context_in(None))


def test_shortest_histories_can_be_trained_on() -> None:
    """One user has two training events, all others one: batches and watched histories are as short as can be."""
    train_part, valid, _ = leave_one_out(Histories.of_items([[0, 1, 2, 3]] + [[1, 2, 3]] * 4))
    settings = settings_for(train_part, max_epochs=2)
    trained = train_network(train_part, valid, settings, context_in(None))
    assert math.isfinite(trained.metrics[-1]["nll"])


def test_metrics_file_keeps_the_epochs_before_the_one_that_comes_next(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"epoch": epoch}) + "\n" for epoch in range(5)) + '{"epoch": 5, "lo')
    metrics = MetricsFile(path, first_epoch=3)
    metrics.on_epoch({"epoch": 3, "loss": 0.5})
    assert read_metrics(path) == [{"epoch": 0}, {"epoch": 1}, {"epoch": 2}, {"epoch": 3, "loss": 0.5}]
    assert [record["epoch"] for record in metrics.kept] == [0, 1, 2]


def test_validation_looks_at_a_fixed_sample_of_users(shop_parts: Parts) -> None:
    part = shop_parts[1].part
    few = [settings_for(part, seed=seed, validation_users=20).training for seed in (1, 2)]
    first, again = (Validation(part, config).part.queries().user for config in few)
    assert len(first) == 20
    np.testing.assert_array_equal(first, again)
    assert set(first) <= set(part.queries().user)
    assert len(Validation(part, settings_for(part).training).part.queries()) == len(part.queries())


def test_fit_and_load_do_not_move_the_callers_random_numbers(shop_parts: Parts, run_folder: Path) -> None:
    drawn = []
    for is_used in (False, True):
        torch.manual_seed(11)
        np.random.seed(11)
        if is_used:
            small_model(max_epochs=1).fit(*shop_parts[:2], verbose=0)
            load(run_folder).recommend(history=[], k=2)
        drawn.append([*torch.rand(4).tolist(), *np.random.random(4).tolist()])
    assert drawn[0] == drawn[1]


def test_callers_seed_does_not_change_a_run(shop_parts: Parts) -> None:
    networks = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        networks.append(train(shop_parts, max_epochs=1).network)
    assert are_equal(weights_of(networks[0]), weights_of(networks[1]))
