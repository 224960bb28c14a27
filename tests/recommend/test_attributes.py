"""Attributes of people fitted to simulated logs whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.model.some_networks import NUM_ITEMS, small_network
from variseq.evaluation.splits import Split, by_users, leave_one_out
from variseq.ranking.attributes import UserAttributes
from variseq.ranking.calibration import Calibration, GatingNetwork
from variseq.ranking.mixture import MixtureModel
from variseq.recommend.attributes import fit_attributes
from variseq.recommend.network_model import ModelRecommender, count_events, mixture_model
from variseq.sequences.histories import Histories

NUM_PEOPLE = 1500
TREND_ALONE = Calibration(0, gate=GatingNetwork(trend=(30.0, 0.0, 0.0)))
GENERATOR = np.random.default_rng(0)
SIDE = GENERATOR.integers(0, 2, NUM_PEOPLE)
COLUMNS = {
    "side": [("left", "right")[side] for side in SIDE.tolist()],
    "noise": GENERATOR.choice(["x", "y", "z"], NUM_PEOPLE).tolist(),
}


def shares_of(side: int) -> np.ndarray:
    """Each side prefers the items of its half, some more than others."""
    share = 1 + np.arange(NUM_ITEMS) % 3 + 9.0 * (np.arange(NUM_ITEMS) * 2 // NUM_ITEMS == side)
    return share / share.sum()


def people(differ: bool = True) -> Histories:
    both = (shares_of(0) + shares_of(1)) / 2
    items = [GENERATOR.choice(NUM_ITEMS, 6, p=shares_of(side) if differ else both).tolist() for side in SIDE.tolist()]
    return Histories.of_items(items)


def fitted(split: Split) -> tuple[MixtureModel, UserAttributes]:
    known = split[0].history()
    model = mixture_model(small_network(), count_events(NUM_ITEMS, known), TREND_ALONE)
    found = fit_attributes(COLUMNS, model, split[1], known)
    assert found is not None
    return MixtureModel(model.encoder, model.tables, model.calibration, attributes=found), found


def test_what_each_group_takes_first_is_recovered() -> None:
    model, found = fitted(by_users(people(), test=0.2, valid=0.2))
    assert found.used == ["side"]
    empty = Histories.of_items([[], [], []])
    groups = np.array([[0, -1], [1, -1], [-1, -1]])
    p = np.exp(ModelRecommender(model).scores(replace(empty, attributes=groups)).numpy())
    for side in (0, 1):
        # Half the sum of all differences; for everybody it is 0.33.
        assert np.abs(p[side] - shares_of(side)).sum() / 2 < 0.06
    everybody = np.exp(ModelRecommender(model.without_attributes()).scores(empty).numpy())
    np.testing.assert_array_equal(p[2], everybody[2])
    # People of a side go on to take the items of their side, which the trend alone does not know.
    assert found.fade == 1.0


def test_split_without_cold_people_has_strengths_too() -> None:
    _, found = fitted(leave_one_out(people(), NUM_ITEMS))
    assert found.used == ["side"]


def test_attributes_that_say_nothing_change_nothing() -> None:
    _, found = fitted(by_users(people(differ=False), test=0.2, valid=0.2))
    assert found.used == []
    assert "None says anything" in str(found)
    histories = replace(Histories.of_items([[]]), attributes=np.zeros((1, 2), dtype=np.int64))
    assert not found.change(histories).any()


def test_no_column_that_groups_people_gives_no_attributes() -> None:
    split = by_users(people(), test=0.2, valid=0.2)
    model = mixture_model(small_network(), count_events(NUM_ITEMS, split[0].history()), TREND_ALONE)
    alike = {"plan": ["free"] * NUM_PEOPLE, "id": [float(number) for number in range(NUM_PEOPLE)]}
    assert fit_attributes(alike, model, split[1], split[0].history()) is None


@pytest.mark.parametrize("num_taken", [9, 10])
def test_items_of_few_people_are_not_counted(num_taken: int) -> None:
    split = by_users(people(), test=0.2, valid=0.2)
    known = split[0].history()
    item = np.where(known.item == 5, 6, known.item)
    first = np.flatnonzero(known.lengths)[:num_taken]
    item[known.offsets[first]] = 5
    known = replace(known, item=item.astype(np.int32))
    model = mixture_model(small_network(), count_events(NUM_ITEMS, known), TREND_ALONE)
    found = fit_attributes(COLUMNS, model, split[1], known)
    assert found is not None
    assert (5 in found.item) == (num_taken == 10)
