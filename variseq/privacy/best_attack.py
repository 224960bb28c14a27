"""The best attack that a ledger allows: how many people in the log it finds, and how many others it accuses wrongly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from variseq.privacy.accounting import Ledger

NUM_EPSILONS = 120
LEAST_DELTA = 1e-10
"""Tangents with a smaller δ are left out."""
RATES = np.concatenate([[0.0], np.geomspace(1e-9, 0.1, 2000), np.linspace(0.1, 1, 2001)[1:]])
"""The false positive rates that the area is summed over."""


@dataclass(frozen=True, eq=False)
class BestAttack:
    """Bounds on the receiver operating characteristic, one for each ε with its δ. Without noise they allow everything.

    They hold for every attack that sees all that was released, and knows all other users. Source: Kairouz, Oh and
    Viswanath 2015, "The composition theorem for differential privacy", theorem 2.1.

    Args:
        epsilons: Ascending from 0.
        deltas: Of the ledger at each of them.
    """

    epsilons: Float[np.ndarray, " bound"]
    deltas: Float[np.ndarray, " bound"]

    @classmethod
    def of(cls, ledger: Ledger) -> BestAttack:
        """The bounds of all mechanisms of a ledger together."""
        if not all(one.noise_multiplier for one in ledger.mechanisms):
            return cls(np.zeros(1), np.ones(1))
        largest = 1.0
        while ledger.delta_at(largest) > LEAST_DELTA:
            largest *= 1.5
        epsilons = np.linspace(0, largest, NUM_EPSILONS)
        return cls(epsilons, np.array([ledger.delta_at(float(one)) for one in epsilons]))

    def true_positive_rate(self, false_positive_rate: Float[np.ndarray, "*rate"] | float) -> Float[np.ndarray, "*rate"]:
        """The largest share of those in the log who are found, where so many of the others are accused wrongly."""
        rate = np.asarray(false_positive_rate)[..., None]
        # Both directions: somebody is added, and somebody is removed.
        of_added = self.deltas + np.exp(self.epsilons) * rate
        of_removed = 1 - np.exp(-self.epsilons) * (1 - self.deltas - rate)
        return np.asarray(np.minimum(np.minimum(of_added, of_removed).min(axis=-1), 1.0))

    def auc(self) -> float:
        """The largest area under the curve."""
        return float(np.trapezoid(self.true_positive_rate(RATES), RATES))
