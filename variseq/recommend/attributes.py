"""Counts what groups of people take first, and fits how much a forecast should follow them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from variseq.distinct import distinct
from variseq.evaluation.splits import Part, Queries
from variseq.events.items import UserColumn
from variseq.ranking.attributes import (
    EVENTS_COUNTED,
    MAX_LENGTH,
    MIN_PEOPLE,
    Attribute,
    UserAttributes,
    left_out,
    shrunk_log_ratios,
    summed,
)
from variseq.ranking.mixture import MixtureModel
from variseq.recommend.network_model import ModelRecommender
from variseq.sequences.histories import Histories, ragged_index

PRIOR_EVENTS = (30.0, 100.0, 300.0, 1000.0, 3000.0)
STRENGTHS, FADES = (0.25, 0.5, 0.75, 1.0), (0.25, 0.5, 0.75, 1.0)
"""What is tried for the fields of `UserAttributes` and `Attribute`."""
NUM_FOLDS = 5
MOST_PEOPLE, LEAST_PEOPLE, CELLS = 4096, 256, 1 << 22
"""At most so many people, and at most `CELLS` pairs of a person and an item but for the least number of people."""
MIN_QUERIES = 20
"""With fewer validation queries of short histories, attributes change the forecast of empty ones alone."""


def fit_attributes(
    columns: Mapping[str, UserColumn], model: MixtureModel, valid: Part, known: Histories
) -> UserAttributes | None:
    """The attributes of people as groups, counted and with their strengths; None where no column has two groups.

    Strengths and m are those under which the first events of people are most likely. The counts for a person leave out
    the person's own fifth of all people. So a split in which nobody in validation is cold has strengths too. An
    attribute whose likelihood rises by less than one standard error has the strength 0. How fast the effect fades is
    fitted to validation events after one to three others.

    Args:
        columns: The values of each user of the log by the name of a column.
        model: A calibrated model that knows no attributes; it forecasts the first events.
        valid: The validation part.
        known: The events that the final model has learned from.
    """
    people = np.flatnonzero(known.lengths)
    if known.is_target is not None:
        people = people[known.is_target[known.offsets[people]]]
    found = [
        Attribute.fit(name, [values[person] for person in people.tolist()])
        for name, values in columns.items()
        if left_out(values) is None
    ]
    attributes = tuple(one for one in found if one is not None)
    if not attributes:
        return None
    groups = UserAttributes(attributes, np.zeros(0, int), np.zeros((0, 0), int)).of_columns(columns)
    counter = _Counter(known, groups, [len(one.groups) for one in attributes], model.num_items)
    fitted = UserAttributes(attributes, counter.item, counter.counts(None).astype(np.int32))
    if not len(counter.item):
        return fitted
    fitted = _with_strengths(fitted, counter, model, people)
    return _with_fade(fitted, counter, model, valid) if fitted.used else fitted


class _Counter:
    """Counts the items of people's first events by group; of all people, or without a fold of them."""

    def __init__(
        self, known: Histories, groups: Int[np.ndarray, "user attribute"], num_groups: Sequence[int], num_items: int
    ) -> None:
        self.known, self.groups = known, groups
        self.fold = np.random.default_rng(0).permutation(len(known)) % NUM_FOLDS
        lengths = np.minimum(known.lengths, EVENTS_COUNTED)
        index = ragged_index(known.offsets[:-1], lengths)
        person = np.repeat(np.arange(len(known)), lengths)
        if known.is_target is not None:
            person, index = person[known.is_target[index]], index[known.is_target[index]]
        pair = distinct(person * num_items + known.item[index])
        person, item = np.divmod(pair, num_items)
        self.item = np.flatnonzero(np.bincount(item, minlength=num_items) >= MIN_PEOPLE)
        is_counted = np.isin(item, self.item)
        self.person, self.column = person[is_counted], np.searchsorted(self.item, item[is_counted])
        self.begins = np.cumsum([0, *num_groups]).tolist()

    def counts(self, fold: int | None) -> Int[np.ndarray, "group item"]:
        """How many people of each group took each item, without the people of a fold."""
        chosen = slice(None) if fold is None else self.fold[self.person] != fold
        person, column, width = self.person[chosen], self.column[chosen], len(self.item)
        total = np.zeros(self.begins[-1] * width, dtype=np.int64)
        for begin, group in zip(self.begins[:-1], self.groups.T, strict=True):
            of_group = group[person]
            cell = ((begin + of_group) * width + column)[of_group >= 0]
            total += np.bincount(cell, minlength=len(total))
        return total.reshape(-1, width)

    def log_ratios(self, users: Int[np.ndarray, " row"], prior_events: float) -> list[Float[np.ndarray, "row item"]]:
        """For each attribute the log ratios of some people, by counts without their folds."""
        found = [np.zeros((len(users), len(self.item)), dtype=np.float32) for _ in self.begins[1:]]
        for fold in range(NUM_FOLDS):
            rows, counts = np.flatnonzero(self.fold[users] == fold), self.counts(fold)
            table = shrunk_log_ratios(counts, counts[: self.begins[1]].sum(axis=0), prior_events)
            for number, of_attribute in enumerate(found):
                group = self.groups[users[rows], number : number + 1]
                of_attribute[rows] = summed(table, self.begins[number : number + 2], group)
        return found


