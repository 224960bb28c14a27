"""Offsets that are learned from rewards of whole lists of simulated shops, and what they are worth in truth.

    python -m benchmarks.list_improvement --seeds 1 2 3 --lists 50000 200000

The shops and forecasts are those of `benchmarks.improvement`. A person takes one item of a list or nothing, and is
satisfied with it or not. More than four items of one category tire people, so rewards are no sums over items.
Settings were chosen in the shops 101 to 103. What is measured already is left out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.feedback_loop import FOLDER, NUM_USERS, Computed, K, Metrics, is_measured, shop_of
from benchmarks.improvement import EPOCHS, LOGGED, POOL, World, percent
from measurement.records import append_records, command_parser, exit_code, read_records, record_of
from variseq.exposures.table import Exposures
from variseq.off_policy.evaluation import evaluate_policies
from variseq.off_policy.improvement import CHOOSING, HELD_OUT
from variseq.off_policy.list_gradient import DrawnPools, largest_step, reward_gradient
from variseq.off_policy.policies import TargetProbabilities
from variseq.ranking.plackett_luce import at_rank, softmax_weights

RETURN, DWELL = "return", "dwell"
WEIGHT_OF_NOTHING = 0.3
"""Of taking nothing, where the weights of all items of the catalog sum to 1."""
SATISFACTION, DISAPPOINTMENT = 1.2, -0.7
"""Standard deviation of the satisfaction with items, and that with nothing."""
TIRED_FROM, TIREDNESS = 4, 0.2
"""Each item after so many of one category takes so much from satisfaction with the list."""
MEAN_MINUTES, LONGEST_MINUTES = np.exp(1.5), 60.0
REPETITIONS = 50
"""Lists of each person by which true values are computed, the same random numbers for all policies."""


@dataclass(frozen=True, eq=False)
class ListWorld:
    """A shop, how satisfied people are with its items, and what a list earns."""

    world: World
    category: np.ndarray
    satisfaction: np.ndarray
    person: np.ndarray
    reward: str

    @classmethod
    def of(cls, world: World, category: np.ndarray, seed: int, reward: str) -> ListWorld:
        """A world; `person` is how gladly each person comes back, or stays."""
        random = np.random.default_rng([seed, 7])
        num_people, num_items = world.score.shape
        person, satisfaction = np.asarray(random.normal(size=num_people)), random.normal(size=(1, num_items))
        return cls(world, category, SATISFACTION * satisfaction[0], person, reward)

    def outcomes(self, person: np.ndarray, item: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each list the probabilities of its items, and last of nothing, to be taken; and the mean reward then."""
        wanted = self.world.wanted[person[:, None], item]
        wanted = np.column_stack([wanted, np.full(len(item), WEIGHT_OF_NOTHING)])
        category = np.sort(self.category[item], axis=1)
        tired = TIREDNESS * (category[:, TIRED_FROM:] == category[:, :-TIRED_FROM]).sum(axis=1)
        satisfied = np.column_stack([self.satisfaction[item], np.full(len(item), DISAPPOINTMENT)])
        if self.reward == RETURN:
            mean = 1 / (1 + np.exp(-(self.person[person, None] + satisfied - tired[:, None])))
        else:
            mean = MEAN_MINUTES * np.exp(satisfied + 0.5 * self.person[person, None] - tired[:, None])
        return wanted / wanted.sum(axis=1, keepdims=True), mean

    def mean_reward(self, person: np.ndarray, item: np.ndarray) -> float:
        """The expected reward of these lists."""
        chance, mean = self.outcomes(person, item)
        if self.reward == DWELL:
            mean = mean * -np.expm1(-LONGEST_MINUTES / mean)
        return float((chance * mean).sum(axis=1).mean())

    def rewards(self, person: np.ndarray, item: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Whether people came back, or exponential minutes up to an hour."""
        chance, mean = self.outcomes(person, item)
        taken = (random.random(len(item))[:, None] >= np.cumsum(chance, axis=1)).sum(axis=1)
        of_taken = mean[np.arange(len(item)), np.minimum(taken, K)]
        if self.reward == RETURN:
            return (random.random(len(item)) < of_taken).astype(float)
        return np.minimum(random.exponential(of_taken), LONGEST_MINUTES)

    def weights(self, offset: np.ndarray) -> np.ndarray:
        """What lists of each person are drawn by, in the order of the catalog; 0 for items that no pool has."""
        item, score = self.world.pools(offset)
        found = np.zeros_like(self.world.score)
        share, k = LOGGED.uniform_share, np.full(len(item), K)
        np.put_along_axis(found, item, softmax_weights(score, LOGGED.temperature, share, k), axis=1)
        return found

    def draw(self, offset: np.ndarray, person: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Lists that are drawn under offsets."""
        weight, found = self.weights(offset), []
        for part in np.array_split(person, max(1, len(person) // 5000)):
            of_part = weight[part]
            time_of = np.full(of_part.shape, np.inf)
            np.divide(random.exponential(size=of_part.shape), of_part, out=time_of, where=of_part > 0)
            first = np.argpartition(time_of, K, axis=1)[:, :K]
            order = np.argsort(np.take_along_axis(time_of, first, axis=1), axis=1)
            found.append(np.take_along_axis(first, order, axis=1))
        return np.concatenate(found)

    def value(self, offset: np.ndarray, people: np.ndarray) -> float:
        """The true reward of a drawn list of these people."""
        person = np.repeat(people, REPETITIONS)
        return self.mean_reward(person, self.draw(offset, person, np.random.default_rng(99)))

    def greedy_value(self, offset: np.ndarray, people: np.ndarray) -> float:
        """The true reward of a greedy list of these people."""
        return self.mean_reward(people, self.world.pools(offset)[0][people, :K])

    def at_rank(self, offset: np.ndarray, person: np.ndarray, item: np.ndarray) -> np.ndarray:
        """The probability of each item of these lists at its rank under offsets."""
        weight = self.weights(offset)
        parts = np.array_split(np.arange(len(person)), max(1, len(person) // 5000))
        return np.concatenate([at_rank(weight[person[one]], item[one]) for one in parts])


def improve(world: ListWorld, num_lists: int, seed: int) -> Metrics:
    """What offsets are worth in truth, and by the people who were held out."""
    nothing, random = np.zeros(world.world.score.shape[1]), np.random.default_rng([seed, 5])
    num_people = len(world.world.score)
    person = random.integers(num_people, size=num_lists)
    item = world.draw(nothing, person, random)
    reward = world.rewards(person, item, random)
    is_held_out = np.random.default_rng([seed, 3]).random(num_people) < HELD_OUT + CHOOSING
    begun, kept = time.process_time(), is_held_out[person]
    pools, included = pools_of(world, person[~kept], item[~kept], reward[~kept])
    offset = largest_step(pools, reward_gradient(pools, included, len(nothing)), LOGGED)
    metrics: Metrics = {"reward": float(reward.mean()), "cpu_seconds": time.process_time() - begun}
    metrics["step"] = float(np.sqrt((offset**2).sum() / np.count_nonzero(offset)))
    people = np.flatnonzero(is_held_out)
    before, after = (world.value(one, people) for one in (nothing, offset))
    metrics["drawn"] = percent(after, before)
    metrics["greedy"] = percent(world.greedy_value(offset, people), world.greedy_value(nothing, people))
    log = exposures_of(person[kept], item[kept], reward[kept], world.at_rank(nothing, person[kept], item[kept]))
    policies = [
        Computed(
            name, TargetProbabilities(world.at_rank(one, person[kept], item[kept]).ravel(), np.ones(log.item.size))
        )
        for name, one in (("learned", offset), ("logged", nothing))
    ]
    found = evaluate_policies(log, policies, show_refused=True)
    metrics["effective_share"] = found.policies[0].diagnostics[0].effective_sample / found.num_exposures
    for one in found.differences[0].estimates:
        assert one.value is not None
        assert one.interval is not None
        low, high = one.interval
        metrics[one.estimator] = 100 * one.value / before
        metrics[f"{one.estimator}_interval"] = [100 * low / before, 100 * high / before]
        metrics[f"{one.estimator} above 0"] = float(low > 0 and one.refusal is None)
        metrics[f"{one.estimator} holds"] = float(low <= after - before <= high)
    return metrics


def pools_of(
    world: ListWorld, person: np.ndarray, item: np.ndarray, reward: np.ndarray
) -> tuple[DrawnPools, np.ndarray]:
    """The pools of these lists, and the probability of each item to be in the list."""
    nothing = np.zeros(world.world.score.shape[1])
    pool, score = world.world.pools(nothing)
    listed = np.take_along_axis(world.world.in_list(nothing), pool, axis=1)
    place = np.full(world.world.score.shape, -1)
    np.put_along_axis(place, pool, np.tile(np.arange(POOL), (len(pool), 1)), axis=1)
    index = place[person[:, None], item]
    return DrawnPools(pool[person], score[person], np.full(len(person), K), index, reward), listed[person]


def exposures_of(person: np.ndarray, item: np.ndarray, reward: np.ndarray, logged: np.ndarray) -> Exposures:
    """The lists one by one, with their rewards in the last rows."""
    of_rows = np.zeros(item.shape)
    of_rows[:, -1] = reward
    return Exposures(
        offsets=np.arange(0, item.size + 1, K),
        exposure_id=[str(one) for one in range(len(person))],
        user=[str(one) for one in person.tolist()],
        time=np.arange(len(person)),
        context=None,
        item=item.ravel(),
        item_ids=list(range(int(item.max()) + 1)),
        rank=np.tile(np.arange(1, K + 1), len(person)),
        propensity_at_rank=logged.ravel(),
        propensity_in_list=np.ones(item.size),
        is_pinned=np.zeros(item.size, dtype=bool),
        reward=of_rows.ravel(),
        rewards_lists=True,
    )


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "list_improvement")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4], help="of the shops")
    parser.add_argument("--lists", type=int, nargs="+", default=[50_000, 200_000])
    parser.add_argument("--rewards", nargs="+", choices=[RETURN, DWELL], default=[RETURN, DWELL])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="for forecasts, which are made the first time")
    given = parser.parse_args(words)

    def work() -> None:
        cases = [{"reward": reward, "num_lists": number} for number in given.lists for reward in given.rewards]
        for case, seed in [(case, seed) for case in cases for seed in given.seeds]:
            if is_measured(read_records(given.out), "list_improvement", case, seed):
                continue
            world = World.of(seed, given.folder)
            shop = ListWorld.of(world, shop_of(seed).catalog.category, seed, case["reward"])
            metrics = improve(shop, case["num_lists"], seed)
            settings = {"num_users": NUM_USERS, "max_epochs": EPOCHS, "temperature": LOGGED.temperature}
            settings |= {"pool": POOL, "uniform_share": LOGGED.uniform_share}
            append_records(
                given.out, [record_of("list_improvement", case, metrics, seed=seed, settings=settings, threads=1)]
            )
            print(seed, case, metrics, flush=True)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
