"""A private network across silos: each round is one step of DP-SGD, to which each party adds its share of the noise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from variseq.evaluation.splits import Part
from variseq.model.network import Network
from variseq.privacy.accounting import NETWORK_CHOICE, NETWORK_STEPS, Ledger, public_users
from variseq.privacy.chosen_weight import NETWORK_WEIGHTS, best_weight, summed_gains
from variseq.privacy.noise import Noise
from variseq.privacy.private_network import private_training
from variseq.privacy.private_run import NetworkShare, mixture_model
from variseq.privacy.release import PairCounts
from variseq.recommend.network_model import NetworkEncoder

if TYPE_CHECKING:
    from variseq.federation.messages import Terms


class NoisySteps:
    """The network of a federation with privacy between its rounds: the same at the coordinator and at every party.

    The rounds are the steps of `PrivateTraining`, and one that chooses the weight of the network. They spend what they
    spend in a fit of the joined log, for each user is sampled, clipped and counted alike.

    Args:
        terms: What the parties agree on.
        ledger: The noise of each sum.
        plain: The counts of the release, without items that are alike.
        counts: Those that the network stands beside.
    """

    def __init__(self, terms: Terms, ledger: Ledger, plain: PairCounts, counts: PairCounts) -> None:
        self.terms, self.ledger, self.counts = terms, ledger, counts
        schedule = terms.options().schedule(public_users(terms.num_users))
        assert schedule is not None
        self.rounds, self.round = schedule.num_steps, 0
        self.training = private_training(plain, schedule, ledger.noise_of(NETWORK_STEPS))
        self.scores: list[dict[str, float]] = []
        self.share: NetworkShare | None = None

    @property
    def network(self) -> Network:
        """The network as it is now."""
        return self.training.network

    @property
    def size(self) -> int:
        """How many numbers each party adds in this round."""
        return self.training.size if self.round < self.rounds else len(NETWORK_WEIGHTS) - 1

    def add(self, total: Int[np.ndarray, " number"]) -> None:
        """Take the sum of a round. Raises InputError for one that the declared users cannot make."""
        self.terms.refuse_sum(total, self._noise_multiplier)
        if self.round < self.rounds:
            self.training.move(total)
        elif weight := best_weight(NETWORK_WEIGHTS, total):
            self.share = NetworkShare(weight)
        self.round += 1

    def own_sum(self, part: Part, noise: Noise) -> Int[np.ndarray, " number"]:
        """What one party adds to the running round, with its share of the noise.

        Args:
            part: The validation part of its log.
            noise: The source of noise.
        """
        options = self.terms.options()
        if self.round < self.rounds:
            histories = part.history().latest(options.max_user_events)
            found = self.training.sum_of(histories, np.random.default_rng())
        else:
            encoder, vectors = NetworkEncoder(self.network), self.network.vectors_with_bias
            found = summed_gains(
                lambda weight: mixture_model(self.counts, options, (encoder, vectors, NetworkShare(weight))),
                NETWORK_WEIGHTS,
                part,
            )
        return found + noise(self._noise_multiplier / math.sqrt(self.terms.parties), len(found))

    @property
    def _noise_multiplier(self) -> float:
        return self.ledger.noise_of(NETWORK_STEPS if self.round < self.rounds else NETWORK_CHOICE)
