"""`variseq check` says what is in a log, what is wrong with it, and obeys each of its flags."""

from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import pytest

from tests.terminal.invoke import refuse, succeed

LOG = """uid;sku;when;action;price
u1;i1;1600000000;view;1.5
u1;i1;1600000001;view;
u1;i2;1600000002;buy;2
u2;i1;1600000003;view;
u2;i2;1600000004;view;x
;i2;1600000005;view;1
"""
NAMES = "user_id=uid,item_id=sku,timestamp=when,event=action,value=price"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "log.csv").write_text(LOG)
    return tmp_path / "log.csv"


def test_check_counts_rows_reasons_behaviors_and_span(log: Path) -> None:
    out = succeed("check", log, "--columns", NAMES).out
    assert "6 rows read, 5 events kept: 2 users, 2 items" in out
    assert "missing user" in out
    assert "1 values in 'price' could not be read" in out
    assert "buy 1, view 4" in out
    assert "2020-09-13 12:26:40" in out
    assert "user_id = uid" in out


def test_rejected_rows_are_written_with_row_and_reason(log: Path, tmp_path: Path) -> None:
    succeed("check", log, "--columns", NAMES, "--rejects", tmp_path / "rejects.csv")
    rejects = pd.read_csv(tmp_path / "rejects.csv")
    assert dict(zip(rejects["row"], rejects["reason"], strict=True)) == {6: "missing user"}


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--delimiter", ";"], "5 events kept"),
        (["--time-unit", "milliseconds"], "1970-01-19"),
        (["--min-user-events", "3"], "1 users"),
        (["--min-item-events", "3"], "3 events kept"),
        (["--collapse-repeats"], "4 events kept"),
        (["--missing-value", "zero"], "5 events kept"),
        (["--memory-limit", "200MB"], "5 events kept"),
    ],
)
def test_flag_of_check_is_obeyed(log: Path, flags: list[str], told: str) -> None:
    assert told in succeed("check", log, "--columns", NAMES, *flags).out


def test_items_file_is_looked_at(log: Path, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title\ni1,Rake\ni9,Hose\n")
    out = succeed("check", log, "--columns", NAMES, "--items", tmp_path / "items.csv").out
    assert "1 rows of the items file belong to no item of the log" in " ".join(out.split())


def test_several_files_globs_and_gzip_are_one_log(log: Path, tmp_path: Path) -> None:
    (tmp_path / "more.csv.gz").write_bytes(gzip.compress(b"uid;sku;when;action;price\nu3;i3;1600000009;view;1\n"))
    assert "3 users, 3 items" in succeed("check", log, tmp_path / "more.csv.gz", "--columns", NAMES).out
    assert "3 users, 3 items" in succeed("check", f"{tmp_path}/*.csv*", "--columns", NAMES).out


def test_warnings_name_what_is_odd(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,ts\na,x,1600000000\na,y,1600000000\n")
    out = succeed("check", tmp_path / "log.csv").out
    assert "only one user" in out
    assert "same time" in out


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--columns", "user_id=uid,sku"], "user_id=uid,item_id=sku"),
        (["--columns", "person=uid"], "'person'.*user_id, item_id"),
        (["--columns", "user_id=nobody"], "'nobody'.*uid, sku"),
        (["--time-unit", "fortnights"], "time_unit = 'fortnights'.*'seconds'"),
        (["--missing-value", "guess"], "missing_value = 'guess'.*'keep'"),
        (["--memory-limit", "lots"], "memory_limit = 'lots'"),
        (["--min-user-events", "0"], "min_user_events = 0.*greater than or equal to 1"),
        (["--delimiter", "|"], "only one column"),
        (["--rejects", "rejects.txt"], r"\.csv or \.parquet"),
        (["--rejects", "nowhere/rejects.csv"], "could not be written"),
        (["--items", "nowhere.csv"], "nowhere.csv does not exist"),
    ],
)
def test_wrong_flag_of_check_is_one_message(log: Path, flags: list[str], told: str) -> None:
    names = [] if "--columns" in flags else ["--columns", NAMES]
    refuse(told, "check", log, *names, *flags)


def test_format_and_zone_of_times_are_obeyed(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,ts\na,x,01/07/20 12:00\nb,y,02/07/20 12:00\n")
    flags = ("--time-format", "%d/%m/%y %H:%M", "--time-zone", "Europe/Berlin")
    assert "2020-07-01 10:00:00 to 2020-07-02 10:00:00" in succeed("check", tmp_path / "log.csv", *flags).out
