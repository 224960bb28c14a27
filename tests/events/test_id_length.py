"""Ids are as long when they are read as when they are served."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa

from variseq.events.options import ReadOptions
from variseq.events.read import read
from variseq.events.vocabulary import MAX_ID_BYTES

LONGEST, LONGER = "ü" * (MAX_ID_BYTES // 2), "ü" * (MAX_ID_BYTES // 2) + "x"


def test_ids_up_to_the_limit_are_read_and_longer_ones_rejected_with_a_reason(tmp_path: Path) -> None:
    lines = [("u1", "i1"), (LONGEST, LONGEST), (LONGER, "i1"), ("u2", LONGER)]
    text = "".join(f"{user},{item},1600000000\n" for user, item in lines)
    (tmp_path / "log.csv").write_text("user,item,ts\n" + text, encoding="utf-8")
    events = read(tmp_path / "log.csv", options=ReadOptions(rejects=tmp_path / "rejects.csv"))
    assert events.vocabulary.users.to_pylist() == ["u1", LONGEST]
    assert events.vocabulary.items.to_pylist() == ["i1", LONGEST]
    assert events.report.rejected == {"too long item": 1, "too long user": 1}
    rejects = pd.read_csv(tmp_path / "rejects.csv")
    assert dict(zip(rejects["row"], rejects["reason"], strict=True)) == {3: "too long user", 4: "too long item"}


def test_whole_numbers_are_never_too_long() -> None:
    table = pa.table({"user": [2**63 - 1, -(2**63)], "item": [2**53 + 1] * 2, "ts": [1600000000, 1600000001]})
    assert read(table).report.rejected == {}
