"""Each kind of bad data or damaged run is one message with exit code 2, and nothing is left behind."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pandas as pd
import pytest

import variseq
from tests.terminal.invoke import refuse, succeed
from tests.terminal.shop import left_in, quick_fit
from variseq.errors import InputError

HEADER = b"user,item,ts\n"
BAD_LOGS = {
    "empty file": (b"", "is empty"),
    "header only": (HEADER, "no rows, only a header"),
    "missing column": (b"user,item,color\na,b,c\n", "No column for timestamp.*user, item, color.*--columns"),
    "wrong delimiter": (b"user^item^ts\na^b^1600000000\n", r"only one column.*--delimiter"),
    "all rows invalid": (HEADER + b",i,1600000000\nu,i,never\n", "No valid event.*missing user.*unparsable time"),
    "negative times": (HEADER + b"u,i,-5\nu,j,-7\n", "No valid event.*absurd time"),
    "year 9999": (HEADER + b"u,i,9999-12-31\nu,j,9999-12-30\n", "No valid event.*absurd time"),
    "dates that can be read in two ways": (HEADER + b"u,i,01/02/2020\nu,j,03/04/2020\n", "two ways.*--time-unit"),
    "binary file": (random.Random(1).randbytes(4000), "binary file"),
    "invalid UTF-8": (HEADER + b"\xff\xfe,i,1600000000\n", "No valid event.*invalid UTF-8"),
    "10 MB line": (b"z" * 10_000_000, "no header line"),
    "one user": (HEADER + b"".join(b"u,i%d,%d\n" % (n, 1_600_000_000 + n) for n in range(30)), "1 user"),
    "one item": (HEADER + b"".join(b"u%d,i,%d\n" % (n, 1_600_000_000 + n) for n in range(30)), "1 item"),
    "single events": (HEADER + b"".join(b"u%d,i%d,%d\n" % (n, n % 3, 1_600_000_000 + n) for n in range(9)), "split"),
}


@pytest.mark.parametrize("case", BAD_LOGS)
def test_bad_log_is_one_message_and_leaves_nothing(shop_file: Path, tmp_path: Path, case: str) -> None:
    content, told = BAD_LOGS[case]
    (tmp_path / "log.csv").write_bytes(content)
    config = shop_file.with_name("quick.yaml")
    refuse(told, "fit", tmp_path / "log.csv", "--out", tmp_path / "run", "--config", config)
    assert left_in(tmp_path) == ["log.csv"]


def test_constant_times_are_answered_with_the_split_that_can_be_had(shop_file: Path, tmp_path: Path) -> None:
    rows = [f"u{n % 6},i{n % 7},1600000000" for n in range(42)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,ts", *rows]))
    words = ["fit", tmp_path / "log.csv", "--out", tmp_path / "run", "--config", shop_file.with_name("quick.yaml")]
    refuse("All events have the same time.*leave-one-out", *words, "--split", "time")
    assert left_in(tmp_path) == ["log.csv"]
    succeed(*words, "--split", "leave-one-out", "--set", "training.max_epochs=1", "--quiet")


def test_log_without_an_order_to_learn_from_is_refused(tmp_path: Path) -> None:
    rows = [f"u{n},i{n % 3},{1_600_000_000 + n}" for n in range(30)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,ts", *rows]))
    words = ["fit", tmp_path / "log.csv", "--out", tmp_path / "run", "--split", "time", "--size", "tiny"]
    refuse("No user has two events in the training part", *words)
    assert left_in(tmp_path) == ["log.csv"]


def test_mixed_id_types_are_refused() -> None:
    frame = pd.DataFrame({"user": pd.Series(["a", 1], dtype=object), "item": [1, 2], "ts": [1_600_000_000] * 2})
    with pytest.raises(InputError, match="mixed types"):
        variseq.read(frame)


def test_bad_rows_among_good_ones_are_counted_and_left_out(shop_file: Path, tmp_path: Path) -> None:
    bad = [b"u01,i01,-5,view,1", b"u01,i01,9999-12-31,view,1", b"u01,i01,2024-01-05,view,NaN", b"u01,i01"]
    bad += [b"u01,i02,2024-01-05,view,inf", b"\xff\xfe,i01,2024-01-05,view,1", b",i01,2024-01-05,view,1"]
    (tmp_path / "log.csv").write_bytes(shop_file.read_bytes() + b"\n".join(bad) + b"\n")
    out = succeed("check", tmp_path / "log.csv").out
    for reason in ("absurd time", "invalid UTF-8", "missing user", "wrong number of fields"):
        assert reason in out
    assert "1 values in" in out
    assert f"{len(shop_file.read_text().splitlines()) + 1:,} events kept" in out  # an odd value costs no event


def test_doubled_items_are_refused_by_name(shop_file: Path, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title\ni01,Rake\ni02,Hose\ni01,Spade\n")
    words = quick_fit(shop_file, tmp_path / "run", "--items", tmp_path / "items.csv")
    refuse(r"'i01' \(2 rows\).*one row for each item", *words)
    assert left_in(tmp_path) == ["items.csv"]


@pytest.mark.parametrize(
    "words", [["evaluate"], ["recommend", "--user", "u01"], ["diagnose"]], ids=lambda words: words[0]
)
def test_folder_that_is_no_run_or_a_damaged_one_is_one_message(run: Path, tmp_path: Path, words: list[str]) -> None:
    command, *more = words
    refuse("does not exist", command, tmp_path / "nowhere", *more)
    refuse("is no run|no finished run", command, tmp_path, *more)
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    for name, content in (("config.yaml", b""), ("metrics.jsonl", b"\x00\xff"), ("manifest.json", b"{}")):
        (copied / name).write_bytes(content)
        refuse("damaged|cannot be read", command, copied, *more)
        shutil.copy(run / name, copied / name)
