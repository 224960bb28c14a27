"""Changes of an ablation are what they say while a run lasts and gone after it; the table compares like with like."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from tests.benchmarks import exploration_path  # noqa: F401
from variseq.model.latent import Posterior
from variseq.model.network import Network, NetworkConfig, Weights
from variseq.sequences.batches import make_batch, query_windows, training_windows
from variseq.sequences.histories import Histories
from variseq.training import trainer
from variseq.training.settings import TrainingConfig
from variseq.training.trainer import Trainer, TrainingData

from ablation_changes import CHANGES, Change, latest_window_only, transition_prior  # isort: skip
from ablations import judged, resolved, table  # isort: skip

HISTORIES = Histories.of_items([[1, 2, 3, 4, 5, 6, 7, 1, 2], [7, 6, 5, 4, 3, 2, 1]])
PATCHED = [change for change in CHANGES if not isinstance(change.patch, type)]


def trained(change: Change) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    network = Network(NetworkConfig(num_items=9, width=8, latent_dim=6, attention_dim=4, max_seq_len=4))
    noise = {"deterministic_fraction": 0.0, "kl_anneal_fraction": 0.0, "kl_target": 7.0, "beta": 0.1}
    settings = TrainingConfig(max_epochs=6, batch_tokens=16, warmup_steps=1, learning_rate=0.05, **noise)
    Trainer(network, TrainingData(HISTORIES, None), settings).run()
    return dict(network.state_dict())


@pytest.mark.parametrize("change", PATCHED, ids=lambda change: change.name)
def test_a_patch_changes_training_while_it_lasts_and_not_after(change: Change) -> None:
    before = trained(change)
    with change.patch():
        during = trained(change)
    after = trained(change)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any(name not in during or not torch.equal(before[name], during[name]) for name in before)


def test_the_latest_window_holds_the_latest_events_and_no_others() -> None:
    with latest_window_only():
        windows = trainer.training_windows(HISTORIES, 4, np.random.default_rng(0))
    assert (windows.first.tolist(), windows.last.tolist()) == ([5, 12], [9, 16])
    assert int(training_windows(HISTORIES, 4, np.random.default_rng(0)).lengths.sum()) == 16


def test_a_posterior_costs_what_the_posterior_before_it_did_not_foretell() -> None:
    with transition_prior():
        network = Network(NetworkConfig(num_items=9, width=8, latent_dim=6, attention_dim=4))
        batch = make_batch(HISTORIES, query_windows(HISTORIES, 20), np.arange(2), 9)
        with torch.no_grad():
            posterior = network.eval().encode(batch)
            before = torch.zeros_like(posterior.mean)
            later = batch.layout.positions() > 0
            before[later] = posterior.mean[:-1][later[1:]]
            prior = Normal(network.transition(before), torch.ones(6))
            expected = kl_divergence(Normal(posterior.mean, (0.5 * posterior.log_variance).exp()), prior)
            torch.testing.assert_close(posterior.kl_to_prior(), expected, atol=1e-4, rtol=1e-4)
            assert not torch.allclose(
                posterior.kl_to_prior(), Posterior(posterior.mean, posterior.log_variance).kl_to_prior()
            )
        assert network.objective(batch, Weights(beta=1.0)).loss.isfinite()


@pytest.mark.filterwarnings("ignore::variseq.errors.PosteriorCollapseWarning")
def test_a_row_is_trained_and_judged_with_the_settings_that_it_names(shop_parts: Any) -> None:
    change = Change("quick", {"size": "tiny", "training.max_epochs": 1, "training.deterministic_fraction": 1.0})
    found = judged(change, shop_parts[:2], seed=3)
    assert (found["change"], found["seed"], found["epoch"], found["num_epochs"]) == ("quick", 3, 1, 1)
    assert np.isfinite([found["ndcg"], found["nll"], found["network_nll"]]).all()
    settings = resolved(change, shop_parts[0], seed=3)
    assert (settings["training.seed"], settings["training.refit_fraction"], settings["model.hidden_size"]) == (
        3,
        0.0,
        32,
    )


def record(change: Change, seed: int, ndcg: float, **settings: Any) -> dict[str, Any]:
    figures = {"ndcg": ndcg, "nll": 8 - ndcg, "network_nll": 8.5, "epoch": 3, "cpu_seconds": 60.0}
    place = {"commit": "0123456789abcdef", "hardware": {"cpu": "a processor"}}
    asked = {"model.num_layers": 2, "model.dropout": 0.5, **change.settings, "training.seed": seed, **settings}
    return {"change": change.name, "seed": seed, "settings": asked, **figures, **place}


def test_changes_are_compared_with_their_own_base_on_the_seeds_that_both_have() -> None:
    base, other = CHANGES[0], CHANGES[1]
    noisy = next(change for change in CHANGES if not change.settings)
    rows = [record(base, 0, 0.1), record(base, 1, 0.2), record(other, 1, 0.1), record(noisy, 0, 0.3)]
    lines = table(rows).splitlines()
    assert f"| **{base.name}** | 2 | 0.1500 | – | 7.850 | – |" in lines[2]
    assert f"| {other.name} | 1 | 0.1000 | −50.0 % | 7.900 | +0.100 |" in lines[3]
    assert f"| **{noisy.name}** | 1 | 0.3000 | – |" in lines[4]


def test_rows_of_other_defaults_than_those_of_the_latest_base_are_left_out() -> None:
    base, dropout = CHANGES[0], next(change for change in CHANGES if "model.dropout" in change.settings)
    rows = [record(base, 0, 0.1), record(dropout, 0, 0.2), record(base, 0, 0.3, **{"model.num_layers": 3})]
    assert dropout.name in table(rows[:2])
    assert dropout.name not in table(rows)
    assert "| 0.3000 |" in table(rows)
