"""A silenced voice says nothing of its own, and the table holds each row against all voices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.benchmarks import exploration_path  # noqa: F401
from variseq.events.simulate import SimulationOptions, simulate
from variseq.log import read

import variseq  # isort: skip
from posteriors_runs import Run  # isort: skip
from voices import ALL, memories, table  # isort: skip


# One epoch is no training; what is looked at is the memory.
@pytest.mark.filterwarnings("ignore::variseq.errors.PosteriorCollapseWarning")
def test_a_silenced_voice_says_that_all_items_are_alike(tmp_path: Any) -> None:
    shop = simulate(SimulationOptions(num_users=40, num_items=20, seed=1))
    parts = read(shop.events()).split("leave-one-out")
    small = {"hidden_size": 8, "latent_dim": 4, "num_layers": 1, "num_heads": 1}
    training = {"max_epochs": 1, "refit_fraction": 0.0, "deterministic_fraction": 1.0}
    variseq.VariationalAttention(size="tiny", model=small, training=training).fit(*parts[:2], tmp_path / "run")
    rows = memories(Run.of(tmp_path / "run", num_users=None))
    assert next(iter(rows)) == ALL
    uniform = torch.full((rows[ALL].trend.log_share.shape[0],), -np.log(len(rows[ALL].trend.log_share)))
    torch.testing.assert_close(rows["no trend"].trend.log_share, uniform.float())
    assert torch.equal(rows["no trend"].transitions.log_share, rows[ALL].transitions.log_share)
    torch.testing.assert_close(rows["no transitions"].transitions.log_share, uniform.float())
    assert rows["no transitions"].transitions.followers.take(torch.tensor([0]))[1].numel() == 0
    assert not torch.allclose(rows[ALL].trend.log_share, uniform.float())


def test_the_table_gives_what_differs_from_all_voices() -> None:
    def row(ndcg: float) -> dict[str, Any]:
        intervals = {"ndcg_against_all": [-0.0017, -0.0007], "nll_against_all": [0.012, 0.018]}
        return {"validation": {"ndcg": ndcg, "nll": 7.9}, "test": {"ndcg": ndcg, "nll": 8.0}} | intervals

    lines = table(
        {"beauty": {"commit": "0123456789abc", "seed": 0, "rows": {ALL: row(0.07), "no trend": row(0.06)}}}
    ).splitlines()
    assert lines[2] == f"| beauty | {ALL} | 0.0700 | 7.900 | 0.0700 | – | 8.000 | – |"
    assert lines[3] == "| beauty | no trend | 0.0600 | 7.900 | 0.0600 | −0.0017 to −0.0007 | 8.000 | +0.012 to +0.018 |"
