"""Simulated visitors for whom a list has consequences: satiation, churn and costs of bad lists, each with a switch.

A visitor gets a list in every round, takes one item of it or none, and comes back for another round or not. Some items
are taken often and disappoint; they stand for clickbait. The idea is that of the interest evolution environment of
SlateQ (Ie et al., "SlateQ: A tractable decomposition for reinforcement learning with recommendation sets", IJCAI 2019).
With all switches off, no list changes anything after its round.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

NOTHING = -1
"""In place of an item where nothing was taken."""


@dataclass(frozen=True)
class WorldOptions:
    """What a world is like.

    Args:
        satiation: A topic that was taken loses appeal, and recovers.
        churn: The chance to come back depends on satisfaction; otherwise everybody comes back.
        cost: A visitor with little satisfaction takes less from later lists.
        num_items: Items of the catalog; each has one topic.
        num_topics: Topics.
        list_length: Items of a list.
        interest_drift: Share of an interest that is drawn anew in a round, whatever is shown.
        null_utility: Utility of taking nothing, where an item of no interest and mean appeal has 0.
        clickbait: Correlation of appeal with worth is minus this number.
        value_spread: Standard deviation of the logarithm of an item's reward.
        satiation_weight: How much utility a topic loses for each time that it was taken a moment ago.
        satiation_keep: Share of satiation that is left after a round.
        satisfaction_keep: Share of satisfaction that is left after a round; the rest is the worth of what was taken.
        worth_of_nothing: What counts as worth where nothing was taken.
        return_logit: Log odds to come back at a satisfaction of 0.
        return_slope: What one unit of satisfaction adds to these log odds.
        cost_weight: What one unit of satisfaction takes from the utility of taking nothing.
    """

    satiation: bool = True
    churn: bool = True
    cost: bool = True
    num_items: int = 60
    num_topics: int = 6
    list_length: int = 5
    interest_drift: float = 0.05
    null_utility: float = 1.5
    clickbait: float = 0.5
    value_spread: float = 0.4
    satiation_weight: float = 0.8
    satiation_keep: float = 0.8
    satisfaction_keep: float = 0.8
    worth_of_nothing: float = -0.5
    return_logit: float = 3.5
    return_slope: float = 1.5
    cost_weight: float = 1.0


@dataclass(eq=False)
class Visitors:
    """The state of visitors, which no recommender sees.

    Args:
        interest: Of each visitor in each topic.
        satiation: How much of a topic was taken lately.
        satisfaction: Moving average of the worth of what was taken.
    """

    interest: Float[np.ndarray, "visitor topic"]
    satiation: Float[np.ndarray, "visitor topic"]
    satisfaction: Float[np.ndarray, " visitor"]

    def replace(self, rows: Int[np.ndarray, " row"], others: Visitors) -> None:
        """Put others into these rows."""
        self.interest[rows] = others.interest
        self.satiation[rows] = others.satiation
        self.satisfaction[rows] = others.satisfaction


@dataclass(frozen=True, eq=False)
class World:
    """The items of a world and what visitors do with them.

    Args:
        options: What the world is like.
        topic: Of each item; known to a recommender.
        value: Reward when an item is taken; known to a recommender.
        appeal: What makes an item taken.
        worth: What an item adds to satisfaction after it was taken.
    """

    options: WorldOptions
    topic: Int[np.ndarray, " item"]
    value: Float[np.ndarray, " item"]
    appeal: Float[np.ndarray, " item"]
    worth: Float[np.ndarray, " item"]

    @classmethod
    def draw(cls, options: WorldOptions, seed: int) -> World:
        """The items of one world."""
        generator = np.random.default_rng([seed, 0])
        appeal, other, value = generator.normal(size=(3, options.num_items))
        worth = -options.clickbait * appeal + np.sqrt(1 - options.clickbait**2) * other
        topic = generator.permutation(np.arange(options.num_items) % options.num_topics)
        return cls(options, topic, np.exp(options.value_spread * value), appeal, worth)

    def newcomers(self, number: int, generator: np.random.Generator) -> Visitors:
        """Visitors before their first round."""
        shape = (number, self.options.num_topics)
        return Visitors(generator.normal(size=shape), np.zeros(shape), np.zeros(number))

    def utility(self, visitors: Visitors) -> Float[np.ndarray, "visitor item"]:
        """Utility of each item minus that of taking nothing."""
        options = self.options
        of_topic = visitors.interest - options.satiation * options.satiation_weight * visitors.satiation
        of_all = options.cost * options.cost_weight * visitors.satisfaction - options.null_utility
        return of_topic[:, self.topic] + self.appeal + of_all[:, None]

    def act(
        self, visitors: Visitors, lists: Int[np.ndarray, "visitor k"], generator: np.random.Generator
    ) -> tuple[Int[np.ndarray, " visitor"], Bool[np.ndarray, " visitor"]]:
        """One round; changes the visitors.

        Equal generators give the same chances to the same visitor, whatever the lists are. So policies are compared
        with common random numbers.

        Returns:
            The item that each took, or `NOTHING`; whether the visitor comes back for another round.
        """
        options, rows = self.options, np.arange(len(lists))
        chance, chance_to_return = generator.random((2, len(lists)))
        renewed = generator.normal(size=visitors.interest.shape)
        up_to = np.cumsum(choice_probabilities(np.take_along_axis(self.utility(visitors), lists, axis=1)), axis=1)
        index = (chance[:, None] >= up_to).sum(axis=1)
        is_taken = index < lists.shape[1]
        item = np.where(is_taken, lists[rows, np.minimum(index, lists.shape[1] - 1)], NOTHING)
        worth = np.where(is_taken, self.worth[item], options.worth_of_nothing)
        visitors.satiation *= options.satiation_keep
        visitors.satiation[rows[is_taken], self.topic[item[is_taken]]] += 1
        visitors.satisfaction += (1 - options.satisfaction_keep) * (worth - visitors.satisfaction)
        drift = options.interest_drift
        visitors.interest = np.sqrt(1 - drift) * visitors.interest + np.sqrt(drift) * renewed
        log_odds = options.return_logit + options.return_slope * visitors.satisfaction
        comes_back = chance_to_return < 1 / (1 + np.exp(-log_odds)) if options.churn else np.ones(len(lists), bool)
        return item, comes_back


def choice_probabilities(utility: Float[np.ndarray, "visitor k"]) -> Float[np.ndarray, "visitor k"]:
    """Probability that each item of a list is taken; what is left is that of taking nothing (conditional logit).

    Source: McFadden, "Conditional logit analysis of qualitative choice behavior" (1974).

    >>> choice_probabilities(np.zeros((1, 3)))
    array([[0.25, 0.25, 0.25]])
    """
    largest = np.maximum(utility.max(axis=1, keepdims=True), 0.0)
    weight = np.exp(utility - largest)
    return weight / (weight.sum(axis=1, keepdims=True) + np.exp(-largest))
