"""Made-up records of recipes: what the table in README says of them, and when it is out of date."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from results_table import MARKERS, latest_by_seed, main, results_text

from variseq.errors import InputError


def row(model: str, ndcg: float, nll: float | None) -> dict[str, Any]:
    return {
        "model": model,
        "ndcg@10": ndcg,
        "ndcg@10_interval": [ndcg - 0.01, ndcg + 0.01],
        "recall@10": 2 * ndcg,
        "nll": nll,
        "ece_top10": None if nll is None else 0.0123,
        "num_queries": 6040,
        "seen_targets": 7,
        "cold_targets": 2,
    }


def record(seed: int = 0, ndcg: float = 0.15, recipe: str = "films", date: str = "2025-03-01") -> dict[str, Any]:
    training = {"seed": seed, "max_epochs": 9, "deterministic_fraction": 0.3}
    return {
        "recipe": recipe,
        "commit": "0123456789abcdef",
        "dirty": False,
        "date": f"{date}T10:00:00+00:00",
        "data": {
            "name": "Films",
            "sha256": {"films.txt": "ab"},
            "num_users": 6040,
            "num_items": 3416,
            "num_events": 999611,
            "notes": ["An order only."],
        },
        "protocol": {"k": 10, "method": "leave-one-out", "targets": "next", "split_hash": "c" * 64},
        "seed": seed,
        "settings": {"size": "small", "model": {"hidden_size": 64}, "training": training},
        "hardware": {"cpu": "A processor", "cores": 2, "threads": 2, "device": "cpu"},
        "training_seconds": 1234.5 + seed,
        "evaluation_seconds": 5.0,
        "peak_megabytes": 900,
        "posterior": {"epoch": 8, "num_epochs": 9, "rate": 40.0, "active_share": 1.0, "swap_gap": 3.0, "alarms": []},
        "rows": [row("variseq", ndcg, 5.5), row("item-knn", 0.108, None)],
    }


def rows_of(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_one_seed_is_shown_with_its_interval_over_users() -> None:
    text = results_text(latest_by_seed([record()]))
    header, _, model, baseline = rows_of(text)
    assert header == ["model", "NDCG@10", "Recall@10", "NLL", "ECE, top 10", "training, s", "peak, MB"]
    assert model == ["**variseq**", "0.1500 [0.1400–0.1600]", "0.3000", "5.50", "0.0123", "1,234", "900"]
    assert baseline == ["item-knn", "0.1080 [0.0980–0.1180]", "0.2160", "–", "–", "–", "–"]
    for fact in ("`0123456789`", "seed 0", "A processor, 2 of 2 threads", "2025-03-01", "cccccccccccc", "no alarm"):
        assert fact in text


def twin(seed: int = 0, **changes: Any) -> dict[str, Any]:
    made = record(seed, 0.17)
    made["settings"]["training"] |= {"deterministic_fraction": 1.0, **changes}
    return made


def test_twin_without_noise_has_a_row_of_its_own() -> None:
    text = results_text(latest_by_seed([record(0), twin(0), twin(1), record(1)]))
    _, _, model, without_noise, baseline = rows_of(text)
    assert model[:2] == ["**variseq**", "0.1500 (0.1500–0.1500)"]
    assert without_noise[:2] == ["twin without noise", "0.1700 (0.1700–0.1700)"]
    assert without_noise[5] == "1,235 (1,234–1,236)"
    assert baseline[0] == "item-knn"
    assert "the same with training.deterministic_fraction=1, seeds 0, 1" in text


def test_only_twins_may_differ_in_noise_and_they_do_not_stand_alone() -> None:
    with pytest.raises(InputError, match="differ in their settings"):
        latest_by_seed([record(0), twin(0, max_epochs=8)])
    of_other_noise = twin(0, kl_anneal_fraction=0.3, num_samples=7, kl_target=80.0)
    assert latest_by_seed([record(0), of_other_noise])["films"].twins == [of_other_noise]
    half_noise = record(1)
    half_noise["settings"]["training"]["deterministic_fraction"] = 0.5
    with pytest.raises(InputError, match="differ in their settings"):
        latest_by_seed([record(0), half_noise])
    with pytest.raises(InputError, match="all of runs without noise"):
        latest_by_seed([twin(0)])


def test_seeds_of_one_recipe_are_one_row_with_mean_smallest_and_largest() -> None:
    text = results_text(latest_by_seed([record(1, 0.16), record(0, 0.14)]))
    _, _, model, baseline = rows_of(text)
    assert model[1] == "0.1500 (0.1400–0.1600)"
    assert baseline[1] == "0.1080 [0.0980–0.1180]"
    assert "seeds 0, 1" in text


def test_latest_record_of_a_seed_counts() -> None:
    chosen = latest_by_seed([record(0, 0.2, date="2025-03-02"), record(0, 0.1, date="2025-03-01")])
    assert [found["rows"][0]["ndcg@10"] for found in chosen["films"].records] == [0.2]


@pytest.mark.parametrize("part", ["data", "settings", "split and targets"])
def test_seeds_of_different_experiments_are_never_averaged(part: str) -> None:
    other = record(1)
    if part == "data":
        other["data"]["sha256"] = {"films.txt": "cd"}
    elif part == "settings":
        other["settings"]["model"]["hidden_size"] = 128
    else:
        other["protocol"]["split_hash"] = "d" * 64
    with pytest.raises(InputError, match=f"differ in their {part}"):
        latest_by_seed([record(0), other])


def test_uncommitted_changes_and_alarms_are_said() -> None:
    changed = record()
    changed["dirty"] = True
    changed["posterior"]["alarms"] = ["only 3% are active"]
    text = results_text(latest_by_seed([changed]))
    assert "with uncommitted changes" in text
    assert "ALARM: only 3% are active" in text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A README with markers, and results of recipes beside one of another benchmark."""
    (tmp_path / "README.md").write_text(f"Before\n{MARKERS[0]}\nold\n{MARKERS[1]}\nAfter\n")
    (tmp_path / "results").mkdir()
    lines = [json.dumps(record(seed)) for seed in (0, 1)]
    (tmp_path / "results" / "films.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "results" / "shop.json").write_text(json.dumps(record(recipe="shop")))
    (tmp_path / "results" / "memory.json").write_text(json.dumps({"rows": [], "seed": 7}))
    return tmp_path


def words(folder: Path, *more: str) -> list[str]:
    return ["--results", str(folder / "results"), "--readme", str(folder / "README.md"), *more]


def test_check_fails_until_the_table_is_written_and_writes_nothing(folder: Path) -> None:
    before = (folder / "README.md").read_text()
    assert main(words(folder, "--check")) == 1
    assert (folder / "README.md").read_text() == before
    assert main(words(folder)) == 0
    assert main(words(folder, "--check")) == 0
    after = (folder / "README.md").read_text()
    assert after.startswith(f"Before\n{MARKERS[0]}\n")
    assert after.endswith(f"{MARKERS[1]}\nAfter\n")
    assert "recipe `films`" in after
    assert "recipe `shop`" in after
    assert "old" not in after
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "results"]


@pytest.mark.parametrize("damage", ["no markers", "no readme", "no JSON"])
def test_what_cannot_be_read_is_one_message_and_exit_code_2(
    folder: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if damage == "no markers":
        (folder / "README.md").write_text("Before\n")
    elif damage == "no readme":
        (folder / "README.md").unlink()
    else:
        (folder / "results" / "films.jsonl").write_text('{"recipe": "films", \n')
    assert main(words(folder)) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_readme_shows_the_records_that_are_kept() -> None:
    assert main(["--check"]) == 0, "run: python benchmarks/results_table.py"
