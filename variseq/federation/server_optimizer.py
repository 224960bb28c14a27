"""The step of the coordinator after each round: how far the shared network goes towards the mean of the parties."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from variseq.federation.messages import NetworkTerms

SECOND_MOMENT_DECAY, ADAPTIVITY = 0.99, 1e-3
"""β₂ and τ of FedAdam, as Reddi et al. (2021) have them."""


class ServerOptimizer:
    """Takes the difference between the mean network of a round and the shared one as a gradient.

    With `sgd` the momentum adds up, as in FedAvgM; rate 1 without momentum gives the mean itself. With `adam` it is
    FedAdam: the mean difference by the root of its mean square, where the momentum is β₁. All parties compute the same
    steps from the same sums.
    Sources: Hsu et al. 2019, "Measuring the effects of non-identical data distribution for federated visual
    classification"; Reddi et al. 2021, "Adaptive federated optimization", algorithm 2.

    >>> from variseq.federation.messages import NetworkTerms
    >>> optimizer = ServerOptimizer(NetworkTerms(server_momentum=0.5))
    >>> parameters = optimizer.step(np.zeros(1), np.ones(1))
    >>> optimizer.step(parameters, np.ones(1))
    array([1.5])

    Args:
        terms: With the kind, the rate and the momentum.
    """

    def __init__(self, terms: NetworkTerms) -> None:
        self._is_adam = terms.server_optimizer == "adam"
        self._rate, self._momentum = terms.server_rate, terms.server_momentum
        self._first: Float[np.ndarray, " parameter"] | float = 0.0
        self._second: Float[np.ndarray, " parameter"] | float = 0.0

    def step(
        self, parameters: Float[np.ndarray, " parameter"], mean: Float[np.ndarray, " parameter"]
    ) -> Float[np.ndarray, " parameter"]:
        """The parameters of the next round, from those of this one and the mean of the parties."""
        difference = mean - parameters
        if not self._is_adam:
            self._first = self._momentum * self._first + difference
            return parameters + self._rate * self._first
        self._first = self._momentum * self._first + (1 - self._momentum) * difference
        self._second = SECOND_MOMENT_DECAY * self._second + (1 - SECOND_MOMENT_DECAY) * difference**2
        return parameters + self._rate * self._first / (np.sqrt(self._second) + ADAPTIVITY)
