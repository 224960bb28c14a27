"""What a list is worth to a policy: the next choice, the reward of one step, or all rewards to come (SlateQ).

SlateQ (Ie et al., IJCAI 2019) gives a value Q(s, i) to the choice of an item i in a state s, and to a list the mean of
these over the visitor's choice, nothing included. One step is the same with a discount of 0. Here Q is linear in
features and is fitted off-policy by least squares: LSTD (Bradtke and Barto, 1996) in policy iteration (Lagoudakis and
Parr, "Least-squares policy iteration", 2003). The lists that follow are those of the new policy, so no propensity is
needed. That is right where the state and what was taken decide what follows. A state that hides something is a bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from benchmarks.simulated_visitors import NOTHING, World, choice_probabilities
from benchmarks.visitor_logs import Log, State

NUM_FREE = 3
"""The first features of a state, which have no ridge: a constant, and the reward of one step with its square."""
LIST_STEPS = 6
"""Steps of `best_lists`."""


@dataclass(eq=False)
class ChoiceModel:
    """Conditional logit: utility of an item minus that of nothing, linear in the state.

    Args:
        topic: Of each item.
        of_item: What an item adds.
        by_topic: Weights of the features of its topic.
        by_visitor: Weights of the features of the visitor.
    """

    topic: Int[np.ndarray, " item"]
    of_item: Float[np.ndarray, " item"]
    by_topic: Float[np.ndarray, " kind"]
    by_visitor: Float[np.ndarray, " feature"]

    def utility(self, state: State) -> Float[np.ndarray, "visitor item"]:
        """Utility of all items minus that of nothing."""
        of_topic = np.einsum("vkt,k->vt", state.of_topic, self.by_topic)
        return of_topic[:, self.topic] + self.of_item + (state.of_visitor @ self.by_visitor)[:, None]

    @classmethod
    def of_world(cls, world: World) -> ChoiceModel:
        """The choices of the world itself, for `TrueState`."""
        options = world.options
        by_topic = np.array([-options.satiation_weight * options.satiation, 1.0])
        by_visitor = np.array([-options.null_utility, options.cost_weight * options.cost, 0.0])
        return cls(world.topic, world.appeal, by_topic, by_visitor)

    @classmethod
    def fit(cls, world: World, logs: Sequence[Log], ridge: float) -> ChoiceModel:
        """The most probable weights given all lists and what was taken of them, with a Gaussian prior."""
        from scipy.optimize import minimize

        state = State.joined([one for log in logs for one in log.state[:-1]])
        lists = np.concatenate([log.lists.reshape(-1, log.lists.shape[2]) for log in logs])
        item = np.concatenate([log.item.ravel() for log in logs])
        was_taken = lists == item[:, None]
        of_topic = np.stack([kind[np.arange(len(lists))[:, None], world.topic[lists]] for kind in
                             np.moveaxis(state.of_topic, 1, 0)], axis=2)  # fmt: skip
        ends = np.cumsum([len(world.topic), of_topic.shape[2]])

        def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
            of_item, by_topic, by_visitor = np.split(weights, ends)
            utility = of_item[lists] + of_topic @ by_topic + (state.of_visitor @ by_visitor)[:, None]
            p = choice_probabilities(utility)
            nothing = 1 - p.sum(axis=1)
            of_row = np.where(item == NOTHING, nothing, (p * was_taken).sum(axis=1))
            error = p - was_taken
            gradient = [
                np.bincount(lists.ravel(), error.ravel(), len(of_item)),
                np.einsum("vlk,vl->k", of_topic, error),
                error.sum(axis=1) @ state.of_visitor,
            ]
            prior = ridge * (weights @ weights) / 2
            return prior - np.log(np.maximum(of_row, 1e-300)).sum(), np.concatenate(gradient) + ridge * weights

        start = np.zeros(ends[-1] + state.of_visitor.shape[1])
        found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 100}).x
        return cls(world.topic, *np.split(found, ends))


def best_lists(
    utility: Float[np.ndarray, "visitor item"],
    value: Float[np.ndarray, "visitor item"],
    of_nothing: Float[np.ndarray, " visitor"],
    k: int,
    is_exact: bool = True,
) -> tuple[Int[np.ndarray, "visitor k"], Float[np.ndarray, "visitor item"], Float[np.ndarray, " visitor"]]:
    """The lists with the largest mean value over what a visitor chooses, by conditional logit.

    The mean of a list is a ratio of two sums over its items. So its maximum is found by lists of the k largest
    weight · (value − mean of the list before), after Dinkelbach, "On nonlinear fractional programming" (1967).

    Args:
        utility: Of each item minus that of nothing.
        value: When an item is chosen.
        of_nothing: The value when nothing is chosen.
        k: Length of the lists.
        is_exact: Otherwise the k largest weight · value, the "top-k" of SlateQ.

    Returns:
        Items, best first; the number by which they are the best; the mean value of each list.
    """
    weight = np.exp(np.minimum(utility, 30.0))
    weighted, mean = weight * value, of_nothing if is_exact else np.zeros(len(weight))
    for _ in range(LIST_STEPS if is_exact else 1):
        score = weighted - weight * mean[:, None]
        top = np.argpartition(-score, k - 1, axis=1)[:, :k]
        chosen = np.take_along_axis(weighted, top, axis=1).sum(axis=1)
        mean = (of_nothing + chosen) / (1 + np.take_along_axis(weight, top, axis=1).sum(axis=1))
    order = np.argsort(-np.take_along_axis(score, top, axis=1), axis=1)
    return np.take_along_axis(top, order, axis=1), score, mean


@dataclass(eq=False)
class LongTermValue:
    """Q(s, i), linear in: the item or nothing, the state, and the state of the item's topic.

    Args:
        choice: The model of the next choice.
        value: Reward of each item.
        k: Length of a list.
        discount: Of a reward that comes a round later.
        weights: Of `features`, for what comes after this round; None where the reward of one step is all.
    """

    choice: ChoiceModel
    value: Float[np.ndarray, " item"]
    k: int
    discount: float = 0.0
    weights: Float[np.ndarray, " feature"] | None = None

    def lists(
        self, state: State, is_exact: bool = True
    ) -> tuple[Int[np.ndarray, "visitor k"], Float[np.ndarray, "visitor item"]]:
        """The best lists, and the number by which their items are the best; see `best_lists`."""
        utility = self.choice.utility(state)
        of_state = self.state_features(state, utility) if self.weights is not None else np.zeros((len(utility), 0))
        return best_lists(utility, *self.of_items(state, utility, of_state), self.k, is_exact)[:2]

    def of_items(
        self, state: State, utility: Float[np.ndarray, "visitor item"], of_state: Float[np.ndarray, "visitor feature"]
    ) -> tuple[Float[np.ndarray, "visitor item"], Float[np.ndarray, " visitor"]]:
        """Q of each item and of nothing."""
        if self.weights is None:
            return np.broadcast_to(self.value, utility.shape), np.zeros(len(utility))
        num_items, num_kinds = len(self.value), state.of_topic.shape[1]
        ends = np.cumsum([num_items, 1, num_kinds])
        of_item, of_utility, by_topic, by_state = np.split(self.weights, ends)
        of_nothing = of_state @ by_state
        of_topic = np.einsum("vkt,k->vt", state.of_topic, by_topic)
        later = of_item + of_utility * utility + of_topic[:, self.choice.topic] + of_nothing[:, None]
        return self.value + self.discount * later, self.discount * of_nothing

    def state_features(self, state: State, utility: Float[np.ndarray, "visitor item"]) -> Float[np.ndarray, "v f"]:
        """A constant, the state, and the largest reward of one step."""
        value = np.broadcast_to(self.value, utility.shape)
        reward = best_lists(utility, value, np.zeros(len(utility)), self.k)[2]
        flat = state.of_topic.reshape(len(utility), -1)
        return np.column_stack([np.ones(len(utility)), reward, reward**2, state.of_visitor, flat])

    def features(
        self,
        state: State,
        utility: Float[np.ndarray, "visitor item"],
        of_state: Float[np.ndarray, "visitor feature"],
        p: Float[np.ndarray, "visitor item"],
    ) -> Float[np.ndarray, "visitor all"]:
        """Mean features over what is chosen with probabilities p; the rest of them is that of nothing."""
        of_topic = np.zeros((len(p), state.of_topic.shape[2]))
        for topic in range(of_topic.shape[1]):
            of_topic[:, topic] = p[:, self.choice.topic == topic].sum(axis=1)
        by_topic = np.einsum("vt,vkt->vk", of_topic, state.of_topic)
        return np.column_stack([p, (p * utility).sum(axis=1), by_topic, of_state])

    def fit(self, logs: Sequence[Log], discount: float, ridge: float, num_iterations: int) -> LongTermValue:
        """Least-squares policy iteration on what was logged, from the policy of one step on.

        The reward of the next round is its expectation under the model of choice, which varies less than what came.
        """
        state = State.joined([one for log in logs for one in log.state])
        utility = self.choice.utility(state)
        of_state = self.state_features(state, utility)
        item = np.concatenate([log.item.ravel() for log in logs])
        goes_on = np.concatenate([log.comes_back.ravel() for log in logs])
        now, after, first = [], [], 0
        for log in logs:
            rounds, visitors = log.item.shape
            now.append(first + np.arange(rounds * visitors))
            after.append(now[-1] + visitors)
            first += (rounds + 1) * visitors
        at, to = np.concatenate(now), np.concatenate(after)
        p = (item[:, None] == np.arange(len(self.value))).astype(float)
        chosen = self.features(state.rows(at), utility[at], of_state[at], p)
        penalty = np.full(chosen.shape[1], ridge)
        penalty[-of_state.shape[1] :][:NUM_FREE] = 0.0
        gram = chosen.T @ chosen + np.diag(penalty)
        following, next_utility, next_features = state.rows(to), utility[to], of_state[to]
        found = LongTermValue(self.choice, self.value, self.k)
        for _ in range(num_iterations):
            lists = best_lists(next_utility, *found.of_items(following, next_utility, next_features), self.k)[0]
            p = np.zeros_like(next_utility)
            listed = choice_probabilities(np.take_along_axis(next_utility, lists, axis=1))
            np.put_along_axis(p, lists, listed, axis=1)
            expected = self.features(following, next_utility, next_features, p) * goes_on[:, None]
            reward = (p @ self.value) * goes_on
            weights = np.linalg.solve(gram - discount * chosen.T @ expected, chosen.T @ reward)
            found = LongTermValue(self.choice, self.value, self.k, discount, weights)
        return found
