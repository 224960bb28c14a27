"""Tables between two markers of the documentation: written whole, and held against the files that they come from."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from types import ModuleType

import pytest

from tests.benchmarks import exploration_path  # noqa: F401
from variseq.errors import InputError

import ablations  # isort: skip
import posteriors_page  # isort: skip
import kernels  # isort: skip
import long_histories  # isort: skip
import refits  # isort: skip
import request_time  # isort: skip
import targets  # isort: skip
import training_share  # isort: skip
import twins  # isort: skip
import voices  # isort: skip
import marked_file  # isort: skip
from marked_file import write_between_markers  # isort: skip

MARKERS = ("<!-- a:begin -->", "<!-- a:end -->")


SCRIPTS = [ablations, kernels, long_histories, refits, request_time, training_share, twins, voices]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_documentation_shows_the_table_of_the_record(script: ModuleType) -> None:
    document = script.DOCUMENT.read_text(encoding="utf-8")
    begin, end = script.MARKERS
    shown = document.split(f"{begin}\n")[1].split(end)[0]
    if script.RESULT.exists():
        written = script.RESULT.read_text(encoding="utf-8")
        is_lines = script.RESULT.suffix == ".jsonl"
        assert shown == script.table(
            [json.loads(line) for line in written.splitlines()] if is_lines else json.loads(written)
        )
    else:
        assert shown == "Not measured yet.\n"


def test_guide_shows_what_was_found_of_each_claim_and_what_was_missed() -> None:
    document = posteriors_page.DOCUMENT.read_text(encoding="utf-8")
    begin, end = posteriors_page.MARKERS
    lines = posteriors_page.RESULT.read_text(encoding="utf-8")
    assert document.split(f"{begin}\n")[1].split(end)[0] == posteriors_page.table(lines)
    latest = {record["data"]: record["targets"] for record in map(json.loads, lines.splitlines())}
    num_missed = sum(not row["is_met"] for targets in latest.values() for row in targets)
    assert document.count("**missed**: ") == num_missed > 0


def test_page_of_targets_shows_the_records_and_each_miss() -> None:
    document = targets.DOCUMENT.read_text(encoding="utf-8")
    begin, end = targets.MARKERS
    shown = document.split(f"{begin}\n")[1].split(end)[0]
    assert shown == targets.table(targets.RESULTS), "run: python benchmarks/targets.py"
    assert "**missed**" in shown


def test_target_is_met_or_missed_by_what_was_measured() -> None:
    ours = {"system": "variseq", "curve": [(5.0, 1, 0.02), (10.0, 2, 0.05)]}
    rival = {"system": "other", "best_validation_ndcg": 0.03, "seconds_to_best": 100.0, "was_improving": False}
    assert targets.seconds_to_best(ours, rival, 10).is_met
    assert not targets.seconds_to_best(ours, rival, 11).is_met
    assert not targets.seconds_to_best(ours, rival | {"best_validation_ndcg": 0.06}, 1).is_met
    rows = {name: {"peak_megabytes": size} for name, size in (("variseq", 50), ("rectools-sasrec", 100), ("other", 1))}
    assert targets.memory(rows, "Films", "peak_megabytes").is_met
    assert not targets.memory(rows | {"variseq": {"peak_megabytes": 51}}, "Films", "peak_megabytes").is_met


def test_text_between_the_markers_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a:begin -->\nold\n<!-- a:end -->\nafter\n")
    write_between_markers(page, MARKERS, "new\n")
    write_between_markers(page, MARKERS, "new\n")
    assert page.read_text() == "before\n<!-- a:begin -->\nnew\n<!-- a:end -->\nafter\n"
    assert list(tmp_path.iterdir()) == [page]


@pytest.mark.parametrize("text", ["nothing", "<!-- a:begin -->\n", "<!-- a:end --> <!-- a:begin -->\n"])
def test_page_without_both_markers_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(InputError, match="no place for the table"):
        write_between_markers(page, MARKERS, "new\n")
    assert page.read_text() == text


def test_examples_in_docstrings_hold() -> None:
    assert doctest.testmod(marked_file).attempted > 0
    assert doctest.testmod(marked_file).failed == 0
