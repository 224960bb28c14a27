"""Tables of users: columns in the order of the vocabulary, whatever holds them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from variseq.errors import InputError
from variseq.events.items import read_users
from variseq.events.vocabulary import Vocabulary

TEXT_IDS = Vocabulary(pa.array(["007", "anna", "bob"]), pa.array(["a"]), ("event",))
WHOLE_IDS = Vocabulary(pa.array([7, 12, 300]), pa.array(["a"]), ("event",))


def test_every_source_gives_the_same_columns(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "user_id": ["bob", "007", "nobody"],
            "country": ["DE", "FR", "FR"],
            "age": [31, 17, 5],
            "vip": [True, False, True],
        }
    )
    table.to_csv(tmp_path / "users.csv", index=False)
    table.to_parquet(tmp_path / "users.parquet")
    table.to_json(tmp_path / "users.jsonl", orient="records", lines=True)
    for source in (table, pl.from_pandas(table), tmp_path / "users.csv", tmp_path / "users.parquet",
                   tmp_path / "users.jsonl"):  # fmt: skip
        columns = read_users(source, TEXT_IDS)
        assert columns["country"] == ["FR", None, "DE"]
        assert columns["age"] == [17.0, None, 31.0]
        vip = [None if value is None else value.lower() for value in map(str, columns["vip"])]
        assert vip == ["false", "none", "true"]


def test_whole_ids_match_numbers_and_their_digits(tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("user_id,plan\n12,free\n300,\nx,paid\n007,paid\n")
    assert read_users(tmp_path / "users.csv", WHOLE_IDS) == {"plan": [None, "free", None]}
    assert read_users(pa.table({"user_id": [7, 8], "plan": ["a", "b"]}), WHOLE_IDS) == {"plan": ["a", None, None]}


def test_names_and_values_that_mean_harm_are_only_text() -> None:
    name = 'plan"; DROP TABLE raw; --'
    table = pa.table({"user_id": ["bob"], name: ["'); DROP TABLE raw; --"]})
    assert read_users(table, TEXT_IDS) == {name: [None, None, "'); DROP TABLE raw; --"]}


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"uid": ["bob"], "age": [3]}, "needs a column 'user_id'"),
        ({"user_id": ["bob"]}, "at least one more to group by"),
        ({"user_id": ["bob", "bob"], "age": [3, 4]}, r"1 ids in more than one row: 'bob' \(2 rows\)"),
        ({"user_id": ["eve"], "age": [3]}, "the log has ids like '007', the table like 'eve'"),
    ],
)
def test_table_that_cannot_be_used_is_refused(table: dict[str, list[object]], told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_users(pa.table(table), TEXT_IDS)
