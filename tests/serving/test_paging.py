"""A token for the next page gives the very items back, and nothing else that is sent as one does harm."""

from __future__ import annotations

import base64

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from variseq.errors import InputError
from variseq.events.vocabulary import Vocabulary
from variseq.serving.pages import MAX_SHOWN, next_page, shown_items
from variseq.serving.schemas import MAX_TOKEN

ITEMS = Vocabulary(pa.array([], pa.int64()), pa.array([10 * n for n in range(100_000)]), ("event",))


def token_of(content: object) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(content)).decode().rstrip("=")


@given(st.lists(st.integers(0, 99_999), min_size=1, max_size=MAX_SHOWN, unique=True))
def test_token_gives_the_items_back_and_fits_a_request(positions: list[int]) -> None:
    token = next_page("abc", ITEMS, [10 * position for position in positions])
    assert token is not None
    assert len(token) <= MAX_TOKEN
    assert shown_items(token, "abc", ITEMS) == [10 * position for position in positions]


def test_pages_end_after_a_thousand_items() -> None:
    assert next_page("abc", ITEMS, [10 * position for position in range(MAX_SHOWN)]) is not None
    assert next_page("abc", ITEMS, [10 * position for position in range(MAX_SHOWN + 1)]) is None
    assert next_page("abc", ITEMS, []) is None


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_anything_else_is_refused(token: str) -> None:
    with pytest.raises(InputError):
        shown_items(token, "abc", ITEMS)


@pytest.mark.parametrize(
    "content",
    [
        ["abc", []], ["abc", [-1]], ["abc", [100_000]], ["abc", [1, 1]], ["abc", ["1"]], ["abc", [1.5]],
        ["abc", [True]],
        ["abc", [1], 2], ["abc"], [], {}, {"model": "abc", "shown": [1]}, ["abc", [2**63]], ["abc", list(range(1001))],
        ["x" * 65, [1]], [7, [1]], None,
    ],
)  # fmt: skip
def test_token_that_was_made_up_is_refused(content: object) -> None:
    with pytest.raises(InputError, match="no token of this server"):
        shown_items(token_of(content), "abc", ITEMS)


def test_token_of_another_model_says_to_start_again() -> None:
    with pytest.raises(InputError, match="Start again"):
        shown_items(token_of(["other", [1]]), "abc", ITEMS)
