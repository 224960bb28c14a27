"""The check counts what came, and says what can be concluded; numbers that show a fault are those of a plain count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.exposures.lists import START, event, exposure, write
from tests.terminal.invoke import refuse, succeed, variseq
from variseq.exposures.read import read_exposures
from variseq.exposures.support import conclusions, support
from variseq.ranking.plackett_luce import draw_lists, softmax_weights


def drawn(num: int, num_items: int, temperature: float) -> pd.DataFrame:
    """Lists of three from a pool of all items."""
    rng = np.random.default_rng(1)
    k = np.full(num, 3)
    weight = softmax_weights(np.tile(rng.normal(size=num_items), (num, 1)), temperature, 0.1, k)
    items = np.tile(np.arange(num_items), (num, 1))
    lists = draw_lists(items, weight, k, [int(key) for key in rng.integers(2**62, size=num)])
    return pd.DataFrame(
        {
            "exposure_id": np.repeat([f"e{number}" for number in range(num)], 3),
            "user_id": np.repeat([f"u{number % 50}" for number in range(num)], 3),
            "item_id": lists.index.ravel(),
            "rank": np.tile([1, 2, 3], num),
            "reward": rng.integers(0, 2, 3 * num),
            "propensity_at_rank": lists.at_rank.ravel(),
            "propensity_in_list": lists.in_list.ravel(),
        }
    )


def test_weights_of_a_uniform_policy_have_mean_one_where_all_items_can_be_listed() -> None:
    exposures, _ = read_exposures(drawn(2000, 12, 1.0))
    found = support(exposures)
    assert abs(found.uniform_weight - 1) < 4 * found.standard_error < 0.2
    assert 100 < found.effective_sample < found.num_known == 6000
    assert conclusions(exposures, found) == [
        "Policies that list items which these lists could have had can be evaluated."
    ]


def test_propensities_that_are_too_small_are_found() -> None:
    table = drawn(2000, 12, 1.0)
    table["propensity_at_rank"] /= 2
    exposures, _ = read_exposures(table)
    assert any("cannot be above 1" in one for one in conclusions(exposures, support(exposures)))


def test_propensities_that_are_exchanged_are_found() -> None:
    table = drawn(200, 12, 1.0)
    names = {"propensity_at_rank": "propensity_in_list", "propensity_in_list": "propensity_at_rank"}
    exposures, _ = read_exposures(table.rename(columns=names))
    assert any("confused" in one for one in conclusions(exposures, support(exposures)))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"propensity_at_rank": None, "propensity_in_list": None}, "There are no propensities"),
        ({"propensity_at_rank": 1.0, "propensity_in_list": 1.0}, "deterministic"),
        ({"reward": 0}, "nothing to compare"),
        ({"user_id": None}, "No user is known"),
        ({"propensity_at_rank": [None, 0.5] * 30}, "50.0% of the rows have no propensity"),
        ({"propensity_at_rank": 1e-6}, "effective sample"),
    ],
)
def test_conclusion_names_what_is_missing(change: dict[str, object], part: str) -> None:
    exposures, _ = read_exposures(drawn(20, 12, 1.0).assign(**change))
    found = support(exposures)
    if part == "effective sample":
        assert found.effective_sample < 100
    assert any(part in one for one in conclusions(exposures, found))


def test_pinned_items_are_no_part_of_the_support(tmp_path: Path) -> None:
    drawn_list = exposure("e1", ["a", "b"], at_rank=[1.0, 0.5], pin={1: "a"}, strategy="softmax", pool=11, seed=1)
    write(tmp_path, drawn_list, exposure("e2", list("abcdefghijklmnop")))
    found = support(read_exposures(tmp_path)[0])
    assert (found.num_rows, found.num_known, found.smallest) == (17, 1, 0.5)
    assert found.uniform_weight == pytest.approx(1 / (0.5 * 10)), "one of the pool of 11 is above"


def test_command_shows_every_count(tmp_path: Path) -> None:
    write(
        tmp_path,
        *(exposure(f"e{number}", ["i1", "i2"], time=START + number) for number in range(1234)),
        event("v1", "i1", START + 2000, behavior="buy"),
        event("v2", "i7", START + 2000, behavior="buy"),
    )
    out = succeed("exposures", "check", tmp_path, "--reward", "buy=3,click=1").out
    for part in ("1,234 exposure, 2 event", "1,234 kept", "1 joined by user", "1 of an item in no list", "2 buy",
                 "1,234 × strategy=greedy", "3 in all", "There are no propensities"):  # fmt: skip
        assert part in out, part


def test_command_shows_the_table_and_then_the_impossible_propensity(tmp_path: Path) -> None:
    drawn(30, 12, 1.0).assign(propensity_at_rank=[0.0, 2.0, 0.5] * 30).to_csv(tmp_path / "own.csv", index=False)
    finished = variseq("exposures", "check", tmp_path / "own.csv")
    assert finished.code == 2
    assert "30 of 0 or less, 30 above 1" in finished.out
    assert "propensity_at_rank=0 in row 1" in finished.err


def test_command_takes_names_of_columns(tmp_path: Path) -> None:
    drawn(5, 12, 1.0).rename(columns={"item_id": "what", "reward": "sold"}).to_csv(tmp_path / "own.csv", index=False)
    assert (
        "15 of 5 users"
        in succeed("exposures", "check", tmp_path / "own.csv", "--columns", "item_id=what,reward=sold").out
    )
    refuse("item_id", "exposures", "check", tmp_path / "own.csv")


@pytest.mark.parametrize(
    "words", [("--reward", "buy"), ("--reward", "=1"), ("--window", "soon"), ("--only-shown",), ("--columns", "a=b")]
)
def test_option_that_cannot_be_is_refused_with_one_message(tmp_path: Path, words: tuple[str, ...]) -> None:
    write(tmp_path, exposure("e1", ["i1"]))
    refuse(".", "exposures", "check", tmp_path, *words)
