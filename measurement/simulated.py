"""Logs of two fields without open data, bank accounts and drives, simulated with known probabilities.

Both probabilities follow from what is in the log, so an oracle computes them from a history alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int
from torch import Tensor

from variseq.evaluation.splits import Part
from variseq.events.vocabulary import Vocabulary
from variseq.sequences.histories import Histories

MICROSECONDS = 1_000_000
FIRST_SECOND = 1_704_067_200
"""1 January 2024 (UTC)."""

# Accounts: times are in steps of six hours, amounts are logarithms of euros.
STEP_SECONDS, STEPS_A_MONTH = 21_600, 112
SALARY, RENT = 0, 1
CATEGORIES = ("groceries", "transport", "restaurant", "shop", "leisure", "health")
MERCHANTS_PER_CATEGORY = 8
ACCOUNT_ITEMS = [
    "salary", "rent", *(f"{name} {number}" for name in CATEGORIES for number in range(1, MERCHANTS_PER_CATEGORY + 1))
]  # fmt: skip
CATEGORY_SHARE = {
    "free": np.array([0.25, 0.15, 0.2, 0.2, 0.15, 0.05]),
    "thrifty": np.array([0.55, 0.25, 0.05, 0.05, 0.02, 0.08]),
}
"""The two moods of an account, by what is spent of the last salary."""
THRIFTY_FROM = 0.5
GAPS = np.arange(1, 25)
GAP_SHARE = {mood: ratio**GAPS / (ratio**GAPS).sum() for mood, ratio in (("free", 0.55), ("thrifty", 0.8))}
HABIT = 4.0
"""So many purchases is the popularity of the merchants of a category worth to an account."""
POPULARITY = 1 / np.arange(1, MERCHANTS_PER_CATEGORY + 1)
POPULARITY /= POPULARITY.sum()
DUE_PROBABILITY = 0.6
LOG_AMOUNT = np.log([2_600.0, 900.0, *np.repeat([35.0, 12.0, 28.0, 60.0, 22.0, 40.0], MERCHANTS_PER_CATEGORY)])
SPREAD_OF_ACCOUNTS = np.array([0.35, 0.35, *np.zeros(len(ACCOUNT_ITEMS) - 2)])
SPREAD = np.array([0.05, 0.02, *np.full(len(ACCOUNT_ITEMS) - 2, 0.4)])


@dataclass
class Account:
    """What the transactions of an account so far say of the next one.

    A gap is drawn by the mood. Then salary and rent come with probability .6 where they are due: a month of 28 days
    after the last one, or from the start. Otherwise a category is drawn by the mood, and in it a merchant by
    popularity and the account's own purchases (an urn of Pólya). Salary and rent have a level of the account.
    """

    step: int = 0
    last: list[int] = field(default_factory=lambda: [-STEPS_A_MONTH, -STEPS_A_MONTH])
    spent: float = 0.0
    salary: float = np.inf
    count: Float[np.ndarray, " item"] = field(default_factory=lambda: np.zeros(len(ACCOUNT_ITEMS)))
    total: Float[np.ndarray, " item"] = field(default_factory=lambda: np.zeros(len(ACCOUNT_ITEMS)))

    @property
    def mood(self) -> str:
        """Free, or thrifty once half of the last salary is spent."""
        return "thrifty" if self.spent > THRIFTY_FROM * self.salary else "free"

    def after(self, gap: Int[np.ndarray, "*gap"] | int) -> Float[np.ndarray, "*item_and_gap"]:
        """The probability of each item, given the gap in steps."""
        of_salary, of_rent = (DUE_PROBABILITY * (self.step + gap - last >= STEPS_A_MONTH) for last in self.last)
        purchases = self.count[2:].reshape(len(CATEGORIES), -1)
        merchant = (purchases + HABIT * POPULARITY) / (purchases.sum(axis=1, keepdims=True) + HABIT)
        of_merchant = (CATEGORY_SHARE[self.mood][:, None] * merchant).ravel()
        rest = (1 - of_salary) * (1 - of_rent)
        return np.concatenate([[of_salary, (1 - of_salary) * of_rent], np.multiply.outer(of_merchant, rest)])

    def next_item(self) -> Float[np.ndarray, " item"]:
        """The probability of each item, when the gap is not known."""
        found: Float[np.ndarray, " item"] = self.after(GAPS) @ GAP_SHARE[self.mood]
        return found

    def log_amount(self, item: int) -> float:
        """The expected logarithm of the amount: the posterior mean, where an account has a level of its own."""
        between, inside = SPREAD_OF_ACCOUNTS[item] ** 2, SPREAD[item] ** 2
        return float(LOG_AMOUNT[item] + between * self.total[item] / (between * self.count[item] + inside))

    def add(self, item: int, step: int, log_amount: float) -> None:
        """One transaction more."""
        self.step = step
        self.count[item] += 1
        self.total[item] += log_amount - LOG_AMOUNT[item]
        if item == SALARY:
            self.salary, self.spent = np.exp(log_amount), 0.0
        else:
            self.spent += np.exp(log_amount)
        if item in (SALARY, RENT):
            self.last[item] = step


def accounts(num_accounts: int = 200, num_events: int = 80, seed: int = 0) -> pa.Table:
    """A log of simulated accounts: the item is the type or the merchant, the value the logarithm of the amount."""
    random, rows = np.random.default_rng(seed), []
    for user in range(num_accounts):
        account, level = Account(), random.normal(0.0, SPREAD_OF_ACCOUNTS)
        for _ in range(num_events):
            gap = int(random.choice(GAPS, p=GAP_SHARE[account.mood]))
            item = int(random.choice(len(ACCOUNT_ITEMS), p=account.after(gap)))
            amount = float(np.float32(LOG_AMOUNT[item] + level[item] + random.normal(0.0, SPREAD[item])))
            account.add(item, account.step + gap, amount)
            rows.append((user, ACCOUNT_ITEMS[item], FIRST_SECOND + STEP_SECONDS * account.step, amount))
    return _table(rows)


# Drives: a grid of streets; a manoeuvre at a junction is an item.
SIDE = 6
STEPS = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])
"""North, east, south, west; the next in this order is a turn to the right."""
TURNS = ("left", "straight", "right")
TURN_SHARE = np.array([[0.05, 0.5, 0.45], [0.25, 0.5, 0.25], [0.45, 0.5, 0.05]])
"""By the turn before, the shares of left, straight and right where all are possible."""
START_TURN = 1
MANOEUVRES = [f"{turn} at {x}.{y}" for x in range(SIDE) for y in range(SIDE) for turn in TURNS]
Drive = tuple[int, int, int]
"""Junction, heading on arrival, turn before."""


def _exits(junction: int, heading: int) -> list[tuple[int, int] | None]:
    """For each turn the junction that it leads to and the heading; None where the grid ends."""
    found: list[tuple[int, int] | None] = []
    for turn in range(len(TURNS)):
        towards = (heading + turn - 1) % len(STEPS)
        x, y = np.array(divmod(junction, SIDE)) + STEPS[towards]
        found.append((int(x) * SIDE + int(y), towards) if 0 <= x < SIDE and 0 <= y < SIDE else None)
    return found


EXITS = {(junction, heading): _exits(junction, heading) for junction in range(SIDE**2) for heading in range(len(STEPS))}


def turn_probability(drive: Drive) -> Float[np.ndarray, " turn"]:
    """The probability of left, straight and right: those of the turn before, among the streets that there are."""
    junction, heading, before = drive
    share = TURN_SHARE[before] * [way is not None for way in EXITS[junction, heading]]
    return np.asarray(share / share.sum())


def first_drives() -> dict[Drive, float]:
    """Where a drive may begin, all equally likely: any junction, on any street that leads to it."""
    starts = [way for ways in EXITS.values() for way in ways if way is not None]
    starts = sorted(set(starts))
    return {(junction, heading, START_TURN): 1 / len(starts) for junction, heading in starts}


def next_drives(drives: dict[Drive, float], item: int) -> dict[Drive, float]:
    """Where the drive is after a manoeuvre; of several headings, those that it leaves, with their probabilities."""
    junction, turn = divmod(item, len(TURNS))
    found: dict[Drive, float] = {}
    for drive, share in drives.items():
        way = EXITS[drive[0], drive[1]][turn]
        if drive[0] == junction and way is not None:
            found[*way, turn] = found.get((*way, turn), 0.0) + share * turn_probability(drive)[turn]
    total = sum(found.values())
    return {drive: share / total for drive, share in found.items()}


def manoeuvre_probability(drives: dict[Drive, float]) -> Float[np.ndarray, " item"]:
    """The probability of each next manoeuvre."""
    found = np.zeros((SIDE**2, len(TURNS)))
    for drive, share in drives.items():
        found[drive[0]] += share * turn_probability(drive)
    return found.ravel()


def drives(num_drives: int = 500, num_events: int = 50, seed: int = 0) -> pa.Table:
    """A log of simulated drives: the item is a manoeuvre at a junction, the time that of the turn."""
    random, rows, starts = np.random.default_rng(seed), [], list(first_drives())
    for user in range(num_drives):
        drive, second = starts[random.integers(len(starts))], FIRST_SECOND + 86_400 * user
        for _ in range(num_events):
            turn = int(random.choice(len(TURNS), p=turn_probability(drive)))
            rows.append((user, MANOEUVRES[drive[0] * len(TURNS) + turn], second, None))
            way = EXITS[drive[0], drive[1]][turn]
            assert way is not None
            drive, second = (*way, turn), second + round(float(np.exp(random.normal(3.4, 0.3))))
    return _table(rows).drop_columns("value")


def _table(rows: list[tuple[int, str, int, float | None]]) -> pa.Table:
    names = ("user_id", "item_id", "timestamp", "value")
    return pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))


class Oracle(ABC):
    """The true probabilities of a simulation, as a model that is evaluated; `probability_of` is one history's."""

    name = "oracle"
    gives_probabilities = True

    def __init__(self, vocabulary: Vocabulary, names: list[str]) -> None:
        number = {name: position for position, name in enumerate(names)}
        self.number = np.array([number[name] for name in vocabulary.item_ids(range(vocabulary.num_items))])

    @abstractmethod
    def probability_of(self, history: Histories) -> Float[np.ndarray, " item"]:
        """The probability of each next item of the simulation."""

    def scores(self, histories: Histories) -> Float[Tensor, "history item"]:
        found = [self.probability_of(histories.history(row))[self.number] for row in range(len(histories))]
        return torch.from_numpy(np.log(np.maximum(found, 1e-12))).float()

    def other_metrics(self, part: Part) -> dict[str, Any]:
        """What else is known of the part's targets."""
        return {}


