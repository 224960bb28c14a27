"""What each round sums and what the sums say: the same at the coordinator and at every party."""

from __future__ import annotations

from functools import cached_property
from statistics import median
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from variseq.errors import InputError
from variseq.evaluation.splits import Part
from variseq.federation.messages import Terms, digest
from variseq.output.progress import clock
from variseq.privacy.accounting import public_users
from variseq.privacy.alike_items import smoothed_counts
from variseq.privacy.contributions import number_of_pairs
from variseq.privacy.noise import Noise, secure_noise
from variseq.privacy.release import NoisySums, PairCounts, Release, chosen_items, pair_counts

if TYPE_CHECKING:
    from variseq.federation.noisy_steps import NoisySteps
    from variseq.federation.public_features import PublicFeatures
    from variseq.federation.shared_network import SharedNetwork
    from variseq.model.network import Network
    from variseq.privacy.private_run import NetworkShare
    from variseq.training.trainer import Trainer

POPULARITY, PAIRS, LENGTHS = 0, 1, 2
"""The rounds of counts, and with a network that of the lengths of histories; those of the network follow."""
FURTHER_ROUNDS = 2
"""Validation of the last network, and calibration of the best one."""
MOST_BYTES = 4 * 10**9
"""The sums of all rounds of a network, which the coordinator keeps for a party that starts again."""


class Rounds:
    """The rounds of a federation: what was summed, and how many numbers the next sum has.

    Args:
        terms: What the parties agree on.
        features: Those of the catalog, where the terms have their digest.
    """

    def __init__(self, terms: Terms, features: PublicFeatures | None = None) -> None:
        self.terms, self.ledger, self._features = terms, terms.ledger(), features
        self.sums: list[Int[np.ndarray, " number"]] = []
        self.digests: list[bytes] = []
        """`digest` of the bytes of each sum."""
        self.network: SharedNetwork | NoisySteps | None = None
        self.size = terms.num_items
        """How many numbers each party adds in the running round."""
        self._seconds: list[float] = []
        self._begun = monotonic()

    @cached_property
    def number(self) -> int:
        """How many rounds there are."""
        if self.terms.network is not None:
            return LENGTHS + 1 + self.terms.network.rounds + FURTHER_ROUNDS
        schedule = self.terms.options().schedule(public_users(self.terms.num_users))
        return LENGTHS if schedule is None else LENGTHS + schedule.num_steps + 1

    @property
    def is_complete(self) -> bool:
        """Whether all sums are there."""
        return len(self.sums) == self.number

    def progress(self) -> str:
        """The running round, how good the network is by now, and the time left at the pace of the rounds before."""
        running, shared = len(self.sums), self.network
        scores = [] if shared is None else shared.scores
        best = f"; best validation NDCG@10 so far {max(one['ndcg'] for one in scores):.4f}" if scores else ""
        is_training = shared is not None and 0 < shared.round < shared.rounds
        # A round in which a party was awaited tells nothing of the next ones.
        left = f", about {clock(median(self._seconds[-5:]) * (self.number - running))} left" if is_training else ""
        return f"Round {running + 1} of {self.number}{left}{best}"

    def _next_size(self) -> int:
        running = len(self.sums)
        if self.is_complete:
            return 0
        if running == PAIRS:
            return number_of_pairs(len(self.chosen()), self.terms.pairs)
        if self.network is not None:
            return self.network.size
        from variseq.federation.log_properties import NUM_SUMS

        return NUM_SUMS

    def add(self, total: bytes) -> None:
        """Take the sum of the running round, eight bytes a number, low byte first.

        Raises InputError for a sum of another size, and for one that the declared users cannot make.
        """
        if len(total) != 8 * self.size:
            raise InputError(f"The sum has {len(total):,} bytes; {self.size:,} numbers of 8 bytes are awaited.")
        numbers = np.frombuffer(total, dtype="<i8").astype(np.int64)
        try:
            self._take(numbers)
        except InputError as error:
            raise InputError(f"The sum of round {len(self.sums) + 1} is not possible. {error}") from error
        self.sums.append(numbers)
        self.digests.append(digest(total))
        if self.terms.private_network and len(self.sums) == LENGTHS:
            from variseq.federation.noisy_steps import NoisySteps

            self.network = NoisySteps(self.terms, self.ledger, self._plain_counts, self.counts)
        self.size = self._next_size()
        self._seconds.append(monotonic() - self._begun)
        self._begun = monotonic()

    def _take(self, total: Int[np.ndarray, " number"]) -> None:
        running, terms = len(self.sums), self.terms
        if running < LENGTHS:
            terms.refuse_sum(total, self.ledger.mechanisms[running].noise_multiplier)
        elif self.network is None:
            from variseq.federation.log_properties import summed_properties
            from variseq.federation.shared_network import SharedNetwork

            bounds = (terms.num_items, terms.parties, terms.num_users, terms.max_user_events)
            properties = summed_properties(total, *bounds)
            self.network = SharedNetwork(terms, properties, self.sums[POPULARITY] > 0, self._features)
        else:
            self.network.add(total)

    def chosen(self) -> Int[np.ndarray, " chosen"]:
        """The items whose pairs are counted."""
        return chosen_items(self.sums[POPULARITY], self.ledger)

    def release(self) -> Release:
        """The release of all parties together, when its sums are there."""
        return Release.of_sums(self.sums[POPULARITY], self.sums[PAIRS], self.terms.pairs, self.ledger)

    @cached_property
    def counts(self) -> PairCounts:
        """What is made of the release."""
        return smoothed_counts(self._plain_counts, self.terms.pairs)

    @cached_property
    def _plain_counts(self) -> PairCounts:
        return pair_counts(self.release())

    def trained(self) -> tuple[Network, NetworkShare] | None:
        """The network and its share in the mixture, when the sums are complete; None: counts alone."""
        if self.network is None or self.network.share is None:
            return None
        return self.network.network.folded(), self.network.share


