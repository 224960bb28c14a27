"""Each user has one arm of an experiment; a file that cannot be is one message."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from variseq.errors import InputError
from variseq.experiments.experiment import Experiment, read_experiment

NUM_USERS = 3000
GOOD = "name: ranking\narms:\n- {name: control, share: 0.5}\n- {name: drawn, share: 0.5, strategy: softmax}\n"


def experiment(*shares: float, name: str = "ranking") -> Experiment:
    arms = [{"name": f"arm{number}", "share": share} for number, share in enumerate(shares)]
    return Experiment.model_validate({"name": name, "arms": arms})


@settings(max_examples=8, derandomize=True)
@given(st.lists(st.integers(1, 20), min_size=2, max_size=5), st.from_regex(r"[a-z0-9_.-]{1,12}", fullmatch=True))
def test_arms_get_their_shares_and_users_keep_their_arms(parts: list[int], name: str) -> None:
    shares = np.array(parts) / sum(parts)
    one, again = experiment(*shares, name=name), experiment(*shares, name=name)
    arms = [one.arm_of(user_id).name for user_id in range(NUM_USERS)]
    assert arms == [again.arm_of(user_id).name for user_id in range(NUM_USERS)]
    found = Counter(arms)
    for number, share in enumerate(shares):
        error = 5 * np.sqrt(share * (1 - share) / NUM_USERS)
        assert found[f"arm{number}"] / NUM_USERS == pytest.approx(share, abs=error)


def test_arms_of_two_experiments_are_unrelated_and_12_is_another_user_than_its_digits() -> None:
    one, other = experiment(0.5, 0.5), experiment(0.5, 0.5, name="another")
    users: list[Any] = list(range(NUM_USERS))
    for arms in ([other.arm_of(user) for user in users], [one.arm_of(str(user)) for user in users]):
        is_same = np.mean([one.arm_of(user) == arm for user, arm in zip(users, arms, strict=True)])
        assert is_same == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(NUM_USERS))


def test_an_arm_has_the_options_that_it_names(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(GOOD + "follow_up: 7d\nplanned_users: 5000\n")
    found = read_experiment(file)
    assert [arm.policy for arm in found.arms] == [{}, {"strategy": "softmax"}]
    assert (found.follow_up_microseconds, found.planned_users) == (7 * 86_400_000_000, 5000)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (GOOD.replace("strategy:", "stratgey:"), "arms.1.stratgey"),
        (GOOD.replace("softmax", "best"), "strategy='best'"),
        (GOOD.replace("strategy: softmax", "strategy: softmax, diversity: 0.2"), "'drawn'"),
        (GOOD.replace("strategy: softmax", "temperature: 0"), "temperature="),
        (GOOD.replace("0.5, strategy", "0.4, strategy"), "sum to 0.9"),
        (GOOD.replace("0.5}", "0}"), "arms.0.share"),
        (GOOD.replace("drawn", "control"), "'control'"),
        (GOOD.replace("drawn", "a/b"), "arms.1.name"),
        (GOOD.replace("drawn", '"a\\n"'), "arms.1.name"),
        (GOOD + "follow_up: soon\n", "follow_up='soon'"),
        (GOOD + "follow_up: 0d\n", "follow_up='0d'"),
        (GOOD + "planned_users: 5\n", "planned_users"),
        (GOOD + "arm: 1\n", "planned_users"),
        ("name: ranking\narms: [{name: control, share: 0.9}]\n", "arms"),
        ("name: ranking\n", "arms"),
        ("- 1\n", "no YAML mapping"),
        ("name: [\n", "cannot be read"),
    ],
)
def test_file_that_cannot_be_is_one_message(tmp_path: Path, file: str, message: str) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(file)
    with pytest.raises(InputError) as caught:
        read_experiment(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_experiment(tmp_path / "none.yaml")
