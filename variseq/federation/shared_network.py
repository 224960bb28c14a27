"""The network of a federation between its rounds: the same at the coordinator and at every party."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from variseq.errors import InputError
from variseq.federation.server_optimizer import ServerOptimizer
from variseq.model.network import Network, seeded
from variseq.privacy.noise import GRID
from variseq.privacy.private_run import NetworkShare
from variseq.recommend.calibrate import TEMPERATURES
from variseq.training.defaults import LogProperties, Size, network_config, training_config
from variseq.training.schedule import noise_share

if TYPE_CHECKING:
    from variseq.federation.messages import Terms
    from variseq.federation.public_features import PublicFeatures

LARGEST_PARAMETER = 1_000.0
"""No parameter of a network that was trained as it should is larger."""
LEAST_BATCH_TOKENS = 16
VALIDATED = ("ndcg", "nll")
NUM_SCORES = len(VALIDATED) + 1
"""The sums of the metrics of the network before the round, and the number of queries; zeros where none is computed."""
NUM_LAST = 2 + NUM_SCORES
"""After the parameters: the weight, the weight times β, and the scores."""
WEIGHTS = tuple(round(0.05 * twentieth, 2) for twentieth in range(1, 20))
"""The weights of the network in the mixture that are tried."""
NUM_TRIED = len(TEMPERATURES) * len(WEIGHTS)


def in_steps(numbers: Float[np.ndarray, " number"]) -> Int[np.ndarray, " number"]:
    """Numbers in whole steps of `GRID`."""
    return np.rint(numbers / GRID).astype(np.int64)


def parameters_of(network: Network) -> Float[np.ndarray, " parameter"]:
    """All parameters one after the other."""
    return np.concatenate([tensor.double().numpy().ravel() for tensor in _tensors(network)])


@torch.no_grad()
def set_parameters(network: Network, numbers: Float[np.ndarray, " parameter"]) -> None:
    """The inverse of `parameters_of`."""
    tensors = _tensors(network)
    ends = np.cumsum([tensor.numel() for tensor in tensors])[:-1]
    for tensor, part in zip(tensors, np.split(numbers, ends), strict=True):
        tensor.copy_(torch.from_numpy(part).view(tensor.shape))


def _tensors(network: Network) -> list[Tensor]:
    return [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]


class SharedNetwork:
    """Federated averaging: each round trains the same network on each log for an epoch, and takes the weighted mean.

    The weights are the numbers of training targets. Each party keeps the moments of its optimizer in memory; one that
    starts again goes on with the sums alone, and with moments of zero. After the training rounds come one of validation
    and one of calibration.
    Source: McMahan et al. 2017, "Communication-efficient learning of deep networks from decentralized data".

    Args:
        terms: What the parties agree on, with a network.
        properties: Those of the joined log.
        has_events: Which items have events.
        features: Those of the catalog, where the terms have their digest.
    """

    def __init__(
        self, terms: Terms, properties: LogProperties, has_events: np.ndarray, features: PublicFeatures | None = None
    ) -> None:
        assert terms.network is not None
        self.terms, self.rounds, seed = terms, terms.network.rounds, terms.network.seed
        shape = network_config(cast("Size", terms.network.size), properties, {})
        by_hand = {"max_epochs": self.rounds, "exclude_seen": terms.exclude_seen}
        config = training_config(properties, shape, seed, by_hand)
        # A party takes as many steps in a round as one log does in an epoch. Its gradients have more noise, by which
        # Adam divides: with the same rate the mean of the parties would move less.
        batch_tokens = max(LEAST_BATCH_TOKENS, config.batch_tokens // terms.parties)
        rate = config.learning_rate * math.sqrt(terms.parties)
        self.config = config.model_copy(update={"batch_tokens": batch_tokens, "learning_rate": rate})
        with seeded(seed):
            self.network = Network(shape).eval()
            if features is not None:
                features.add_to(self.network)
        self.network.embedding.has_own[:-1, 0] = torch.from_numpy(has_events)
        self.beta, self.round, self.proximal = self.config.beta, 0, terms.network.proximal
        self.scores: list[dict[str, float]] = []
        """The validation metrics of each network that had some, over all parties."""
        self.share: NetworkShare | None = None
        self._parameters = parameters_of(self.network)
        self._optimizer = ServerOptimizer(terms.network)
        self._best: tuple[float, Float[np.ndarray, " parameter"]] | None = None

    @property
    def size(self) -> int:
        """How many numbers each party adds in this round."""
        if self.round < self.rounds:
            return len(self._parameters) + NUM_LAST
        return NUM_SCORES if self.round == self.rounds else NUM_TRIED + 1

    @property
    def is_validated(self) -> bool:
        """Whether the network as it is now may be chosen: with full noise, as of an ordinary run, or at the end."""
        return self.round == self.rounds or noise_share(self.config, self.round / self.rounds) >= 1

    def add(self, total: Int[np.ndarray, " number"]) -> None:
        """Take the sum of a round. Raises InputError for one that networks of that many users cannot make."""
        numbers = total * GRID
        if self.round < self.rounds:
            *scores, weight, beta = numbers[-NUM_SCORES:], *numbers[-NUM_LAST:-NUM_SCORES]
            self._score(scores[0])
            self._average(numbers[:-NUM_LAST], float(weight), float(beta))
        elif self.round == self.rounds:
            self._score(numbers)
            self._choose()
        else:
            self._calibrate(numbers[:-1], float(numbers[-1]))
        self.round += 1

    def _average(self, numbers: Float[np.ndarray, " parameter"], weight: float, beta: float) -> None:
        most = self.terms.num_users * self.terms.max_user_events
        if not 0 < weight <= most:
            raise InputError(f"The parties trained on {weight:,.0f} events, and 1 to {most:,} are possible.")
        if np.abs(numbers).max() > LARGEST_PARAMETER * weight or not 0 <= beta <= weight:
            raise InputError(f"The mean of the networks has parameters above {LARGEST_PARAMETER:,.0f}.")
        parameters = self._optimizer.step(self._parameters, numbers / weight)
        if np.abs(parameters).max() > LARGEST_PARAMETER:
            raise InputError(
                f"The shared network has parameters above {LARGEST_PARAMETER:,.0f}. Start all again with a smaller "
                "--server-rate or --server-momentum."
            )
        self._parameters, self.beta = parameters, beta / weight
        set_parameters(self.network, self._parameters)

    def _score(self, scores: Float[np.ndarray, " score"]) -> None:
        *sums, queries = scores.tolist()
        if not 0 <= queries <= self.terms.num_users or min(sums) < 0 or sums[0] > queries:
            raise InputError(f"The validation metrics are not those of {self.terms.num_users:,} users.")
        if not queries:
            return
        found = {name: value / queries for name, value in zip(VALIDATED, sums, strict=True)}
        self.scores.append(found | {"round": float(self.round)})
        if self._best is None or found["ndcg"] > self._best[0]:
            self._best = found["ndcg"], self._parameters

    def _choose(self) -> None:
        if self._best is None:
            raise InputError("No user of any party has three events, so nothing can be validated. Give longer logs.")
        set_parameters(self.network, self._best[1])

    def _calibrate(self, losses: Float[np.ndarray, " tried"], queries: float) -> None:
        if not 0 <= queries <= self.terms.num_users or not losses.min() >= 0:
            raise InputError(f"The losses are not those of {self.terms.num_users:,} users.")
        temperature, weight = np.unravel_index(int(losses.argmin()), (len(TEMPERATURES), len(WEIGHTS)))
        self.share = NetworkShare(WEIGHTS[weight], round(float(TEMPERATURES[temperature]), 4))

    def copy(self) -> Network:
        """The network as it is now, to train on."""
        return copy.deepcopy(self.network)
