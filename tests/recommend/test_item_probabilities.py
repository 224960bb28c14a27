from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.evaluation.scored import GivenScores
from variseq.recommend.item_probabilities import log_probabilities
from variseq.sequences.histories import Histories


def test_log_probabilities_are_the_log_softmax_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = np.random.default_rng(0).normal(size=(7, 11))
    histories = Histories.of_items([[row] for row in range(7)])
    items = np.random.default_rng(1).integers(11, size=(7, 3))
    expected = torch.log_softmax(torch.from_numpy(matrix), dim=1).numpy()[np.arange(7)[:, None], items]
    np.testing.assert_allclose(log_probabilities(GivenScores(matrix), 11, histories, items), expected, atol=1e-6)
    monkeypatch.setattr("variseq.recommend.item_probabilities.TILE_ITEMS", 4)
    monkeypatch.setattr("variseq.recommend.item_probabilities.TILE_HISTORIES", 2)
    np.testing.assert_allclose(log_probabilities(GivenScores(matrix), 11, histories, items), expected, atol=1e-6)
