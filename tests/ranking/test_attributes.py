"""Attributes of people: groups that reveal nobody, and forecasts that follow what a group takes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model.some_networks import NUM_ITEMS, small_network
from variseq.errors import CheckpointError, InputError
from variseq.ranking.attributes import (
    COUNT,
    MIN_PEOPLE,
    Attribute,
    UserAttributes,
    left_out,
    shrunk_log_ratios,
    with_attributes,
)
from variseq.ranking.calibration import Calibration
from variseq.ranking.mixture import MixtureModel
from variseq.recommend.network_model import count_events, mixture_model
from variseq.sequences.histories import Histories

COUNTRIES = ("DE", "FR", "other")
COUNTS = np.random.default_rng(0).integers(0, 30, size=(5, NUM_ITEMS - 2))
ATTRIBUTES = UserAttributes(
    (
        Attribute("country", COUNTRIES, other=2, strength=0.75),
        Attribute("age", ("up to 30", "above 30"), True, (30.0,), (0, 1), strength=0.5),
    ),
    np.arange(1, NUM_ITEMS - 1),
    np.concatenate([COUNTS[:3], COUNTS[:3].sum(axis=0) - COUNTS[3:4] % 20, COUNTS[3:4] % 20]),
    prior_events=40.0,
    fade=0.5,
)
HISTORIES = Histories.of_items([[], [4], [], [2, 4, 7, 1]])
GROUPS = np.array([[0, 1], [1, -1], [-1, -1], [0, 1]])


def model(attributes: UserAttributes | None, num_samples: int = 8, repeat_share: float | None = None) -> MixtureModel:
    known = Histories.of_items([[1, 2, 3, 4], [4, 2, 7, 1]])
    plain = mixture_model(small_network(), count_events(NUM_ITEMS, known), Calibration(num_samples), repeat_share)
    return MixtureModel(plain.encoder, plain.tables, plain.calibration, repeat_share, attributes)


def probabilities(attributes: UserAttributes | None, groups: np.ndarray | None) -> np.ndarray:
    found = model(attributes)
    histories = replace(HISTORIES, attributes=groups)
    return found.distribution(found.encode(histories), histories).probabilities()


def plain_ratio(groups: list[int], item: int) -> float:
    """The ratio of an item for the groups of a person, in plain numbers."""
    everybody, ratio = ATTRIBUTES.count[:3].sum(axis=0), 1.0
    for begin, group, one in zip((0, 3), groups, ATTRIBUTES.attributes, strict=True):
        if group >= 0 and item in ATTRIBUTES.item:
            of_group, column = ATTRIBUTES.count[begin + group], int(np.flatnonzero(ATTRIBUTES.item == item)[0])
            share = everybody[column] / everybody.sum()
            ratio *= ((40 + of_group[column] / share) / (40 + of_group.sum())) ** one.strength
    return ratio


def test_forecasts_are_multiplied_by_shrunk_ratios_and_normalized() -> None:
    before, after = probabilities(None, None), probabilities(ATTRIBUTES, GROUPS)
    for row, exponent in ((0, 1.0), (1, 0.5)):
        ratio = [plain_ratio(GROUPS[row].tolist(), item) ** exponent for item in range(NUM_ITEMS)]
        expected = before[row] * ratio
        np.testing.assert_allclose(after[row], expected / expected.sum(), rtol=1e-4)
    # Without groups, and after more than three events, nothing changes.
    np.testing.assert_array_equal(after[2:], before[2:])


def test_group_of_no_one_has_the_answer_for_everybody() -> None:
    count = ATTRIBUTES.count.copy()
    count[[1, 4]] = 0
    empty = replace(ATTRIBUTES, count=count)
    groups = np.array([[1, 1]] * 4)
    np.testing.assert_allclose(probabilities(empty, groups)[0], probabilities(None, None)[0], rtol=1e-6)


@pytest.mark.parametrize("repeat_share", [None, 0.3])
def test_samples_and_entropies_belong_to_the_same_forecast(repeat_share: float | None) -> None:
    found, histories = model(ATTRIBUTES, repeat_share=repeat_share), replace(HISTORIES, attributes=GROUPS)
    distribution = found.distribution(found.encode(histories), histories)
    p, everything = distribution.probabilities(), np.tile(np.arange(NUM_ITEMS), (4, 1))
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(distribution.sampled(everything).mean(axis=1), p, rtol=1e-4)
    total, aleatoric = distribution.entropies(p)
    np.testing.assert_allclose(total, -(p * np.log(p)).sum(axis=1), rtol=1e-4)
    assert (aleatoric <= total + 1e-5).all()


@given(st.integers(1, 1000), st.lists(st.lists(st.integers(0, 50), min_size=4, max_size=4), min_size=2, max_size=5))
def test_ratios_come_closer_to_one_the_more_events_of_everybody_count(prior: int, counts: list[list[int]]) -> None:
    count = np.array(counts)
    near, far = (np.abs(shrunk_log_ratios(count, count.sum(axis=0), m)) for m in (2.0 * prior, float(prior)))
    assert (near <= far + 1e-6).all()


@given(st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=1, max_size=120))
def test_no_group_is_small_and_everybody_is_in_one(values: list[str | None]) -> None:
    found = Attribute.fit("plan", values)
    if found is None:
        return
    sizes = Counter(found.group_of(value)[0] for value in values)
    assert sizes.keys() == set(range(len(found.groups)))
    assert min(sizes.values()) >= MIN_PEOPLE
    rare = [value for value, size in Counter(values).items() if size < MIN_PEOPLE]
    assert not set(rare) & set(found.groups)


@given(st.integers(0, 1000), st.integers(1, 200), st.integers(1, 300))
def test_numbers_are_cut_into_at_most_eight_ranges_or_stay_apart(seed: int, largest: int, num_people: int) -> None:
    values = np.random.default_rng(seed).integers(0, largest, num_people).astype(float).tolist()
    found = Attribute.fit("age", values)
    if found is not None and found.ends is not None:
        assert len(found.ends) <= 7
        assert min(Counter(found.group_of(value)[0] for value in values).values()) >= MIN_PEOPLE


def test_missing_values_are_a_group_and_unknown_values_are_rare_or_missing_ones() -> None:
    with_rare = Attribute.fit("plan", ["a"] * 20 + ["b"] * 20 + [None] * 15 + ["c", "d"] * 5)
    without = Attribute.fit("plan", ["a"] * 20 + ["b"] * 20 + [None] * 15)
    assert with_rare is not None
    assert without is not None
    assert with_rare.groups == ("a", "b", "missing", "other")
    assert [with_rare.group_of(value) for value in ("c", "e", None, "")] == [(3, False)] * 2 + [(2, True)] * 2
    assert without.group_of("c") == (2, False)
    codes = Attribute.fit("code", [1.0] * 20 + [2.0] * 20)
    assert codes is not None
    assert [codes.group_of(value)[0] for value in (2, "2", 2.0, "two", 3)] == [1, 1, 1, -1, -1]


def test_columns_that_group_nobody_are_left_out() -> None:
    assert left_out([None, None]) == "no value"
    assert left_out([float(number) for number in range(100)]) == "all values are different"
    assert left_out([str(number // 2) for number in range(500)]) == "250 different values"
    assert left_out([float(number // 2) for number in range(500)]) is None


def test_unknown_names_are_refused_and_unknown_values_noted() -> None:
    with pytest.raises(InputError, match=r"'contry'.*country, age"):
        ATTRIBUTES.groups_of({"contry": "DE"})
    with pytest.raises(InputError, match="knows no attributes"):
        with_attributes(None, HISTORIES, {"country": "DE"})
    groups, notes = ATTRIBUTES.groups_of({"country": "PL", "age": "31"})
    assert groups.tolist() == [2, 1]
    assert len(notes) == 1
    assert "PL" in notes[0]


def test_record_is_read_as_it_was_written_and_damage_is_noticed() -> None:
    tensors = ATTRIBUTES.tensors()
    found = UserAttributes.of_tensors(tensors)
    assert found is not None
    assert (found.attributes, found.prior_events, found.fade) == (ATTRIBUTES.attributes, 40.0, 0.5)
    np.testing.assert_array_equal(found.table, ATTRIBUTES.table)
    assert UserAttributes.of_tensors({}) is None
    with pytest.raises(CheckpointError, match="attributes"):
        UserAttributes.of_tensors(tensors | {COUNT: ATTRIBUTES.count[1:]})
