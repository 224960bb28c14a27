"""Simulated shoppers and lists shown to them into what they take: the world of a closed loop, round by round.

Each round every shopper is shown one list of k items. What they want next is drawn from the simulator's true
distribution given their visible past. If it is on the list they take it from there: reward 1, and the event joins their
history. If not, they leave: reward 0, the shop does not learn what they wanted, and they come back next round with the
same past. So the log grows by nothing but what the lists brought.

A shopper stays in the session with the simulator's own probability (the next event is then a minute later) or comes
back after a day; the policy is not told which. The shop has views alone, no carts or purchases.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.events.shoppers import Past, SimulationOptions, next_item_distribution
from variseq.events.simulate import simulate
from variseq.events.table import MICROSECONDS_PER_SECOND
from variseq.sequences.histories import Histories

MINUTE, DAY = 60 * MICROSECONDS_PER_SECOND, 86_400 * MICROSECONDS_PER_SECOND


@dataclass(frozen=True)
class LoopOptions:
    """The world of a loop: `start_events` is how many events of each shopper the shop knows when the loop begins."""

    num_shoppers: int = 300
    num_items: int = 300
    start_events: int = 3
    num_rounds: int = 50
    k: int = 10

    def simulation(self, seed: int) -> SimulationOptions:
        """Shoppers who only view; everything else as the simulator has it by default."""
        mean_events = max(2 * self.start_events, 10)
        return SimulationOptions(
            self.num_shoppers, self.num_items, mean_events=mean_events, seed=seed, cart_probability=0.0
        )


class Shoppers:
    """Shoppers of one seed. What they want is decided by the same random numbers whatever the policy shows them."""

    def __init__(self, options: LoopOptions, seed: int) -> None:
        self.options = options
        self._simulation = simulate(options.simulation(seed))
        log = self._simulation
        user = np.repeat(np.arange(options.num_shoppers), np.diff(log.offsets))
        known = np.arange(len(user)) - log.offsets[user] < options.start_events
        self._user, self._item, self._timestamp = user[known], log.item[known], log.timestamp[known]
        random = np.random.default_rng([seed, 1])
        shape = (options.num_rounds, options.num_shoppers)
        self._wants, self._opens = random.random(shape), random.random(shape)

    def histories(self) -> Histories:
        """What the shop has seen so far."""
        offsets = np.searchsorted(self._user, np.arange(self.options.num_shoppers + 1))
        num_events = len(self._item)
        return Histories(
            offsets,
            self._item.astype(np.int32),
            np.zeros(num_events, dtype=np.uint8),
            self._timestamp,
            np.full(num_events, np.nan, dtype=np.float32),
        )

    def true_probabilities(self, session_end_probability: float | None = None) -> Float[np.ndarray, "shopper item"]:
        """The true distribution of what each wants next; where given, as if a session ended with this probability."""
        rules = self._simulation.options
        known = self.histories()
        past = Past.read(rules, self._simulation.shop, known.offsets, known.item, known.timestamp, known.behavior)
        if session_end_probability is not None:
            rules = replace(rules, session_end_probability=session_end_probability)
        return next_item_distribution(rules, self._simulation.shop, past)

    def respond(self, round_number: int, lists: Int[np.ndarray, "shopper k"]) -> Bool[np.ndarray, " shopper"]:
        """Show a list to each; who took something from it."""
        opens = self._opens[round_number] < self._simulation.options.session_end_probability
        probability = np.where(opens[:, None], self.true_probabilities(1.0), self.true_probabilities(0.0))
        cumulated = np.cumsum(probability, axis=1)
        wanted = (cumulated < self._wants[round_number][:, None] * cumulated[:, -1:]).sum(axis=1)
        taken = (lists == wanted[:, None]).any(axis=1)
        shopper = np.flatnonzero(taken)
        last = np.searchsorted(self._user, shopper, side="right") - 1
        time = self._timestamp[last] + np.where(opens[shopper], DAY, MINUTE)
        # Each new event goes behind the last one of its shopper.
        self._user = np.insert(self._user, last + 1, shopper)
        self._item = np.insert(self._item, last + 1, wanted[shopper])
        self._timestamp = np.insert(self._timestamp, last + 1, time)
        return taken
