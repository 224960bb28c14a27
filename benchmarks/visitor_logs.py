"""What policies see of simulated visitors, and the logs that they make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from benchmarks.simulated_visitors import NOTHING, Visitors, World


@dataclass(eq=False)
class State:
    """What is known of visitors before a list.

    Args:
        of_visitor: Features.
        of_topic: Features of a visitor and a topic; an item has those of its topic.
    """

    of_visitor: Float[np.ndarray, "visitor feature"]
    of_topic: Float[np.ndarray, "visitor kind topic"]

    def rows(self, rows: Int[np.ndarray, " row"]) -> State:
        """Some visitors."""
        return State(self.of_visitor[rows], self.of_topic[rows])

    @classmethod
    def joined(cls, states: Sequence[State]) -> State:
        """The rows of several, one after the other."""
        return cls(np.concatenate([one.of_visitor for one in states]), np.concatenate([one.of_topic for one in states]))


@dataclass(eq=False)
class Log:
    """What a policy logged.

    Args:
        state: Before each round, and after the last one.
        lists: What was shown.
        item: What was taken, or `NOTHING`.
        comes_back: Whether the visitor came back for another round.
        is_there: Whether the visitor was there; otherwise the row is void.
    """

    state: list[State]
    lists: Int[np.ndarray, "round visitor k"]
    item: Int[np.ndarray, "round visitor"]
    comes_back: Bool[np.ndarray, "round visitor"]
    is_there: Bool[np.ndarray, "round visitor"]


class SeenState:
    """What a recommender sees of visitors: moving sums of lists and of what was taken."""

    KEEP_LATE, KEEP, KEEP_LONG = 0.6, 0.8, 0.95
    PRIOR_SHARE = 0.15
    """Of shown items that are taken, before a visitor has seen some; it has the weight of one item."""

    def __init__(self, world: World, number: int):
        shape = (number, world.options.num_topics)
        self.topic = world.topic
        self.items, self.nothing = np.zeros((number, world.options.num_items)), np.zeros((number, 1))
        self.taken_late, self.taken, self.taken_long, self.shown_long = (np.zeros(shape) for _ in range(4))

    def state(self, visitors: Visitors) -> State:
        """Before the next list."""
        share = (self.taken_long + self.PRIOR_SHARE) / (self.shown_long + 1) / self.PRIOR_SHARE
        of_topic = np.stack([self.taken_late, self.taken, np.log(share)], axis=1)
        return State(np.hstack([self.items, self.nothing]), of_topic)

    def update(self, lists: Int[np.ndarray, "visitor k"], item: Int[np.ndarray, " visitor"]) -> None:
        """After a round."""
        rows = np.flatnonzero(item != NOTHING)
        topic = self.topic[item[rows]]
        self.items *= self.KEEP
        self.nothing *= self.KEEP
        self.items[rows, item[rows]] += 1
        self.nothing[item == NOTHING] += 1
        taken = ((self.taken_late, self.KEEP_LATE), (self.taken, self.KEEP), (self.taken_long, self.KEEP_LONG))
        for sums, keep in taken:
            sums *= keep
            sums[rows, topic] += 1
        self.shown_long *= self.KEEP_LONG
        np.add.at(self.shown_long, (np.arange(len(lists))[:, None], self.topic[lists]), 1)

    def forget(self, rows: Int[np.ndarray, " row"]) -> None:
        """New visitors have no past."""
        sums = (self.items, self.nothing, self.taken_late, self.taken, self.taken_long, self.shown_long)
        for one in sums:
            one[rows] = 0.0


class TrueState:
    """The state itself, for scale."""

    def __init__(self, world: World, number: int):
        pass

    def state(self, visitors: Visitors) -> State:
        """Before the next list."""
        satisfaction = visitors.satisfaction
        of_visitor = np.column_stack([np.ones(len(satisfaction)), satisfaction, satisfaction**2])
        return State(of_visitor, np.stack([visitors.satiation, visitors.interest], axis=1))

    def update(self, lists: Int[np.ndarray, "visitor k"], item: Int[np.ndarray, " visitor"]) -> None:
        """Nothing is kept."""

    def forget(self, rows: Int[np.ndarray, " row"]) -> None:
        """Nothing is kept."""


View = type[SeenState | TrueState]
Lists = Callable[[State], tuple[Int[np.ndarray, "visitor k"], Float[np.ndarray, "visitor item"]]]


def simulate(
    world: World,
    view: View,
    lists_of: Lists | None,
    number: int,
    num_rounds: int,
    seed: Sequence[int],
    temperature: float | None = None,
) -> Log:
    """Rounds of a policy; lists are random where there is none.

    Args:
        world: The items.
        view: What the policy sees.
        lists_of: The policy.
        number: Visitors.
        num_rounds: Rounds.
        seed: Of the visitors.
        temperature: Of a softmax by which lists are drawn, and then visitors who leave are replaced. Without it the
            policy's own lists are shown, and whoever leaves has left.
    """
    generator, of_policy = np.random.default_rng(seed), np.random.default_rng([*seed, 1])
    visitors, seen, is_there = world.newcomers(number, generator), view(world, number), np.ones(number, bool)
    length = world.options.list_length
    states, rounds = [], []
    for _ in range(num_rounds):
        states.append(seen.state(visitors))
        if lists_of is None:
            lists = np.argsort(of_policy.random((number, len(world.topic))), axis=1)[:, :length]
        else:
            lists, score = lists_of(states[-1])
            if temperature is not None:
                scaled = (score - score.mean(axis=1, keepdims=True)) / score.std(axis=1, keepdims=True)
                lists = np.argsort(-scaled / temperature - of_policy.gumbel(size=score.shape), axis=1)[:, :length]
        item, comes_back = world.act(visitors, lists, generator)
        seen.update(lists, item)
        rounds.append((lists, item, comes_back, is_there.copy()))
        if temperature is None:
            is_there &= comes_back
        else:
            left = np.flatnonzero(~comes_back)
            visitors.replace(left, world.newcomers(len(left), of_policy))
            seen.forget(left)
    states.append(seen.state(visitors))
    return Log(states, *(np.stack(column) for column in zip(*rounds, strict=True)))