class DriveOracle(Oracle):
    """The next manoeuvre, of which the last two say the street."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary, MANOEUVRES)

    def probability_of(self, history: Histories) -> Float[np.ndarray, " item"]:
        drives = first_drives()
        for item in self.number[history.item].tolist():
            drives = next_drives(drives, item)
        return manoeuvre_probability(drives)


class AccountOracle(Oracle):
    """The next transaction, the gap before it and its amount."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary, ACCOUNT_ITEMS)

    def probability_of(self, history: Histories) -> Float[np.ndarray, " item"]:
        account = Account()
        for _ in self._replayed(history, account):
            pass
        return account.next_item()

    def _replayed(self, history: Histories, account: Account) -> Iterator[tuple[int, int]]:
        """Item and step of each event, before the account has it."""
        steps = (history.timestamp // MICROSECONDS - FIRST_SECOND) // STEP_SECONDS
        for item, step, amount in zip(self.number[history.item], steps.tolist(), history.value.tolist(), strict=True):
            yield int(item), step
            account.add(int(item), step, amount)

    def other_metrics(self, part: Part) -> dict[str, Any]:
        """The NLL of the gaps in nats, and the root mean squared error of the logarithms of the amounts."""
        nll, error = [], []
        for user in range(len(part.histories)):
            history, account = part.histories.history(user), Account()
            first, end = (
                int(bound[user] - part.histories.offsets[user]) for bound in (part.history_end, part.target_end)
            )
            for position, (item, step) in enumerate(self._replayed(history, account)):
                if first <= position < end:
                    nll.append(-np.log(GAP_SHARE[account.mood][step - account.step - 1]))
                    error.append(history.value[position] - account.log_amount(item))
        return {"gap_nll": float(np.mean(nll)), "value_rmse": float(np.sqrt(np.mean(np.square(error))))}


OracleOf = Callable[[Vocabulary], Oracle]
