"""Ids and titles that look like markup, emoji codes, options or terminal codes: shown and named as they are."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import pytest

from tests.terminal.invoke import Finished, refuse, succeed, variseq
from tests.terminal.shop import QUICK
from variseq.estimator import load
from variseq.output.printable import printable

pytestmark = pytest.mark.slow

ODD = [
    *("urn:id:7", "a:new:1", "x:100:y", "[import] Foo", "[/b]", "Foo, Bar", "i=9", "007", "été", "日本", "🎸"),
    *("p  ad", '"q"', "tab\there", "a\x1b[31mred", "<b>x</b>", "https://x/y?a=1&b=2", "NULLS", "-5", "line\nend"),
    *("[link=file:///etc]", "\u202eback", "x" * 300, "C:\\new", "--only"),
]
LONG = "x" * 300
loaded_once = functools.cache(load)


@pytest.fixture(scope="module")
def odd_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Events on odd items in JSON lines, which can hold every character; items and settings beside them."""
    folder = tmp_path_factory.mktemp("odd [b]:new:")
    events = [
        {"user_id": f"[u]:{user}:", "item_id": ODD[(user * 5 + place * 7) % len(ODD)], "timestamp": 1.7e9 + place}
        for user in range(30)
        for place in range(12)
    ]
    items = [{"item_id": item, "title": f"[bold]{item}[/bold] :heart:", "category": "[c]:id:"} for item in ODD]
    for name, rows in (("log.jsonl", events), ("items.jsonl", items)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "quick.yaml").write_text(QUICK, encoding="utf-8")
    return folder / "log.jsonl"


@pytest.fixture(scope="module")
def odd_fit(odd_log: Path) -> Finished:
    words = ("--out", odd_log.with_name("run"), "--config", odd_log.with_name("quick.yaml"))
    return succeed("fit", odd_log, "--items", odd_log.with_name("items.jsonl"), *words)


@pytest.fixture
def odd_run(odd_log: Path, odd_fit: Finished, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setattr("variseq.terminal.recommend.load", loaded_once)
    return odd_log.with_name("run")


def is_harmless(text: str) -> bool:
    """Whether a terminal would be moved by nothing but the ends of lines."""
    return not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)


def test_every_id_and_title_is_in_the_table_character_by_character(odd_run: Path) -> None:
    out = succeed("recommend", odd_run, "--user", "[u]:1:", "-k", len(ODD), "--include-seen").out
    for item in ODD:
        assert f"[bold]{printable(item)}[/bold] :heart: ({printable(item)})" in out
    assert "│ [u]:1: │" in out
    assert is_harmless(out)


