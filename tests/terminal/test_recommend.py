"""`variseq recommend` answers for users, for a history and for everybody, and says what it left out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from shutil import copytree

import pandas as pd
import pytest

from tests.terminal.invoke import refuse, succeed, variseq
from tests.terminal.shop import left_in
from variseq.estimator import load
from variseq.terminal import recommend_all


def text_of(table: str) -> str:
    """The words of a table, its frame and line breaks taken away."""
    return " ".join(table.replace("│", " ").split())


def test_several_users_get_titles_ranks_and_reasons(run: Path) -> None:
    out = succeed("recommend", run, "--user", "u01", "--user", "u02", "-k", 3).out
    expected = load(run).recommend(users=["u01", "u02"], k=3).to_pandas()
    for row in expected.to_dict("records"):
        assert f"{row['title']} ({row['item_id']})" in text_of(out)
    assert out.count("│    1 │") == 2
    assert "u01" in out
    assert "u02" in out


def test_answer_is_that_of_python(run: Path, tmp_path: Path) -> None:
    succeed("recommend", run, "--all-users", "--out", tmp_path / "all.parquet", "-k", 4)
    written, called = (
        pd.read_parquet(tmp_path / "all.parquet"),
        load(run).recommend(load(run).vocabulary.users.to_pylist(), k=4).to_pandas(),
    )
    columns = ["user_id", "item_id", "rank", "score", "probability", "title", "fallback"]
    pd.testing.assert_frame_equal(written[columns], called[columns], check_dtype=False)


def test_integer_ids_are_given_as_text(integer_run: Path) -> None:
    out = succeed("recommend", integer_run, "--user", "107", "-k", 2).out
    assert "fallback" not in out
    user = load(integer_run).recommend(users=[107], k=2).to_pandas()
    assert all(str(item) in out for item in user["item_id"])
    assert "fallback" not in succeed("recommend", integer_run, "--history", "901,902", "-k", 2).out
    refuse("ids of this data are integers, and 'seven'", "recommend", integer_run, "--user", "seven")
    refuse("item ids of this data are integers", "recommend", integer_run, "--history", "901,x")
    refuse("without an items file", "recommend", integer_run, "--user", "107", "--categories", "Garden")


def test_level_that_too_few_validation_users_can_hold_is_said_to_be_no_promise(run: Path, tmp_path: Path) -> None:
    copytree(run, tmp_path / "run")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["calibration"]["conformal_users"] = 100_000
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
    few, many = (
        succeed("recommend", folder, "--user", "u01", "--conformal-level", "0.9") for folder in (run, tmp_path / "run")
    )
    assert few.out == many.out
    assert "cannot be promised" in few.err
    assert many.err == ""


def test_unknown_users_and_items_are_named_and_fallbacks_labelled(run: Path) -> None:
    known = succeed("recommend", run, "--history", "i01, i02", "-k", 2)
    assert "this history" in known.out
    assert "fallback" not in known.out
    assert known.err == ""
    partly = succeed("recommend", run, "--history", "i01,i02,nope", "-k", 2)
    assert partly.err.startswith("warning: 1 of 3 items of the history")
    assert "'nope'" in partly.err
    assert "fallback" not in partly.out
    unknown = succeed("recommend", run, "--history", "nope", "-k", 2)
    assert "fallback: no known item" in text_of(unknown.out)
    assert "'nope'" in unknown.err
    assert "fallback: unknown user" in text_of(succeed("recommend", run, "--user", "stranger", "-k", 2).out)


def test_everybody_is_written_one_row_per_user_and_rank(run: Path, tmp_path: Path) -> None:
    out = succeed("recommend", run, "--all-users", "--out", tmp_path / "all.csv", "-k", 3).out
    table = pd.read_csv(tmp_path / "all.csv")
    assert f"{len(table):,} rows" in out
    assert table["user_id"].nunique() == 80
    assert not table.duplicated(["user_id", "rank"]).any()
    assert left_in(tmp_path) == ["all.csv"]


def test_file_of_two_workers_is_that_of_one(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommend_all, "USERS_AT_ONCE", 30)
    files = [tmp_path / "one.parquet", tmp_path / "two.parquet"]
    for workers, file in enumerate(files, start=1):
        succeed("recommend", run, "--all-users", "--out", file, "-k", 3, "--workers", workers)
    one, two = (pd.read_parquet(file) for file in files)
    pd.testing.assert_frame_equal(one, two)
    refuse("--workers and --approximate are for --all-users", "recommend", run, "--user", "u01", "--workers", 2)
    refuse("Give 1 or more", "recommend", run, "--all-users", "--out", files[0], "--workers", 0)


def test_everybody_is_answered_through_an_index(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    copytree(run, tmp_path / "run")
    words = ["recommend", tmp_path / "run", "--all-users", "-k", 3, "--ranks-only", "--out"]
    refuse("Run: variseq export", *words, tmp_path / "all.parquet", "--approximate")
    for name, number in {"EXACT_ITEMS": 5, "NUM_TRENDING": 5, "NUM_CANDIDATES": 12, "NUM_SAMPLED": 10}.items():
        monkeypatch.setattr(f"variseq.{'export' if name == 'EXACT_ITEMS' else 'ranking.index'}.{name}", number)
    assert re.search(r"finds (9\d|100)\.\d% of the ten best", succeed("export", tmp_path / "run").out)
    succeed(*words, tmp_path / "approximate.parquet", "--approximate")
    succeed(*words, tmp_path / "exact.parquet")
    found, exact = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("approximate", "exact"))
    assert (found["item_id"] == exact["item_id"]).mean() > 0.9


def test_options_hold_for_everybody_too(run: Path, tmp_path: Path) -> None:
    words = ["recommend", run, "--all-users", "--out", tmp_path / "all.parquet", "-k", 5, "--include-seen"]
    model = load(run)
    everybody = model.vocabulary.users.to_pylist()
    (garden,) = {row for row in model.recommend(everybody, categories=["Garden"]).to_pandas()["item_id"].head(1)}
    succeed(*words, "--categories", "Garden", "--exclude", garden)
    items = set(pd.read_parquet(tmp_path / "all.parquet")["item_id"])
    assert items
    assert garden not in items
    assert items <= set(
        model.recommend(everybody, categories=["Garden"], exclude_seen=False, k=30).to_pandas()["item_id"]
    )
    succeed(*words, "--candidates", "i01,i02")
    assert set(pd.read_parquet(tmp_path / "all.parquet")["item_id"]) == {"i01", "i02"}


def test_exclude_only_category_and_seen_items_are_obeyed(run: Path) -> None:
    model = load(run)
    first = model.recommend(users=["u01"], k=1).to_pandas()["item_id"].item()
    new = model.recommend(users=["u01"], k=30, exclude_seen=True).to_pandas()
    assert f"({first})" not in succeed("recommend", run, "--user", "u01", "--exclude", first, "-k", 3).out
    only = succeed("recommend", run, "--user", "u01", "--candidates", first, "-k", 3).out
    assert f"({first})" in only
    assert "│    2 │" not in only
    garden = succeed("recommend", run, "--user", "u01", "--categories", "Garden", "-k", 3).out
    assert "Garden no." in garden
    assert "Kitchen no." not in garden.split("reasons")[-1].split("Garden no.")[0]
    assert "│   30 │" in succeed("recommend", run, "--user", "u01", "--include-seen", "-k", 30).out
    unseen = succeed("recommend", run, "--user", "u01", "--exclude-seen", "-k", 30).out
    assert len(new) < 30
    assert unseen.count("(i") == len(new)


def test_nothing_left_to_recommend_is_said(run: Path) -> None:
    finished = succeed("recommend", run, "--user", "u01", "--candidates", "i01", "--exclude", "i01")
    assert "nothing to recommend for user u01" in finished.err
    finished = succeed("recommend", run, "--history", "i01", "--candidates", "i01", "--exclude-seen")
    assert "nothing to recommend for this history" in finished.err


WRONG_QUESTIONS = {
    "nobody": ([], "--user ID .*--history i9,i3 or --all-users"),
    "user and history": (["--user", "u01", "--history", "i01"], "one of --user"),
    "user and everybody": (["--user", "u01", "--all-users", "--out", "all.csv"], "one of --user"),
    "everybody without a file": (["--all-users"], "--all-users and --out FILE go together"),
    "a file for one user": (["--user", "u01", "--out", "all.csv"], "go together"),
    "k of nothing": (["--user", "u01", "-k", "0"], "k=0 is not possible. Allowed: whole numbers from 1"),
    "k below nothing": (["--user", "u01", "-k", "-3"], "k=-3 is not possible"),
    "empty history": (["--history", ""], "--history '' has no item id"),
    "history of commas": (["--history", " , "], "has no item id"),
    "empty option": (["--user", "u01", "--candidates", ""], "--candidates '' has no item id"),
    "unknown candidate": (["--user", "u01", "--candidates", "nope"], "not in the catalog: 'nope'"),
    "unknown category": (["--user", "u01", "--categories", "Cars"], "No item has the category 'Cars'. There are: "),
    "unknown ending": (["--all-users", "--out", "all.xlsx"], r"\.parquet or \.csv"),
    "unknown folder": (["--all-users", "--out", "nowhere/all.csv"], "nowhere/all.csv cannot be written"),
    "boost without a factor": (["--user", "u02", "--boost-items", "i05"], "Give it as NAME=VALUE, for example"),
    "boost of no number": (["--user", "u02", "--boost-items", "i05=much"], "Allowed: positive numbers"),
}


@pytest.mark.parametrize("case", WRONG_QUESTIONS)
def test_wrong_question_is_one_message_and_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words, told = WRONG_QUESTIONS[case]
    refuse(told, "recommend", run, *words)
    assert left_in(tmp_path) == []


def test_word_that_is_no_number_is_refused_by_its_flag(run: Path) -> None:
    finished = variseq("recommend", run, "--user", "u01", "-k", "ten")
    assert finished.code == 2
    assert "'-k'" in finished.err


def test_records_are_those_of_python_with_boosts_and_pins(run: Path) -> None:
    words = ("--boost-items", "i05=3", "--boost-items", "i07=0.5", "--pin", "2=i09", "-k", 6, "--include-seen")
    printed = json.loads(succeed("recommend", run, "--user", "u02", *words, "--json").out)
    wanted = {"boost_items": {"i05": 3.0, "i07": 0.5}, "pin": {2: "i09"}, "exclude_seen": False}
    called = load(run).recommend(users=["u02"], k=6, **wanted).to_pandas()
    assert [row["item_id"] for row in printed] == called["item_id"].tolist()
    assert printed[1]["item_id"] == "i09"
    assert [row["probability"] for row in printed] == pytest.approx(called["probability"].tolist(), rel=1e-6)


def test_k_beyond_the_catalog_gives_all_of_it_and_warns(run: Path) -> None:
    finished = succeed("recommend", run, "--user", "u01", "-k", 31, "--include-seen", "--ranks-only", "--json")
    assert len(json.loads(finished.out)) == 30
    assert "30 items" in finished.err


def test_next_event_is_told_as_python_tells_it(run: Path) -> None:
    out = succeed("when", run, "--user", "u01", "--within", "1d,2w", "--json").out
    (row,) = json.loads(out)
    expected = load(run).when(["u01"], within=["1d", "2w"])
    assert row["within 2w"] == pytest.approx(expected["within 2w"][0])
    assert row["median"][:19] == expected["median"][0].isoformat()[:19]
    assert "within 7d" in text_of(succeed("when", run, "--user", "u01", "--at", "2026-01-01T00:00:00Z").out)
    refuse("not a duration", "when", run, "--user", "u01", "--within", "soon")
    refuse("has no zone", "when", run, "--user", "u01", "--at", "2026-01-01T00:00:00")
