"""Offsets of scores that are learned from drawn lists of simulated shops, and what they are worth in truth.

    python -m benchmarks.improvement --seeds 1 2 3 --lists 10000 50000

Each person of a shop stands at one moment, and gets many lists there. The lists of one person are summed. A run is
fitted for each shop. Settings were chosen in the shops of the seeds 101 and 102. What is measured already is left out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.feedback_loop import BUY_RATE, FOLDER, NUM_USERS, Computed, K, Metrics, is_measured, shop_of
from measurement.records import append_records, command_parser, exit_code, read_records, record_of
from variseq.events.simulate import Simulation
from variseq.exposures.table import Exposures
from variseq.off_policy.evaluation import evaluate_policies
from variseq.off_policy.improvement import BEST, CHOOSING, HELD_OUT, offsets_by_trials
from variseq.off_policy.policies import TargetProbabilities
from variseq.off_policy.score_offsets import MAX_WEIGHT, RankedPools, log_reward_rates
from variseq.ranking.options import RecommendOptions
from variseq.ranking.plackett_luce import in_list, softmax_weights

POOL, EPOCHS = 100, 8
LOGGED = RecommendOptions(k=K, strategy="softmax", pool=POOL)


@dataclass(frozen=True, eq=False)
class World:
    """A shop at one moment of each person: what a fitted run forecasts, what they want, and what is bought."""

    score: np.ndarray
    wanted: np.ndarray
    buy_rate: np.ndarray

    @classmethod
    def of(cls, seed: int, folder: Path, num_users: int = NUM_USERS, epochs: int = EPOCHS) -> World:
        """A world, with a run that is fitted the first time."""
        path = folder / f"world-{seed}.npz"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            score, wanted = forecasts(shop_of(seed, num_users), epochs)
            np.savez(path, score=score.astype(np.float32), wanted=wanted.astype(np.float32))
        with np.load(path) as kept:
            wanted = kept["wanted"].astype(float)
            score = kept["score"].astype(float)
        buy_rate = np.random.default_rng([seed, 0]).beta(*BUY_RATE, wanted.shape[1])
        return cls(score, wanted / wanted.sum(axis=1, keepdims=True), buy_rate)

    def in_list(self, offset: np.ndarray) -> np.ndarray:
        """The probability of each item to be in each person's list under offsets of scores."""
        item, score = self.pools(offset)
        found = np.zeros_like(self.score)
        for part in np.array_split(np.arange(len(item)), max(1, len(item) // 100)):
            k = np.full(len(part), K)
            weight = softmax_weights(score[part], LOGGED.temperature, LOGGED.uniform_share, k)
            every = np.tile(np.arange(item.shape[1]), (len(part), 1))
            found[part[:, None], item[part]] = in_list(weight, every, k)
        return found

    def pools(self, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The items that lists are drawn from, best first, and their scores."""
        moved = self.score + offset
        item = np.argsort(-moved, axis=1, kind="stable")[:, :POOL]
        return item, np.take_along_axis(moved, item, axis=1)

    def greedy(self, offset: np.ndarray) -> np.ndarray:
        """Whether each item is in each person's greedy list."""
        found = np.zeros_like(self.score)
        np.put_along_axis(found, self.pools(offset)[0][:, :K], 1.0, axis=1)
        return found

    def taken(self, listed: np.ndarray) -> float:
        """The probability that the wanted item is in a list."""
        return float((self.wanted * listed).sum(axis=1).mean())

    def purchases(self, listed: np.ndarray, person: np.ndarray | None = None) -> float:
        """Expected purchases of a list, of these people or of each once."""
        of_people = (self.wanted * self.buy_rate * listed).sum(axis=1)
        return float((of_people if person is None else of_people[person]).mean())

    def serve(self, num_lists: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lists drawn without offsets: the person of each, its items, and their purchases."""
        random = np.random.default_rng([seed, 2])
        pool, score = self.pools(np.zeros(self.score.shape[1]))
        weight = softmax_weights(score, LOGGED.temperature, LOGGED.uniform_share, np.full(len(score), K))
        person = random.integers(len(pool), size=num_lists)
        drawn = [
            np.argsort(random.exponential(size=(len(part), POOL)) / weight[part], axis=1)[:, :K]
            for part in np.array_split(person, max(1, num_lists // 5000))
        ]
        item = np.take_along_axis(pool[person], np.concatenate(drawn), axis=1)
        wanted = (np.cumsum(self.wanted, axis=1)[person] < random.random(num_lists)[:, None]).sum(axis=1)
        is_bought = random.random(num_lists) < self.buy_rate[np.minimum(wanted, len(self.buy_rate) - 1)]
        return person, item, ((item == wanted[:, None]) & is_bought[:, None]).astype(float)


def forecasts(shop: Simulation, epochs: int) -> tuple[np.ndarray, np.ndarray]:
    """The log probabilities of a fitted run, and the true ones, of each person's last event."""
    from variseq import VariationalAttention, read
    from variseq.recommend.network_model import ModelRecommender, engine_of

    train, valid, _ = read(shop.events(), items=shop.items()).split("leave-one-out")
    model = VariationalAttention(size="tiny", seed=0, training={"max_epochs": epochs})
    model.fit(train, valid, verbose=0)
    assert model.checkpoint is not None
    assert model.checkpoint.histories is not None
    position = shop.offsets[1:][np.diff(shop.offsets) >= 4] - 2
    user = np.searchsorted(shop.offsets, position, side="right") - 1
    vocabulary, histories = model.vocabulary, model.checkpoint.histories
    of_user = vocabulary.user_positions([shop.user_ids()[one] for one in user])
    before = histories.select(histories.offsets[of_user], histories.offsets[of_user + 1] - 1)
    recommender = ModelRecommender(engine_of(model.checkpoint).model)
    parts = np.array_split(np.arange(len(before)), max(1, len(before) // 500))
    score = np.concatenate([recommender.scores(before.rows(part)).numpy() for part in parts])
    wanted = np.zeros_like(score)
    wanted[:, vocabulary.item_positions(shop.item_ids())] = shop.next_item_distribution(position)
    return score, wanted


def improve(world: World, num_lists: int, seed: int) -> Metrics:
    """What offsets are worth in truth, and by the people who were held out; beside two simpler kinds of offsets."""
    nothing = np.zeros(world.score.shape[1])
    begun, listed = time.process_time(), world.in_list(nothing)
    person, item, bought = world.serve(num_lists, seed)
    part = np.random.default_rng([seed, 3]).random(len(world.score))
    is_held_out, is_choosing = part < HELD_OUT, (part >= HELD_OUT) & (part < HELD_OUT + CHOOSING)
    pools = summed(world, person, item, bought, listed)
    fitted, choosing = pools.lists(~is_held_out & ~is_choosing), pools.lists(is_choosing)
    offset, trials, _ = offsets_by_trials(fitted, choosing, len(nothing), LOGGED)
    best, cpu_seconds = max(trials, key=lambda one: one.value), time.process_time() - begun
    simple = log_reward_rates(pools.lists(~is_held_out), len(nothing))
    offsets = {"learned": offset, "simple": simple, "true": np.log(world.buy_rate + 1e-3)}
    drawn = {name: world.in_list(one) for name, one in offsets.items()} | {"logged": listed}
    kept = is_held_out[person]
    log = exposures_of(person[kept], item[kept], bought[kept], listed)
    found = evaluate_policies(log, [policy_of(name, one, log) for name, one in drawn.items()], show_refused=True)
    before, greedy = world.purchases(listed), world.greedy(nothing)
    metrics: Metrics = {"purchases": float(bought.sum()), "strength": best.strength, "center": best.center}
    metrics |= {"cpu_seconds": cpu_seconds}
    for name, one in offsets.items():
        shown = world.greedy(one)
        metrics |= {
            f"{name} greedy": percent(world.purchases(shown), world.purchases(greedy)),
            f"{name} greedy taken": percent(world.taken(shown), world.taken(greedy)),
            f"{name} drawn": percent(world.purchases(drawn[name]), before),
            f"{name} drawn taken": percent(world.taken(drawn[name]), world.taken(listed)),
        }
    of_held_out = {name: world.purchases(one, person[kept]) for name, one in drawn.items()}
    for pair in found.differences:
        if pair.second == "logged":
            by_name = {one.estimator: one for one in pair.estimates}
            estimate = next(by_name[name] for name in BEST if name in by_name)
            assert estimate.value is not None
            assert estimate.interval is not None
            low, high = estimate.interval
            truth = of_held_out[pair.first] - of_held_out["logged"]
            metrics |= {
                f"{pair.first} held out": 100 * estimate.value / before,
                f"{pair.first} held out_interval": [100 * low / before, 100 * high / before],
                f"{pair.first} above 0": float(low > 0 and estimate.refusal is None),
                f"{pair.first} holds": float(low <= truth <= high),
            }
    return metrics


def percent(value: float, before: float) -> float:
    """A change in percent."""
    return 100 * (value / before - 1)


def summed(world: World, person: np.ndarray, item: np.ndarray, bought: np.ndarray, listed: np.ndarray) -> RankedPools:
    """The lists of each person as one row."""
    pool, score = world.pools(np.zeros(world.score.shape[1]))
    num_shown, reward = np.zeros((2, *world.score.shape))
    np.add.at(num_shown, (person[:, None], item), 1)
    np.add.at(reward, (person[:, None], item), bought)
    weight = np.minimum(1 / np.maximum(listed, 1e-12), MAX_WEIGHT)
    shown, earned, gain = (np.take_along_axis(one, pool, axis=1) for one in (num_shown, reward, reward * weight))
    return RankedPools(pool, score, np.full(len(pool), K), shown.astype(np.int64), earned, gain)


def exposures_of(person: np.ndarray, item: np.ndarray, bought: np.ndarray, listed: np.ndarray) -> Exposures:
    """The lists one by one; their probabilities at ranks are left out."""
    names = [str(one) for one in range(len(person))]
    return Exposures(
        offsets=np.arange(0, item.size + 1, K),
        exposure_id=names,
        user=[str(one) for one in person.tolist()],
        time=np.arange(len(person)),
        context=None,
        item=item.ravel(),
        item_ids=list(range(listed.shape[1])),
        rank=np.tile(np.arange(1, K + 1), len(person)),
        propensity_at_rank=np.full(item.size, np.nan),
        propensity_in_list=np.take_along_axis(listed[person], item, axis=1).ravel(),
        is_pinned=np.zeros(item.size, dtype=bool),
        reward=bought.ravel(),
    )


def policy_of(name: str, listed: np.ndarray, log: Exposures) -> Computed:
    """A policy at these lists, by its probabilities of items for each person."""
    of_lists = listed[np.array(log.user).astype(int)]
    of_rows = np.take_along_axis(of_lists, log.item.reshape(-1, K), axis=1).ravel()
    unknown = np.full_like(of_rows, np.nan)
    return Computed(
        name,
        TargetProbabilities(unknown, of_rows, lambda predicted, fold: (of_lists * predicted[fold]).sum(axis=1)),
    )


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "feedback_loop")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 11)), help="of the shops")
    parser.add_argument("--lists", type=int, nargs="+", default=[10_000, 50_000])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="for forecasts, which are made the first time")
    given = parser.parse_args(words)

    def work() -> None:
        for seed in given.seeds:
            for num_lists in given.lists:
                case = {"num_lists": num_lists}
                if is_measured(read_records(given.out), "improvement", case, seed):
                    continue
                metrics = improve(World.of(seed, given.folder), num_lists, seed)
                settings = {"num_users": NUM_USERS, "max_epochs": EPOCHS, "temperature": LOGGED.temperature}
                settings |= {"pool": POOL, "uniform_share": LOGGED.uniform_share}
                append_records(
                    given.out, [record_of("improvement", case, metrics, seed=seed, settings=settings, threads=1)]
                )
                print(seed, case, metrics, flush=True)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
