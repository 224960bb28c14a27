"""An audit of a private release in one run: canaries by coin flips, guesses, and the least ε that explains them.

Source: Steinke, Nasr and Jagielski 2023, "Privacy auditing with one (1) training run".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from variseq.errors import InputError
from variseq.privacy.accounting import Ledger, default_delta, noise_multipliers
from variseq.privacy.attacks import CONFIDENCE, Attack
from variseq.privacy.best_attack import BestAttack
from variseq.privacy.contributions import pair_index, pair_sums, popularity_sums
from variseq.privacy.noise import GRID, Noise, no_noise, secure_noise
from variseq.privacy.release import (
    LEAST_POPULARITY,
    POPULARITY_SHARE,
    PrivacyOptions,
    Release,
    private_ledger,
    release,
)
from variseq.sequences.histories import Histories

LEAST_CANARIES, MOST_CANARIES = 8, 200_000
USUAL_CANARIES = 1_000
WITH_NOISE, WITHOUT_NOISE = "with noise", "without noise"
"""The names of an attack and of its positive control."""
MOST_ITEMS = 2_000
"""Canaries have the most popular items, at most so many: 2 million pairs to draw from."""
MARGIN = 2.0
"""Items of canaries are so many times as popular as an item must be for its pairs to be counted."""
_OF_ITEM = math.sqrt(0.5)
"""What a canary with two items adds to the popularity of each. To their pair it adds 1."""


@dataclass(frozen=True, eq=False)
class PairCanaries:
    """Made-up people with two events each. No two of them have the same two items.

    Such a person adds the largest norm that is allowed, all of it in one cell of the pairs: nobody is easier to find.

    Args:
        first: The item of the first event.
        second: That of the second event, a larger number.
        included: Who is put into the log.
    """

    first: Int[np.ndarray, " canary"]
    second: Int[np.ndarray, " canary"]
    included: Bool[np.ndarray, " canary"]

    @classmethod
    def draw(cls, items: Int[np.ndarray, " item"], number: int, seed: int) -> PairCanaries:
        """So many of the pairs of these items, and the coin flips."""
        random = np.random.default_rng(seed)
        first, second = (np.sort(items)[index] for index in np.triu_indices(len(items), 1))
        drawn = random.permutation(len(first))[:number]
        return cls(first[drawn], second[drawn], random.random(len(drawn)) < 0.5)

    def histories(self) -> Histories:
        """The histories of those who are put into the log."""
        return Histories.of_items(np.stack([self.first, self.second], axis=1)[self.included].tolist())

    def attack(self, released: Release, known: Histories, name: str) -> Attack:
        """Score the canaries by their log-likelihood ratio, approximately, given a release.

        The attacker has the rest of the log, and does not know the coin flips: what the others in the log add is
        subtracted, and of other canaries half of what they would add.

        Args:
            released: The release of the log with the canaries.
            known: The bounded log without them.
            name: Of the attack.
        """
        num_items, (of_popularity, of_pairs) = len(released.popularity), released.noise
        canaries = np.bincount(np.concatenate([self.first, self.second]), minlength=num_items)
        excess = released.popularity - popularity_sums(known, num_items) * GRID - canaries * (_OF_ITEM / 2)
        variance = of_popularity**2 + np.maximum(canaries - 1, 0) * (_OF_ITEM / 2) ** 2
        of_items = _OF_ITEM * excess / variance
        position = np.full(num_items, -1)
        position[released.chosen] = np.arange(len(released.chosen))
        first, second = position[self.first], position[self.second]
        is_counted = (first >= 0) & (second >= 0)
        cell = pair_index(first[is_counted], second[is_counted], len(released.chosen), released.kind)
        others = pair_sums(known, released.chosen, num_items, released.kind)[cell] * GRID
        score = of_items[self.first] + of_items[self.second]
        score[is_counted] += (released.pairs[cell] - others - 0.5) / of_pairs**2
        return Attack(name, score, self.included)


@dataclass(frozen=True, eq=False)
class Finding:
    """What an attack on a release found.

    Args:
        attack: The scores of the canaries.
        num_guesses: How many canaries were guessed to be in or out.
        num_correct: How many guesses were correct.
        epsilon_lower_bound: ε is above this with 95 % confidence.
    """

    attack: Attack
    num_guesses: int
    num_correct: int
    epsilon_lower_bound: float

    @classmethod
    def of(cls, attack: Attack, num_guesses: int, delta: float) -> Finding:
        """Guess those whose scores are farthest from 0: in the log above it, and not in it below."""
        guessed = np.argsort(-np.abs(attack.score), kind="stable")[:num_guesses]
        num_correct = int(((attack.score[guessed] > 0) == attack.included[guessed]).sum())
        bound = epsilon_lower_bound(len(attack.score), num_guesses, num_correct, delta)
        return cls(attack, num_guesses, num_correct, bound)

    def to_json(self) -> dict[str, Any]:
        """The numbers of the finding and of its attack."""
        guesses = {"num_guesses": self.num_guesses, "num_correct": self.num_correct}
        return self.attack.to_json() | guesses | {"epsilon_lower_bound": self.epsilon_lower_bound}


@dataclass(frozen=True, eq=False)
class OneRunAudit:
    """The audit of what a private fit releases, and its positive control: the same without noise.

    Args:
        ledger: The mechanisms that were attacked, and the δ of the claim.
        best_attack: What the ledger allows an attack to find.
        found: What was found with noise.
        control: What was found without noise.
    """

    ledger: Ledger
    best_attack: BestAttack
    found: Finding
    control: Finding

    @cached_property
    def epsilon(self) -> float:
        """What the ledger claims."""
        return self.ledger.epsilon()

    @cached_property
    def largest_auc(self) -> float:
        """The AUC of the best attack that the claim allows."""
        return self.best_attack.auc()

    @property
    def holds(self) -> bool:
        """Whether the claim explains the attack: neither the bound on ε nor the AUC is above it.

        The AUC finds noise that is a little too weak, which the bound on ε does not. It refutes the claim where the
        best attack that is allowed would have it in less than 1 of 1,000 audits. That takes canaries as independent.
        They are nearly so: no two of them share a pair of items, or a number of the network. The largest variance is
        that of Birnbaum and Klose 1957.
        """
        included = self.found.attack.included
        variance = self.largest_auc * (1 - self.largest_auc) / min(included.sum(), (~included).sum())
        most = self.largest_auc + NormalDist().inv_cdf(0.999) * math.sqrt(variance)
        return self.found.epsilon_lower_bound <= self.epsilon and self.found.attack.auc()[0] <= most

    @property
    def control_breaks(self) -> bool:
        """Whether the audit found that the release without noise is not what it claims."""
        return self.control.epsilon_lower_bound > self.epsilon

    def to_json(self) -> dict[str, Any]:
        """The claim and both findings."""
        attacked = [one.released for one in self.ledger.mechanisms]
        claim = {"attacked": attacked, "epsilon": self.epsilon, "delta": self.ledger.delta}
        claim |= {"largest_auc": self.largest_auc}
        return claim | {"with_noise": self.found.to_json(), "without_noise": self.control.to_json()}


def audit_release(
    histories: Histories,
    num_items: int,
    options: PrivacyOptions,
    num_canaries: int | None = None,
    seed: int = 0,
    noise: Noise = secure_noise,
) -> OneRunAudit:
    """Attack the private release of a log with canaries, with noise and without.

    Args:
        histories: The log.
        num_items: Size of the public catalog.
        options: The budget. Without a δ it is the default for the log with half of the canaries, who are users of it.
        num_canaries: None: so many that the control can exceed ε, from `USUAL_CANARIES` to `MOST_CANARIES`.
            A log with fewer pairs of popular items gets fewer.
        seed: Of canaries and coin flips.
        noise: The noise that is audited.

    Raises:
        InputError: For a log without two items that are popular enough, for too few canaries, and for a budget that
            is not possible.
    """
    bounded = histories.latest(options.max_user_events)
    popularity = popularity_sums(bounded, num_items) * GRID
    wanted = _enough_canaries(options, len(histories)) if num_canaries is None else num_canaries
    delta = delta_with(wanted, MOST_CANARIES, len(histories), options)
    # Choices of weights are not attacked, and a network is in `audit_steps`.
    options = replace(options, delta=delta, content=0.0, network="no")
    noise_of_popularity = noise_multipliers(options.epsilon, delta, (POPULARITY_SHARE, 1 - POPULARITY_SHARE))[0]
    popular = np.argsort(-popularity, kind="stable")[:MOST_ITEMS]
    popular = popular[popularity[popular] >= MARGIN * LEAST_POPULARITY * noise_of_popularity]
    if len(popular) * (len(popular) - 1) // 2 < LEAST_CANARIES:
        raise InputError(
            f"At ε = {options.epsilon:g} only {len(popular)} items of the log are so popular that pairs of them are "
            "surely counted, which gives too few canaries. Give a longer log or a larger ε."
        )
    canaries = PairCanaries.draw(popular, wanted, seed)
    joined = histories.joined(canaries.histories())
    best = BestAttack.of(private_ledger(options, len(joined)))

    def finding(noise: Noise, name: str, num_guesses: int) -> tuple[Release, Finding]:
        released = release(joined, num_items, options, noise)
        return released, Finding.of(canaries.attack(released, bounded, name), num_guesses, delta)

    number = len(canaries.included)
    released, found = finding(noise, WITH_NOISE, promising_guesses(number, best, delta))
    _, control = finding(no_noise, WITHOUT_NOISE, number)
    return OneRunAudit(released.ledger, best, found, control)


def delta_with(num_canaries: int, most_canaries: int, num_users: int, options: PrivacyOptions) -> float:
    """The δ of an audited log, in which half of the canaries are users. Raises InputError for a number not allowed."""
    if not LEAST_CANARIES <= num_canaries <= most_canaries:
        raise InputError(f"{num_canaries:,} canaries are not possible. Give {LEAST_CANARIES} to {most_canaries:,}.")
    return default_delta(num_users + num_canaries // 2) if options.delta is None else options.delta


def epsilon_lower_bound(num_canaries: int, num_guesses: int, num_correct: int, delta: float) -> float:
    """The ε below which so many correct guesses have a probability under 5 %; 0 where there is none.

    Args:
        num_canaries: Each in the log with probability 1/2, independently.
        num_guesses: How many were guessed; the number is fixed beforehand.
        num_correct: How many guesses are correct.
        delta: The δ of the claim.
    """
    low, high = 0.0, 1.0
    if p_value(num_canaries, num_guesses, num_correct, low, delta) >= 1 - CONFIDENCE:
        return 0.0
    while p_value(num_canaries, num_guesses, num_correct, high, delta) < 1 - CONFIDENCE:
        low, high = high, 2 * high
    while high - low > 1e-4:
        middle = (low + high) / 2
        is_refuted = p_value(num_canaries, num_guesses, num_correct, middle, delta) < 1 - CONFIDENCE
        low, high = (middle, high) if is_refuted else (low, middle)
    return low


def p_value(num_canaries: int, num_guesses: int, num_correct: int, epsilon: float, delta: float) -> float:
    """The largest probability of so many correct guesses under (ε, δ). Source: theorem 5.2 of the paper."""
    from scipy.stats import binom

    correct = 1 / (1 + math.exp(-epsilon))
    exceeds = float(binom.sf(num_correct - 1, num_guesses, correct))
    just_below = np.cumsum(binom.pmf(np.arange(num_correct - 1, -1, -1), num_guesses, correct))
    largest = float((just_below / np.arange(1, num_correct + 1)).max(initial=0.0))
    return min(1.0, exceeds + 2 * num_canaries * delta * largest)


def _enough_canaries(options: PrivacyOptions, num_users: int) -> int:
    """The least number from `USUAL_CANARIES` on, up to 5 %, that refutes ε when all guesses are correct."""
    number = USUAL_CANARIES
    while number < MOST_CANARIES:
        delta = default_delta(num_users + number // 2) if options.delta is None else options.delta
        if p_value(number, number, number, 1.01 * options.epsilon, delta) < 1 - CONFIDENCE:
            break
        number += number // 20
    return min(number, MOST_CANARIES)


def promising_guesses(num_canaries: int, best_attack: BestAttack, delta: float) -> int:
    """How many guesses promise the largest bound, if the attack were about the best. It looks at no score.

    The best attack is taken as one that separates N(0, 1) and N(μ, 1), with the μ of its AUC.
    """
    normal, best, chosen = NormalDist(), -1.0, num_canaries
    mu = math.sqrt(2) * normal.inv_cdf(best_attack.auc())
    for threshold in np.linspace(0, mu / 2 + 3, 16):
        correct, wrong = normal.cdf(mu / 2 - threshold), normal.cdf(-mu / 2 - threshold)
        guesses = round(num_canaries * (correct + wrong))
        if not guesses:
            break
        bound = epsilon_lower_bound(num_canaries, guesses, int(guesses * correct / (correct + wrong)), delta)
        if bound > best:
            best, chosen = bound, guesses
    return chosen
