"""`variseq diagnose`: the diagnosis of a run for people and for programs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.terminal.invoke import refuse, succeed
from tests.terminal.shop import left_in
from tests.training.some_runs import context_in, settings_for
from variseq.errors import PosteriorCollapseWarning
from variseq.estimator import load
from variseq.log import LogPart
from variseq.training.run import train_network

Parts = tuple[LogPart, LogPart, LogPart]


@pytest.fixture(scope="module")
def collapsed(shop_parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that is still under way and has collapsed."""
    folder = tmp_path_factory.mktemp("runs") / "collapsed"
    training = {
        "max_epochs": 4,
        "beta": 10.0,
        "kl_target": None,
        "deterministic_fraction": 0.0,
        "kl_anneal_fraction": 0.0,
    }
    settings = settings_for(shop_parts[0].part, {"mean_scale": None}, **training)
    with pytest.warns(PosteriorCollapseWarning):
        train_network(shop_parts[0].part, shop_parts[1].part, settings, context_in(folder))
    return folder


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_run_is_told_its_verdict_tests_and_groups(run: Path) -> None:
    out = succeed("diagnose", run).out
    assert "The latent is" in out
    for told in ("active", "KL", "mutual", "swap gap", "prior gap", "earlier events", "6-10"):
        assert told in out
    assert "not measured" not in out.partition("by length")[2]


def test_collapsed_run_is_told_what_to_change(collapsed: Path) -> None:
    out = succeed("diagnose", collapsed).out
    assert out.startswith("COLLAPSE: The latent is NOT used")
    assert "BAD" in out
    for advice in ("--set training.kl_target=5.0", "--set training.beta=0.0001", "--set model.mean_scale=1.0"):
        assert advice in out


def test_json_holds_the_diagnosis(collapsed: Path, tmp_path: Path) -> None:
    succeed("diagnose", collapsed, "--json", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert (found["kind"], found["is_used"]) == ("collapse", False)
    assert {"setting": "training.beta", "current": 10.0, "suggested": 0.0001}.items() <= found["changes"][1].items()
    assert found["tests"][0]["name"] == "active dimensions"
    assert found["groups"][0]["events"] == "0"
    assert left_in(tmp_path) == ["found.json"]


def test_run_without_histories_gets_the_same_diagnosis(run: Path, tmp_path: Path) -> None:
    load(run).save(tmp_path / "bare", with_histories=False)
    assert succeed("diagnose", tmp_path / "bare").out == succeed("diagnose", run).out


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("metrics.jsonl", "{", "is damaged"),
        ("metrics.jsonl", "", "no finished epoch"),
        ("metrics.jsonl", "{}\n", "is damaged.*'is_best'"),
        ("config.yaml", "a: [", "is damaged"),
        ("config.yaml", "3", "is damaged"),
        ("config.yaml", "training: {}", "is damaged.*'training.kl_target'|is damaged.*'training"),
        ("manifest.json", "{}", "is damaged.*'network'"),
        ("manifest.json", "[]", "is damaged"),
    ],
)
def test_damaged_run_is_one_message(copied: Path, name: str, content: str, told: str) -> None:
    (copied / name).write_text(content)
    refuse(told, "diagnose", copied)


def test_json_that_cannot_be_written_is_refused(run: Path, tmp_path: Path) -> None:
    refuse("is a folder", "diagnose", run, "--json", tmp_path)
    refuse("does not exist", "diagnose", run, "--json", tmp_path / "nowhere" / "found.json")
    assert left_in(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_json_that_finds_no_room_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / ".found.json.partial").symlink_to("/dev/full")
    refuse("No space left", "diagnose", run, "--json", tmp_path / "found.json")
    assert left_in(tmp_path) == []