def refuse_network(terms: Terms) -> None:
    """Raises InputError for an unknown size, sums that take too much memory, and a network that undoes the privacy."""
    if terms.private_network and terms.epsilon is None:
        raise InputError("A network with privacy needs a budget. Give --private.")
    if terms.private_network or terms.network is not None:
        from variseq.model.exportable import require_exporter

        # Before hours of rounds, at the end of which it is needed.
        require_exporter()
    if terms.network is None:
        return
    if terms.epsilon is not None:
        raise InputError("A network without privacy cannot go with a private release: it would undo it.")
    from variseq.training.defaults import SIZES

    size, rounds = terms.network.size, terms.network.rounds
    if size not in SIZES:
        raise InputError(f"There is no network of size {size!r}. Allowed: {', '.join(SIZES)}.")
    most = max(0, MOST_BYTES // (8 * rounds * (SIZES[size]["hidden_size"] + 1)) - terms.network.num_features)
    if terms.num_items > most:
        raise InputError(
            f"A network of size {size!r} in {rounds} rounds takes up to {most:,} items, and the catalog has "
            f"{terms.num_items:,}. Give a smaller --size, fewer --rounds or a smaller catalog."
        )


class OwnSums:
    """What one party adds in each round.

    Args:
        part: The validation part of the log. Without a network its targets are learned from, too.
        party: The number of the party.
        noise: For tests only; without it there is no privacy.
    """

    def __init__(self, part: Part, party: int, noise: Noise = secure_noise) -> None:
        self._part, self._party, self._noise = part, party, noise
        self._trainer: Trainer | None = None

    def of(self, rounds: Rounds) -> Int[np.ndarray, " number"]:
        """The numbers of the running round. Raises InputError for a network whose training went wrong."""
        terms, running, part = rounds.terms, len(rounds.sums), self._part
        if running < LENGTHS:
            is_validated = terms.network is not None or terms.private_network
            histories = part.history() if is_validated else part.history_with_targets()
            options = terms.options()
            noisy = NoisySums(histories, terms.num_items, options, rounds.ledger, terms.parties, self._noise)
            return noisy.popularity() if running == POPULARITY else noisy.pairs(rounds.chosen())
        from variseq.federation.local_training import calibration_sums, plain_part, trained_sums, validation_sums
        from variseq.federation.log_properties import property_sums
        from variseq.federation.noisy_steps import NoisySteps

        shared, part = rounds.network, plain_part(part)
        if isinstance(shared, NoisySteps):
            return shared.own_sum(part, self._noise)
        if shared is None:
            return property_sums(part.history().latest(terms.max_user_events))
        if shared.round < shared.rounds:
            sums, self._trainer = trained_sums(shared, part, self._party, self._trainer)
            return sums
        if shared.round == shared.rounds:
            return validation_sums(shared, part)
        return calibration_sums(shared, part, rounds.counts)
