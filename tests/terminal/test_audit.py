"""`variseq audit`: attacks on fits with made-up people, from a log to a table, a picture and a file."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import variseq as vs
from tests.terminal.invoke import Finished, variseq
from variseq.errors import InputError
from variseq.log import Log
from variseq.privacy.attacks import Attack
from variseq.privacy.best_attack import BestAttack
from variseq.reports.attack_figure import write_attack_figure
from variseq.terminal.attacked_fit import FitAuditOptions, attack_fit, made_up_people

SHORT = (("max_epochs", 1), ("refit_fraction", 0.0))


@pytest.fixture(scope="module")
def attacks(shop_log: Log) -> dict[str, Attack]:
    fits: list[tuple[int, int]] = []
    options = FitAuditOptions(num_canaries=60, num_shadows=4, training=SHORT)
    found = attack_fit(shop_log, options, lambda number, total: fits.append((number, total)))
    assert fits == [(number, 5) for number in range(1, 6)]
    return {one.name: one for one in found}


@pytest.mark.slow
def test_stored_counts_give_canaries_away(attacks: dict[str, Attack]) -> None:
    assert attacks["look-up of stored transitions"].auc()[0] > 0.7


@pytest.mark.slow
def test_all_attacks_see_the_same_coin_flips(attacks: dict[str, Attack]) -> None:
    assert len(attacks) == 4
    assert len({one.included.tobytes() for one in attacks.values()}) == 1
    assert all(np.isfinite(one.score).all() for one in attacks.values())


def test_canaries_have_times_of_people_and_each_item_once(shop_log: Log) -> None:
    before = shop_log.histories.item.copy()
    canaries = made_up_people(shop_log, 50, np.random.default_rng(0))
    people = [shop_log.histories.history(row).timestamp for row in range(len(shop_log.histories))]
    for row in range(50):
        one = canaries.history(row)
        assert len(np.unique(one.item)) == one.num_events >= 3
        assert any(np.array_equal(times[-one.num_events :], one.timestamp) for times in people)
    np.testing.assert_array_equal(shop_log.histories.item, before)


@pytest.mark.slow
def test_picture_has_a_line_for_each_attack(attacks: dict[str, Attack], tmp_path: Path) -> None:
    best = BestAttack(np.linspace(0, 3, 4), np.array([0.3, 0.1, 0.01, 0.0]))
    write_attack_figure(tmp_path / "audit.svg", list(attacks.values()), guarantee=(3.0, best))
    write_attack_figure(tmp_path / "audit.png", list(attacks.values()))
    assert (tmp_path / "audit.png").read_bytes().startswith(b"\x89PNG")
    lines = ElementTree.parse(tmp_path / "audit.svg").getroot().iterfind(".//*[@id]")
    assert sum(one.attrib["id"].startswith("line2d") for one in lines) >= len(attacks) + 2


@pytest.mark.parametrize("wrong", [{"num_canaries": 2}, {"num_shadows": 2}, {"num_shadows": 5}])
def test_impossible_numbers_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="not possible"):
        FitAuditOptions(**wrong)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with a log and its catalog."""
    folder = tmp_path_factory.mktemp("audit")
    shop = vs.simulate(vs.SimulationOptions(num_users=500, num_items=40, seed=5))
    shop.events().to_pandas().to_csv(folder / "events.csv", index=False)
    shop.items().to_pandas().to_csv(folder / "items.csv", index=False)
    return folder


def audit(folder: Path, *words: object) -> Finished:
    return variseq("audit", folder / "events.csv", *words)


def test_private_audit_writes_its_findings_and_leaves_the_log(files: Path, tmp_path: Path) -> None:
    before = {file.name: file.read_bytes() for file in files.iterdir()}
    record, picture = tmp_path / "audit.json", tmp_path / "audit.svg"
    words = ("--items", files / "items.csv", "--private", 3, "--json", record, "--picture", picture)
    assert audit(files, *words).code == 0
    found = json.loads(record.read_text(encoding="utf-8"))
    assert found["with_noise"]["epsilon_lower_bound"] < found["epsilon"] <= 3
    assert found["without_noise"]["epsilon_lower_bound"] > 3
    assert picture.read_text(encoding="utf-8").startswith("<?xml")
    assert {one.name for one in tmp_path.iterdir()} == {record.name, picture.name}
    assert {file.name: file.read_bytes() for file in files.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--private", "3"), "catalog"),
        (("--private", "0", "--items", "{}/items.csv"), "budget"),
        (("--private", "3", "--items", "{}/items.csv", "--shadows", "4"), "--shadows"),
        (("--private", "3", "--items", "{}/items.csv", "--canaries", "1"), "canaries"),
        (("--private", "3", "--items", "{}/items.csv", "--network", "auto"), "--network"),
        (("--network", "yes"), "--network"),
        (("--shadows", "3"), "shadow fits"),
        (("--size", "vast"), "vast"),
        (("--picture", "{}/audit.jpg"), ".png or .svg"),
        (("--json", "{}/missing/audit.json"), "does not exist"),
    ],
)
def test_what_is_not_possible_gets_one_message(files: Path, words: tuple[str, ...], message: str) -> None:
    done = audit(files, *(word.format(files) for word in words))
    assert done.code == 2
    assert message in done.err
