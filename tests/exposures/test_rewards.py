"""Events are joined to the list that they name, or to the latest one before; every event has one outcome."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from variseq.errors import InputError
from variseq.exposures.rewards import LoggedEvent, RewardOptions, with_rewards
from variseq.exposures.table import Exposures

MINUTE = 60 * 1_000_000
LISTS = st.lists(
    st.tuples(
        st.sampled_from(["u", "v", None]), st.integers(0, 9), st.lists(st.sampled_from("abc"), unique=True, max_size=3)
    ),
    max_size=5,
)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from("uv"), st.integers(0, 9), st.sampled_from("abcd"), st.sampled_from(["buy", "click", "look"]),
        st.one_of(st.none(), st.integers(0, 5)), st.one_of(st.none(), st.integers(1, 3)),
    ),
    max_size=8,
)  # fmt: skip


def table(lists: list[tuple[str | None, int, list[str]]]) -> Exposures:
    """Lists of a user, a minute and items."""
    lists = sorted(lists, key=lambda one: one[1])
    items = [item for one in lists for item in one[2]]
    unknown = np.full(len(items), np.nan)
    return Exposures(
        offsets=np.cumsum([0, *(len(one[2]) for one in lists)]).astype(np.int64),
        exposure_id=[f"e{number}" for number in range(len(lists))],
        user=[one[0] for one in lists],
        time=np.array([one[1] * MINUTE for one in lists], dtype=np.int64),
        context=None,
        item=np.array(["abc".index(item) for item in items], dtype=np.int64),
        item_ids=["a", "b", "c"],
        rank=np.array([rank for one in lists for rank in range(1, len(one[2]) + 1)], dtype=np.int64),
        propensity_at_rank=unknown,
        propensity_in_list=unknown,
        is_pinned=np.zeros(len(items), dtype=bool),
        reward=np.zeros(len(items)),
    )


def plainly(exposures: Exposures, events: list[LoggedEvent], rewards: dict[str, float]) -> list[float]:
    """The rewards by looking at each row of each event."""
    ids, users, times = exposures.exposure_id, exposures.user, exposures.time
    behaviors: list[set[str]] = [set() for _ in range(len(exposures))]
    for event in events:
        found = []
        for row, number in enumerate(exposures.row_exposure.tolist()):
            fits = exposures.item_ids[exposures.item[row]] == event.item_id and times[number] <= event.time
            if event.exposure_id is not None:
                fits &= ids[number] == event.exposure_id and users[number] in (None, event.user)
                fits &= event.rank in (None, exposures.rank[row])
            else:
                fits &= users[number] == event.user
            if fits:
                found.append((times[number], row, number))
        if found and (event.exposure_id is not None or event.time - max(found)[0] <= 3 * MINUTE):
            behaviors[max(found)[1]].add(event.behavior)
    return [sum(rewards.get(one, 0.0) for one in sorted(found)) for found in behaviors]


@given(lists=LISTS, events=EVENTS)
def test_join_is_that_of_a_plain_search_and_loses_no_event(lists: list[Any], events: list[Any]) -> None:
    exposures, rewards = table(lists), {"buy": 1.0, "click": 0.25}
    given_events = [
        LoggedEvent(str(number), minute * MINUTE, user, item, behavior, None if of is None else f"e{of}", rank)
        for number, (user, minute, item, behavior, of, rank) in enumerate(events)
    ]
    rewarded, outcomes = with_rewards(exposures, given_events, RewardOptions(rewards, "3m"))
    assert rewarded.reward.tolist() == plainly(exposures, given_events, rewards)
    assert outcomes.total() == len(events)


def test_outcome_says_why_an_event_has_no_list() -> None:
    exposures = table([("u", 1, ["a"]), ("v", 1, ["b"])])
    wanted = {
        "of an item in no list": LoggedEvent("1", MINUTE, "u", "z"),
        "of an item in no list of the user": LoggedEvent("2", MINUTE, "u", "b"),
        "before the list": LoggedEvent("3", 0, "u", "a"),
        "earlier than the list that they name": LoggedEvent("9", 0, "u", "a", exposure_id="e0"),
        "later than the window": LoggedEvent("4", 60 * MINUTE, "u", "a"),
        "of a list that is not there": LoggedEvent("5", MINUTE, "u", "a", exposure_id="gone"),
        "of a list of another user": LoggedEvent("6", MINUTE, "u", "b", exposure_id="e1"),
        "of an item that is not there in the list": LoggedEvent("7", MINUTE, "u", "a", exposure_id="e0", rank=2),
        "of a behavior without a reward": LoggedEvent("8", MINUTE, "u", "a", "look"),
    }
    rewarded, outcomes = with_rewards(exposures, wanted.values(), RewardOptions({"event": 1.0}, "10m"))
    assert outcomes == dict.fromkeys(wanted, 1)
    assert not rewarded.reward.any()


def test_every_behavior_is_worth_one_where_no_rewards_are_given() -> None:
    events = [LoggedEvent(str(n), MINUTE, "u", "a", behavior) for n, behavior in enumerate(["buy", "click", "click"])]
    assert with_rewards(table([("u", 1, ["a", "b"])]), events, RewardOptions())[0].reward.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("options", [{"rewards": {"buy": float("nan")}}, {"window": "soon"}])
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        RewardOptions(**options)


def test_value_of_an_event_can_be_its_reward_and_the_largest_counts() -> None:
    exposures = table([("u", 0, ["a", "b"])])
    events = [
        LoggedEvent(f"{number}", MINUTE * (1 + number), "u", item, behavior, value=value)
        for number, (item, behavior, value) in enumerate(
            [("a", "play", 30.0), ("a", "play", 120.0), ("a", "buy", 9.0), ("b", "play", None), ("b", "look", 5.0)]
        )
    ]
    found, outcomes = with_rewards(exposures, events, RewardOptions({"play": "value", "buy": 1.0}))
    assert found.reward.tolist() == [121.0, 0.0]
    assert outcomes["without the value that is its reward"] == 1
    assert outcomes["of a behavior without a reward"] == 1
    with pytest.raises(InputError, match="is no number"):
        RewardOptions({"play": float("nan")})
