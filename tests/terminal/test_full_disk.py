"""A disk without room: one message, exit code 2, and nothing half-written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import largest_file
from tests.terminal.invoke import refuse
from tests.terminal.shop import left_in, quick_fit

EVERYBODY = ["--all-users", "-k", 30, "--include-seen", "--out"]
COMMANDS: dict[str, list[object]] = {
    "all.csv": ["recommend", "RUN", *EVERYBODY],
    "all.parquet": ["recommend", "RUN", *EVERYBODY],
    "evaluation.json": ["evaluate", "RUN", "--json"],
    "shop.csv": ["simulate", "--users", 500, "--seed", 1, "--out"],
    "shop.parquet": ["simulate", "--users", 500, "--seed", 1, "--out"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_file_that_finds_no_room_is_one_message_and_leaves_nothing(run: Path, tmp_path: Path, name: str) -> None:
    words = [run if word == "RUN" else word for word in COMMANDS[name]]
    with largest_file(8_000):
        refuse("", *words, tmp_path / name)
    assert left_in(tmp_path) == []


def test_run_that_finds_no_room_is_one_message_and_leaves_nothing(shop_file: Path, tmp_path: Path) -> None:
    large = ["--set", "model.hidden_size=128", "--set", "training.max_epochs=1", "--quiet"]
    # The database that reads a log needs a file of its own; the state of the training is larger than it.
    with largest_file(1_000_000):
        refuse("", *quick_fit(shop_file, tmp_path / "run", *large))
    assert left_in(tmp_path) == []