def test_long_id_folds_and_is_whole(odd_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    out = succeed("recommend", odd_run, "--user", "[u]:1:", "--candidates", LONG, "-k", 1, "--include-seen").out
    letters = "".join(line.split("│")[3].strip() for line in out.splitlines() if line.startswith("│"))
    assert letters.replace(" ", "") == f"[bold]{LONG}[/bold]:heart:({LONG})"
    assert "…" not in out


def test_fit_and_evaluate_name_the_folder_as_it_is(odd_fit: Finished, odd_run: Path) -> None:
    assert f"Run: {odd_run}" in odd_fit.out
    assert is_harmless(odd_fit.out + odd_fit.err)
    assert f"variseq minus '{odd_run}'" in succeed("evaluate", odd_run, "--compare-with", odd_run).out
    assert f" of {odd_run} minus that of {odd_run}" in succeed("compare", odd_run, odd_run).out


def test_columns_and_behaviors_are_shown_by_check_as_they_are(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("who,[b]:id:,when,act\na,x,1600000000,:new:\nb,y,1600000001,[red]\nc,z,1600000002,a\x1bb\n")
    columns = "user_id=who,item_id=[b]:id:,timestamp=when,event=act"
    out = succeed("check", log, "--columns", columns).out
    assert "item_id = [b]:id:" in out
    assert all(f"{name} 1" in out for name in (":new:", "[red]", r"a\x1bb"))
    assert is_harmless(out)


def test_error_shows_a_path_as_it_is_on_one_line(tmp_path: Path) -> None:
    refuse(re.escape(r"[b]:new:\x1b\n.csv"), "check", tmp_path / "[b]:new:\x1b\n.csv")


@pytest.mark.slow
@pytest.mark.parametrize("item", ODD)
def test_every_id_can_be_named_by_every_option(odd_run: Path, item: str) -> None:
    asked = ("recommend", odd_run, "--include-seen", "--ranks-only", "--json", "-k", 3)
    whole = succeed(*asked, "--history-json", json.dumps([item])).out
    assert json.loads(succeed(*asked, f"--history={item}").out) == json.loads(whole)
    assert not any(row["fallback"] for row in json.loads(whole))
    (only,) = json.loads(succeed(*asked, "--user", "[u]:2:", f"--candidates={item}").out)
    assert only["item_id"] == item
    pinned = json.loads(succeed(*asked, "--user", "[u]:2:", f"--pin=2={item}").out)
    assert pinned[1]["item_id"] == item
    boosted = json.loads(succeed(*asked, "--user", "[u]:2:", f"--boost-items={item}=1e30").out)
    assert boosted[0]["item_id"] == item
    left = json.loads(succeed(*asked, "-k", len(ODD), "--user", "[u]:2:", f"--exclude={item}").out)
    assert {row["item_id"] for row in left} == set(ODD) - {item}


def test_repeated_option_takes_each_text_as_one_id_and_a_single_one_is_parted_at_commas(odd_run: Path) -> None:
    asked = ("recommend", odd_run, "--user", "[u]:2:", "--include-seen", "--ranks-only", "--json")

    def chosen(*words: str) -> set[str]:
        return {row["item_id"] for row in json.loads(succeed(*asked, *words).out)}

    assert chosen("--candidates", "Foo, Bar", "--candidates", "i=9") == {"Foo, Bar", "i=9"}
    assert chosen("--candidates", "i=9,  p  ad ,007") == {"i=9", "p  ad", "007"}
    assert chosen("--candidates", " i=9 , 007") == {"i=9", "007"}
    refuse(r"--candidates names items .* 'i=9,007'", *asked, "--candidates", "i=9,007", "--candidates", "007")


def test_category_is_boosted_by_its_whole_name(odd_run: Path) -> None:
    asked = ("recommend", odd_run, "--user", "[u]:2:", "--include-seen", "--json")
    assert succeed(*asked, "--boost-categories", "[c]:id:=2").out != succeed(*asked).out
    refuse(r"'\[C\]'.*\[c\]:id:", *asked, "--boost-categories", "[C]=2")


def test_unknown_id_is_named_with_the_id_that_was_probably_meant(odd_run: Path) -> None:
    asked = ("recommend", odd_run, "--user", "[u]:2:", "-k", 1)
    for words in (("--candidates", "URN:ID:7"), ("--pin", "1=URN:ID:7"), ("--boost-items", "URN:ID:7=2")):
        refuse(r"'URN:ID:7' \(did you mean 'urn:id:7'\?\)", *asked, *words)
    assert "did you mean 'urn:id:7'" in succeed(*asked, "--exclude", "URN:ID:7").err
    assert "did you mean 'urn:id:7'" in succeed("recommend", odd_run, "--history", "URN:ID:7", "-k", 1).err
    assert "did you mean '[u]:2:'" in succeed("recommend", odd_run, "--user", "[U]:2:", "-k", 1).out


@pytest.mark.parametrize("text", ["", "i=9", '{"a": 1}', "[1.5]", "[true]", "[null]", '[["i=9"]]'])
def test_history_that_is_no_json_list_of_ids_is_refused(odd_run: Path, text: str) -> None:
    refuse("is no JSON list of ids", "recommend", odd_run, "--history-json", text)


@pytest.mark.parametrize("text", ["i=9", "=i=9", "1=", "1.5=i=9", "-1=i=9"])
def test_pin_without_rank_or_item_is_refused(odd_run: Path, text: str) -> None:
    refuse("Give a rank and an item", "recommend", odd_run, "--user", "[u]:2:", f"--pin={text}")


def test_integer_ids_are_named_as_numbers(integer_run: Path) -> None:
    asked = ("recommend", integer_run, "--ranks-only", "--json", "-k", 2, "--include-seen")
    by_json = succeed(*asked, "--history-json", "[901, 902]").out
    assert by_json == succeed(*asked, "--history", "901,902").out
    assert by_json == succeed(*asked, "--history", "901", "--history", "902").out
    assert variseq(*asked, "--history-json", '["x"]').code == 2


def test_history_of_json_takes_events_with_their_times(odd_run: Path) -> None:
    asked = ["recommend", odd_run, "-k", 3, "--ranks-only", "--json", "--history-json"]
    events = [{"item_id": "i=9", "timestamp": 1600000000}, {"item_id": "Foo, Bar", "timestamp": 1600500000}]
    in_order = json.loads(succeed(*asked, json.dumps(events)).out)
    turned = json.loads(succeed(*asked, json.dumps(events[::-1])).out)
    assert in_order == turned  # the times order them
    assert in_order != json.loads(succeed(*asked, json.dumps([{"item_id": "i=9"}])).out)
