"""An audit of the private steps of a network in one run: made-up people in the log, found by what each step releases.

Source: Steinke, Nasr and Jagielski 2023, "Privacy auditing with one (1) training run", in its white-box form.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from variseq.privacy.accounting import NETWORK_STEPS, Ledger, public_users
from variseq.privacy.attacks import Attack
from variseq.privacy.best_attack import BestAttack
from variseq.privacy.noise import GRID, Noise, no_noise, secure_noise
from variseq.privacy.one_run_audit import (
    USUAL_CANARIES,
    WITH_NOISE,
    WITHOUT_NOISE,
    Finding,
    OneRunAudit,
    delta_with,
    epsilon_lower_bound,
    promising_guesses,
)
from variseq.privacy.private_network import private_training
from variseq.privacy.private_steps import PrivateTraining
from variseq.privacy.release import NoisySums, PrivacyOptions, pair_counts, private_ledger
from variseq.privacy.user_gradients import UserGradients
from variseq.sequences.batches import Windows
from variseq.sequences.histories import Histories

MOST_CANARIES = 20_000
"""About as many as the network has numbers, so that each canary has one of its own."""
NORM = 10.0
"""The norm of a canary's gradient before it is clipped, in units of the largest one."""
MOST_OTHERS = 100
"""So many people of the log are in the audited steps. More change the time alone, as what they add is subtracted."""
Report = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class StepCanaries:
    """Made-up people whose gradients are fixed directions. No two of them share a number of the network.

    The numbers are divided among canaries at random, so each has some of most parameters. Such a person adds the
    largest norm that is allowed to each step they are in, and no other canary hides it: nobody is easier to find.

    Args:
        owner: Of each number of the network, its canary.
        direction: What the owner's gradient has there, ± 1 / √(numbers of the canary).
        included: Who is put into the log.
    """

    owner: Int[np.ndarray, " parameter"]
    direction: Float[np.ndarray, " parameter"]
    included: Bool[np.ndarray, " canary"]

    @classmethod
    def draw(cls, size: int, number: int, seed: int) -> StepCanaries:
        """The directions in a network of so many numbers, and the coin flips."""
        random = np.random.default_rng(seed)
        owner = random.permutation(np.arange(size) % number)
        sign = np.where(random.random(size) < 0.5, 1.0, -1.0)
        return cls(owner, sign / np.sqrt(np.bincount(owner, minlength=number))[owner], random.random(number) < 0.5)

    def histories(self) -> Histories:
        """One event for each canary that is put into the log. Their gradients do not depend on it."""
        return Histories.of_items([[0]] * int(self.included.sum()))

    def amounts(self, excess: Float[np.ndarray, " parameter"]) -> Float[np.ndarray, " canary"]:
        """How much of each direction is in a step: 1 where the canary is in it, 0 where not, and noise."""
        return np.bincount(self.owner, weights=excess * self.direction, minlength=len(self.included))

    def attack(
        self, training: PrivateTraining, others: Histories, noise: Noise, generator: np.random.Generator, name: str
    ) -> Attack:
        """Take all steps of the training, and score each canary by the log-likelihood ratio of what they release.

        The attacker sees each noisy sum and the parameters before it. They know who else of the log is in the step,
        and subtract what these people add. They do not know the coin flips, nor which canaries are in the step.

        Args:
            training: Before its first step.
            others: The rest of the log, bounded.
            noise: The noise that is audited.
            generator: Samples the users of steps.
            name: Of the attack.
        """
        joined, rows = others.joined(self.histories()), np.flatnonzero(self.included)
        score = np.zeros(len(self.included))
        while training.step < training.schedule.num_steps:
            _, windows = training.sampled(joined, generator)
            # Canaries have one event each, after those of all others.
            canary = windows.start - others.num_events

            def changed(
                members: Int[np.ndarray, " member"], found: UserGradients, canary: np.ndarray = canary
            ) -> UserGradients:
                of_canaries = np.flatnonzero(canary[members] >= 0)
                return self._replaced(found, of_canaries, rows[canary[members][of_canaries]], training)

            total = training.sum_over((joined, windows), changed)
            total = total + noise(training.noise_multiplier, len(total))
            rest = np.flatnonzero(canary < 0)
            known = training.sum_over((joined, Windows(windows.start[rest], windows.first[rest], windows.last[rest])))
            excess = (total - known) * GRID
            score += log_likelihood_ratios(self.amounts(excess), excess.std(), training.schedule.sampling_rate)
            training.move(total)
        return Attack(name, score, self.included)

    def _replaced(
        self,
        found: UserGradients,
        users: Int[np.ndarray, " canary"],
        canaries: Int[np.ndarray, " canary"],
        training: PrivateTraining,
    ) -> UserGradients:
        """The same gradients, where some users are canaries."""
        norm, first, of_users = NORM * training.schedule.max_norm, 0, {}
        for name, one in found.of_users.items():
            last = first + one[0].numel()
            own = np.where(self.owner[first:last] == canaries[:, None], norm * self.direction[first:last], 0.0)
            of_canaries = torch.from_numpy(own).to(one.dtype).view(-1, *one.shape[1:])
            of_users[name] = one.index_copy(0, torch.from_numpy(users), of_canaries)
            first = last
        return replace(found, of_users=of_users)


