"""Names of columns are recognized, shown, and never guessed when two would fit."""

import pyarrow as pa
import pytest

from variseq.errors import InputError
from variseq.events.columns import ITEM_ALIASES, find_columns
from variseq.events.options import ReadOptions
from variseq.events.read import read


@pytest.mark.parametrize(
    "names",
    [
        ["user_id", "item_id", "timestamp"],
        ["userId", "movieId", "timestamp"],
        ["visitorid", "itemid", "timestamp"],
        ["SessionId", "Article ID", "Time"],
        ["UID", "sku", "ts"],
        ["user_id:token", "item_id:token", "timestamp:float"],
        ["reviewerID", "asin", "unixReviewTime"],
        ["Customer-ID", "StockCode", "InvoiceDate"],
    ],
)
def test_usual_names_are_recognized(names: list[str]) -> None:
    assert list(find_columns(names, {}).values()) == names


def test_canonical_name_wins_over_aliases() -> None:
    found = find_columns(["uid", "user_id", "item", "item_id", "date", "timestamp", "sessionid"], {})
    assert found == {"user_id": "user_id", "item_id": "item_id", "timestamp": "timestamp"}


def test_user_wins_over_session_and_rating_over_price() -> None:
    found = find_columns(["session", "user", "item", "ts", "price", "rating"], {})
    assert (found["user_id"], found["value"]) == ("user", "rating")


def test_optional_column_can_be_left_out() -> None:
    assert "value" not in find_columns(["user", "item", "ts", "price"], {"value": ""})


def test_chosen_names_must_exist_and_be_canonical() -> None:
    with pytest.raises(InputError, match="says that user_id is 'who', but the columns are: user, item, ts"):
        find_columns(["user", "item", "ts"], {"user_id": "who"})
    with pytest.raises(InputError, match="none of: user_id"):
        find_columns(["user", "item", "ts"], {"person": "user"})


def test_two_candidates_are_refused() -> None:
    with pytest.raises(InputError, match=r"could be timestamp: ts, date\. .*columns=\{'timestamp': 'ts'\}"):
        find_columns(["user", "item", "ts", "date"], {})


def test_item_columns_have_names_of_their_own() -> None:
    found = find_columns(["id", "movie_title", "Genres", "year"], {}, ITEM_ALIASES, required=("item_id",))
    assert found == {"item_id": "id", "title": "movie_title", "category": "Genres"}


def test_chosen_columns_are_used_and_reported() -> None:
    table = pa.table({"who": ["a"], "what": ["b"], "when": [1600000000]})
    columns = {"user_id": "who", "item_id": "what", "timestamp": "when"}
    report = read(table, options=ReadOptions(columns=columns)).report
    assert report.columns == columns
    assert "user_id = who" in str(report)
