"""The best attack that a ledger allows is that of two normal distributions where there is one Gaussian mechanism."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from variseq.privacy.accounting import Ledger, Mechanism
from variseq.privacy.best_attack import BestAttack

NORMAL = NormalDist()


@pytest.mark.parametrize("noise", [0.7, 2.0])
def test_one_gaussian_mechanism_allows_what_two_normal_distributions_do(noise: float) -> None:
    best, mu = BestAttack.of(Ledger((Mechanism("sums", noise),), 1e-5)), 1 / noise
    assert best.auc() == pytest.approx(NORMAL.cdf(mu / 2**0.5), abs=1e-3)
    rates = np.array([0.001, 0.01, 0.1, 0.5, 0.9])
    expected = [NORMAL.cdf(NORMAL.inv_cdf(rate) + mu) for rate in rates]
    np.testing.assert_allclose(best.true_positive_rate(rates), expected, rtol=5e-3)
    assert (best.true_positive_rate(rates) >= np.array(expected) - 1e-9).all()


def test_steps_of_a_part_of_the_users_allow_less_than_steps_of_all() -> None:
    few, all_users = (BestAttack.of(Ledger((Mechanism("steps", 2.0, rate, 10),), 1e-5)) for rate in (0.1, 1.0))
    assert 0.5 < few.auc() < all_users.auc() < 1


def test_no_noise_allows_everything() -> None:
    assert BestAttack.of(Ledger((Mechanism("sums", 0.0),), 1e-5)).auc() == 1.0