def log_likelihood_ratios(
    amount: Float[np.ndarray, " canary"], noise: float, sampling_rate: float
) -> Float[np.ndarray, " canary"]:
    """log p(amount | canary in the log) − log p(amount | not in it).

    A canary in the log is in the step with probability q, and then adds 1 to the noise.

    Args:
        amount: See `StepCanaries.amounts`.
        noise: Standard deviation of the noise. It is taken from the step itself, so that weaker noise is attacked as
            well as possible, too.
        sampling_rate: q.
    """
    ratio = (2 * amount - 1) / (2 * max(noise, 1e-3) ** 2)
    found: Float[np.ndarray, " canary"] = np.logaddexp(math.log1p(-sampling_rate), math.log(sampling_rate) + ratio)
    return found


def audit_steps(
    histories: Histories,
    num_items: int,
    options: PrivacyOptions,
    num_canaries: int | None = None,
    seed: int = 0,
    noise: Noise = secure_noise,
    report: Report = lambda name: None,
) -> OneRunAudit:
    """Attack the steps of the network of a private fit with canaries, with noise and without.

    The claim is what the ledger says of the steps alone. The network starts from a release of the log without canaries.

    Args:
        histories: The log.
        num_items: Size of the public catalog.
        options: The budget of the whole fit. Without a δ it is the default for the log with half of the canaries.
        num_canaries: None: `USUAL_CANARIES`.
        seed: Of canaries, coin flips and who is in a step.
        noise: The noise that is audited.
        report: Gets the name of each attack when it begins.

    Raises:
        InputError: For a number of canaries and for a budget that are not possible.
    """
    wanted = USUAL_CANARIES if num_canaries is None else num_canaries
    delta, num_users = delta_with(wanted, MOST_CANARIES, len(histories), options), len(histories) + wanted // 2
    options = replace(options, delta=delta, content=0.0, network="yes")
    ledger, schedule = private_ledger(options, num_users), options.schedule(public_users(num_users))
    assert schedule is not None
    steps = next(one for one in ledger.mechanisms if one.released == NETWORK_STEPS)
    of_steps = Ledger((steps,), delta)
    released = NoisySums(histories, num_items, options, ledger, noise=noise).release()
    counts = pair_counts(released)
    size = private_training(counts, schedule, steps.noise_multiplier).size
    canaries = StepCanaries.draw(size, wanted, seed)
    random = np.random.default_rng([seed, 1])
    known = random.permutation(len(histories))[:MOST_OTHERS]
    others = histories.rows(known).latest(options.max_user_events)

    def finding(noise: Noise, name: str, num_guesses: int) -> Finding:
        report(name)
        training = private_training(counts, schedule, steps.noise_multiplier)
        return Finding.of(canaries.attack(training, others, noise, random, name), num_guesses, delta)

    best = BestAttack.of(of_steps)
    found = finding(noise, WITH_NOISE, promising_guesses(wanted, best, delta))
    is_in_a_step = 1 - (1 - schedule.sampling_rate) ** schedule.num_steps
    control = finding(no_noise, WITHOUT_NOISE, _guesses_without_noise(wanted, is_in_a_step, delta))
    return OneRunAudit(of_steps, best, found, control)


def _guesses_without_noise(num_canaries: int, is_in_a_step: float, delta: float) -> int:
    """How many guesses promise the largest bound where each canary of a step is found; others may be in the log, too.

    Either all are guessed, or surely found ones: their mean number less three standard deviations.
    """
    share = is_in_a_step / 2
    found = int(num_canaries * share - 3 * math.sqrt(num_canaries * share * (1 - share)))
    of_all = epsilon_lower_bound(num_canaries, num_canaries, int(num_canaries * (0.5 + share)), delta)
    of_found = epsilon_lower_bound(num_canaries, found, found, delta) if found > 0 else 0.0
    return num_canaries if of_all >= of_found else found
