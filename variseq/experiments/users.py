"""One row for each user of an experiment, from exposures: arm, rewards, and what was known before the first list."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from variseq.errors import InputError
from variseq.experiments.experiment import Experiment
from variseq.exposures.history import HistoryDigest
from variseq.exposures.rewards import RewardOptions
from variseq.exposures.table import Exposures

REWARD = "mean reward a user within the follow-up"
RETURN = "share of users who came back after their first list"
DWELL = "mean minutes that a user stayed after the first list"
NUM_EVENTS, UNCERTAINTY = "number of events", "uncertainty of the model"


@dataclass(frozen=True, eq=False)
class ExperimentUsers:
    """The users of an experiment, in the order of their first lists.

    Args:
        arm: Index of the arm of each user.
        complete_at: When a user's follow-up and the time to join events are over, in UTC microseconds.
        reward: What a user did within the follow-up is worth; where whole lists have rewards, that of the first list.
        num_exposures: Lists within the follow-up.
        covariate: What was known of a user before the first list, with a column for each name.
        names: Of the covariates.
        metric: What the mean of the rewards is.
        begin: Time of the first list of all.
        end: Time up to which all is known: that of the last list of all, or when its reward is known.
    """

    arm: Int[np.ndarray, " user"]
    complete_at: Int[np.ndarray, " user"]
    reward: Float[np.ndarray, " user"]
    num_exposures: Int[np.ndarray, " user"]
    covariate: Float[np.ndarray, "user covariate"]
    names: tuple[str, ...]
    metric: str
    begin: int
    end: int

    def __len__(self) -> int:
        return len(self.arm)

    def complete(self, time: int) -> Bool[np.ndarray, " user"]:
        """Whose rewards are all known at a time. A user counts from then on, and with the same reward ever after."""
        return self.complete_at <= time


def users_of(
    exposures: Exposures, experiment: Experiment, options: RewardOptions
) -> tuple[ExperimentUsers, Counter[str]]:
    """The users of an experiment, and how many lists and users are left out, by reason.

    Args:
        exposures: In the order of their times, with rewards.
        experiment: The one that made the lists.
        options: What the rewards are.

    Returns:
        The users and the counts.

    Raises:
        InputError: The exposures have no list of the experiment.
    """
    index = {arm.name: number for number, arm in enumerate(experiment.arms)}
    contexts, left_out = exposures.context or [], Counter[str]()
    lists: dict[str, list[int]] = {}
    arms: dict[str, set[int]] = {}
    for number, (user, context) in enumerate(zip(exposures.user, contexts, strict=False)):
        if context.get("experiment") != experiment.name or user is None:
            left_out["lists outside the experiment"] += 1
        elif (arm := index.get(context["arm"])) is None:
            left_out["lists of an arm that the file does not have"] += 1
        else:
            lists.setdefault(user, []).append(number)
            arms.setdefault(user, set()).add(arm)
    if not lists:
        raise InputError(
            f"There is no list of the experiment {experiment.name!r}. Give the exposures of a server that was started "
            "with --experiment and this file."
        )
    left_out["users in two arms"] = sum(len(one) > 1 for one in arms.values())
    users = [user for user, of_user in arms.items() if len(of_user) == 1]
    first = np.array([lists[user][0] for user in users], dtype=np.int64)
    row = np.repeat(np.arange(len(users)), [len(lists[user]) for user in users])
    chosen = np.array([one for user in users for one in lists[user]], dtype=np.int64)
    entry = exposures.time[first]
    is_counted = exposures.time[chosen] <= entry[row] + experiment.follow_up_microseconds
    left_out["lists after the follow-up"] = int((~is_counted).sum())
    row, chosen = row[is_counted], chosen[is_counted]
    follow_up, metric, later = experiment.follow_up_microseconds + options.window_microseconds, REWARD, 0
    if (within := options.list_microseconds) is not None:
        # Only lists whose rewards are known are there.
        follow_up, metric, later = within, RETURN if options.dwell_within is None else DWELL, within
        is_first = np.isin(chosen, first)
        row, chosen = row[is_first], chosen[is_first]
    of_list = np.bincount(exposures.row_exposure, weights=exposures.reward, minlength=exposures.num_exposures)
    names, covariate = _covariates([contexts[one] for one in first.tolist()], experiment)
    every = [one for of_user in lists.values() for one in of_user]
    found = ExperimentUsers(
        arm=np.array([next(iter(arms[user])) for user in users], dtype=np.int64),
        complete_at=entry + follow_up,
        reward=np.bincount(row, weights=of_list[chosen], minlength=len(users)),
        num_exposures=np.bincount(row, minlength=len(users)),
        covariate=covariate,
        names=names,
        metric=metric,
        begin=int(exposures.time[min(every)]),
        end=int(exposures.time[max(every)]) + later,
    )
    return found, left_out


def _covariates(
    contexts: list[dict[str, object]], experiment: Experiment
) -> tuple[tuple[str, ...], Float[np.ndarray, "user covariate"]]:
    """The logarithm of 1 + events before the first list; and the entropy of the model's forecast, where it is recorded.

    Both come from the history before the list. Probabilities of the listed items would not do: the arm chose them. For
    the same reason the entropy is left out where arms differ in `exclude_seen`, which changes the forecast.
    """
    columns = {NUM_EVENTS: [np.log1p(_num_events(one.get("history"))) for one in contexts]}
    if len({arm.exclude_seen for arm in experiment.arms}) == 1:
        columns[UNCERTAINTY] = [_number(one, "uncertainty") for one in contexts]
    known = {name: column for name, column in columns.items() if np.isfinite(column).all()}
    return tuple(known), np.array(list(known.values()), dtype=np.float64).reshape(len(known), len(contexts)).T


def _num_events(history: object) -> float:
    """How many events a history has; NaN where a table has none."""
    return float(history.num_events) if isinstance(history, HistoryDigest) else float("nan")


def _number(context: dict[str, object], name: str) -> float:
    """A number of a record; NaN where it has none."""
    found = context.get(name)
    return float(found) if isinstance(found, int | float) else float("nan")
