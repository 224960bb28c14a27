"""How often experiments err that are looked at each day, and when they find a difference that is there.

    python -m benchmarks.experiments --runs 1000

People arrive over 60 days, and each has a rate of purchases of their own (log-normal). Every day ends with a look at
two arms. In "no difference" both arms are the same, so each finding is an error. "Planned difference" is 10 % against
12 %, with as many users as `variseq experiment size` states for looks at any time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import numpy as np

from measurement.records import Record, append_records, command_parser, exit_code, record_of
from variseq.experiments.analysis import difference
from variseq.experiments.intervals import Difference, always_valid_reach, fixed_reach, sample_size

DAYS, NUM_USERS = 60, 12_000
RATE, EFFECT = 0.1, 0.2
SIZE = sample_size(RATE, EFFECT)
FOLLOW_UP, SO_FAR, PLANNED = (
    "no difference, rewards within a day of the first list",
    "no difference, rewards so far",
    "planned difference",
)


def rewards(case: str, random: np.random.Generator, is_treated: np.ndarray, day: np.ndarray) -> Iterator[np.ndarray]:
    """At the end of each day, what each user has earned who has come by then."""
    if case == PLANNED:
        once = (random.random(len(day)) < RATE * (1 + EFFECT * is_treated)).astype(float)
    else:
        rate = 0.1 * random.lognormal(0, 1.2, len(day))
        once = random.poisson(rate).astype(float)
    total = np.zeros(len(day))
    for today in range(DAYS):
        if case == SO_FAR:
            total += random.poisson(rate * (day <= today))
        yield (total if case == SO_FAR else once)[day <= today]


def looks(case: str, seed: int) -> list[Difference]:
    """The difference as it is at the end of each day, where users are enough."""
    random = np.random.default_rng(seed)
    num_users = 2 * SIZE.always_valid if case == PLANNED else NUM_USERS
    is_treated, day = random.random(num_users) < 0.5, np.sort(random.integers(DAYS, size=num_users))
    found = []
    for reward in rewards(case, random, is_treated, day):
        one = difference(reward, is_treated[: len(reward)], np.zeros((len(reward), 0)))
        found += [] if one is None else [one]
    return found


def record_of_case(case: str, runs: int) -> Record:
    """Shares of runs in which a difference was found: by looks each day, and by one look at the end."""
    planned = 2 * SIZE.always_valid if case == PLANNED else NUM_USERS
    rows, users = [], []
    for seed in range(runs):
        found = looks(case, seed)
        z = np.array([abs(one.value) / one.standard_error for one in found])
        is_found = z > [always_valid_reach(float(one.num_users), float(planned)) for one in found]
        rows.append((is_found.any(), (z > fixed_reach()).any(), z[-1] > fixed_reach()))
        users.append(found[int(is_found.argmax())].num_users if is_found.any() else planned)
        if not (seed + 1) % 100:
            print(f"{case}: {seed + 1} runs", file=sys.stderr, flush=True)
    always, fixed, last = np.mean(rows, axis=0).tolist()
    metrics = {"always_valid": always, "fixed_each_day": fixed, "fixed_at_the_end": last}
    if case == PLANNED:
        metrics |= {"mean_users": float(np.mean(users)), "users_of_one_look": 2 * SIZE.fixed, "planned_users": planned}
    settings = {"runs": runs, "days": DAYS}
    return record_of("experiments", {"case": case}, metrics, settings=settings, data={"name": "simulated"}, threads=1)


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "experiments")
    parser.add_argument("--runs", type=int, default=1000)
    given = parser.parse_args(words)

    def run() -> None:
        for case in (FOLLOW_UP, SO_FAR, PLANNED):
            one = record_of_case(case, given.runs)
            append_records(given.out, [one])
            print(one["case"], one["metrics"], flush=True)

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
