"""Fitting and loading leave the caller's streams of random numbers where they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import small_model
from variseq.estimator import load
from variseq.log import LogPart
from variseq.training.display import Display

Parts = tuple[LogPart, LogPart, LogPart]

pytestmark = pytest.mark.filterwarnings("ignore::variseq.errors.PosteriorCollapseWarning")


def drawn() -> tuple[torch.Tensor, np.ndarray]:
    return torch.rand(4), np.random.random(4)


def test_fit_and_load_do_not_move_the_callers_random_numbers(shop_parts: Parts, run_folder: Path) -> None:
    torch.manual_seed(11)
    np.random.seed(11)
    expected = drawn()
    torch.manual_seed(11)
    np.random.seed(11)
    small_model(max_epochs=1).fit(*shop_parts[:2], display=Display(quiet=True))
    load(run_folder).recommend(k=2)
    found = drawn()
    assert torch.equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_callers_seed_does_not_change_a_run(shop_parts: Parts) -> None:
    weights = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = small_model(max_epochs=1).fit(*shop_parts[:2], display=Display(quiet=True))
        assert model.checkpoint is not None
        weights.append(model.checkpoint.network.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