class _Targets:
    """Forecasts of some targets, and how likely these are with log ratios of the items that are counted."""

    def __init__(
        self, p: Float[np.ndarray, "#row item"], item: Int[np.ndarray, " counted"], target: Int[np.ndarray, " row"]
    ) -> None:
        self.p = p[:, item].astype(np.float32)
        column = np.searchsorted(item, target).clip(max=len(item) - 1)
        self.row = np.flatnonzero(item[column] == target)
        self.column = column[self.row]

    def gains(self, log_ratio: Float[np.ndarray, "row item"]) -> Float[np.ndarray, " row"]:
        """By how many nats log p of each target rises."""
        gain = -np.log1p(((np.exp(log_ratio) - 1) * self.p).sum(axis=1, dtype=np.float64))
        gain[self.row] += log_ratio[self.row, self.column]
        return gain


def _is_gain(gains: Float[np.ndarray, " row"]) -> bool:
    """Whether a mean is above 0 by more than one standard error."""
    return bool(gains.mean() > gains.std() / np.sqrt(len(gains)))


def _with_strengths(
    fitted: UserAttributes, counter: _Counter, model: MixtureModel, people: Int[np.ndarray, " person"]
) -> UserAttributes:
    wanted = int(np.clip(CELLS // len(counter.item), LEAST_PEOPLE, MOST_PEOPLE))
    users = people[np.unique(np.linspace(0, len(people) - 1, min(wanted, len(people))).astype(np.int64))]
    first = counter.known.item[counter.known.offsets[users]].astype(np.int64)
    empty = np.zeros(1, dtype=np.int64)
    p = np.exp(ModelRecommender(model).scores(counter.known.select(empty, empty)).numpy())
    targets = _Targets(p, counter.item, first)
    best, best_gain = fitted, np.zeros(len(users))
    for prior_events in PRIOR_EVENTS:
        of_attributes = counter.log_ratios(users, prior_events)
        strengths, total, gain = [0.0] * len(of_attributes), np.zeros_like(of_attributes[0]), np.zeros(len(users))
        for number in 2 * list(range(len(of_attributes))):
            others = total - strengths[number] * of_attributes[number]
            without = targets.gains(others)
            strengths[number], total, gain = 0.0, others, without
            for strength in STRENGTHS:
                tried = others + strength * of_attributes[number]
                found = targets.gains(tried)
                if _is_gain(found - without) and found.mean() > gain.mean():
                    strengths[number], total, gain = strength, tried, found
        if gain.mean() > best_gain.mean():
            attributes = [
                replace(one, strength=strength) for one, strength in zip(fitted.attributes, strengths, strict=True)
            ]
            best, best_gain = replace(fitted, attributes=tuple(attributes), prior_events=prior_events), gain
    return best


def _with_fade(fitted: UserAttributes, counter: _Counter, model: MixtureModel, valid: Part) -> UserAttributes:
    queries = valid.queries("all")
    length = valid.history_lengths(queries)
    chosen = np.flatnonzero((length > 0) & (length <= MAX_LENGTH))
    if len(chosen) < MIN_QUERIES:
        return fitted
    wanted = int(np.clip(CELLS // model.num_items, LEAST_PEOPLE, MOST_PEOPLE))
    chosen = chosen[np.unique(np.linspace(0, len(chosen) - 1, min(wanted, len(chosen))).astype(np.int64))]
    queries, length = Queries(queries.user[chosen], queries.position[chosen]), length[chosen]
    p = np.exp(ModelRecommender(model).scores(valid.histories_before(queries)).numpy())
    targets = _Targets(p, counter.item, valid.histories.item[queries.position].astype(np.int64))
    of_attributes = counter.log_ratios(queries.user, fitted.prior_events)
    log_ratio = sum(
        one.strength * of_attribute for one, of_attribute in zip(fitted.attributes, of_attributes, strict=True)
    )
    gains = {fade: targets.gains(np.asarray(log_ratio * (fade**length)[:, None])) for fade in FADES}
    fade = max(gains, key=lambda one: gains[one].mean())
    return replace(fitted, fade=fade) if _is_gain(gains[fade]) else fitted
