"""Ids go in and come out unchanged; what is unknown says so."""

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from variseq.errors import CheckpointError, InputError
from variseq.events.vocabulary import Vocabulary


@settings(max_examples=30)
@given(st.sets(st.integers(-(2**63), 2**63 - 1), min_size=1), st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_integer_ids_go_round(known: set[int], others: list[int]) -> None:
    vocabulary = Vocabulary(pa.array(sorted(known), pa.int64()), pa.array(["x"]), ("event",))
    positions = vocabulary.user_positions(sorted(known))
    assert positions.tolist() == list(range(len(known)))
    assert vocabulary.user_ids(positions) == sorted(known)
    expected = [sorted(known).index(other) if other in known else -1 for other in others]
    assert vocabulary.user_positions(others).tolist() == expected
    assert vocabulary.user_positions(np.array(others, dtype=np.int64)).tolist() == expected


@settings(max_examples=30)
@given(st.sets(st.text(st.characters(exclude_categories=["Cs"])), min_size=1), st.lists(st.text(max_size=3)))
def test_text_ids_go_round(known: set[str], others: list[str]) -> None:
    ids = sorted(known, key=str.encode)
    vocabulary = Vocabulary(pa.array([1]), pa.array(ids, pa.string()), ("event",))
    assert vocabulary.item_ids(vocabulary.item_positions(ids)) == ids
    assert vocabulary.item_positions(others).tolist() == [
        ids.index(other) if other in known else -1 for other in others
    ]


@settings(max_examples=40)
@given(st.data(), st.sampled_from([0, 3, 100]))
def test_look_up_equals_a_dictionary_for_any_text_one_by_one_and_together(data: st.DataObject, repeats: int) -> None:
    text = st.text(st.sampled_from("ab7éÅ\uffff😀\0 "), max_size=3) | st.text(max_size=2)
    valid = text.filter(lambda one: one.encode(errors="replace") == one.encode(errors="ignore"))
    known = data.draw(st.lists(valid, unique=True, max_size=40), "known")
    num_added = data.draw(st.integers(0, len(known)), "number added")
    sorted_ones = duckdb.sql("SELECT unnest($ids) AS id ORDER BY id", params={"ids": known[num_added:]}).fetchall()
    ids = [row[0] for row in sorted_ones] + known[:num_added]
    vocabulary = Vocabulary(pa.array([1]), pa.array(ids, pa.string()), ("event",), num_added)
    position_of = {one: position for position, one in enumerate(ids)}
    wanted = data.draw(st.lists(text | st.sampled_from([*known, "\ud800"])), "wanted") * (1 + repeats)
    assert vocabulary.item_positions(wanted).tolist() == [position_of.get(one, -1) for one in wanted]
    assert vocabulary.item_positions(ids).tolist() == list(range(len(ids)))


@settings(max_examples=20)
@given(st.sets(st.integers(-(2**63), 2**63 - 1)), st.lists(st.integers(-(2**65), 2**65)), st.sampled_from([1, 30]))
def test_integers_of_any_size_are_looked_up(known: set[int], others: list[int], repeats: int) -> None:
    ids = sorted(known)
    vocabulary = Vocabulary(pa.array(ids, pa.int64()), pa.array(["x"]), ("event",))
    wanted = [*ids, *others] * repeats
    assert vocabulary.user_positions(wanted).tolist() == [ids.index(one) if one in known else -1 for one in wanted]
    assert vocabulary.user_positions(np.array(ids, dtype=np.int64)).tolist() == list(range(len(ids)))


def test_ids_of_the_wrong_type_are_refused() -> None:
    vocabulary = Vocabulary(pa.array([7]), pa.array(["a"]), ("event",))
    with pytest.raises(InputError, match=r"user ids of this data are integers, e\.g\. 7; got '7'"):
        vocabulary.user_positions(["7"])
    with pytest.raises(InputError, match="item ids of this data are text"):
        vocabulary.item_positions([1])
    with pytest.raises(InputError, match="True"):
        vocabulary.user_positions([True])


def test_text_of_a_command_line_becomes_an_id() -> None:
    vocabulary = Vocabulary(pa.array([7]), pa.array(["007"]), ("event",))
    assert vocabulary.parse_user_id("7") == 7
    assert vocabulary.parse_item_id("007") == "007"
    with pytest.raises(InputError, match="integers, and 'u7' is none"):
        vocabulary.parse_user_id("u7")


def test_arrow_and_numpy_text_are_ids_too_and_positions_out_of_range_are_an_error() -> None:
    vocabulary = Vocabulary(pa.array([7]), pa.array(["a", "b"]), ("event",))
    for position in (-1, 1):
        with pytest.raises(IndexError, match="from 0 to 0"):
            vocabulary.user_ids([position])
    for ids in (pa.array(["b", "c"]), np.array(["b", "c"]), ("b", "c")):
        assert vocabulary.item_positions(ids).tolist() == [1, -1]


def test_vocabulary_is_saved_and_loaded(tmp_path: Path) -> None:
    vocabulary = Vocabulary(pa.array([7, 9]), pa.array(["a", "ü"]), ("buy", "view"))
    for folder in ("1", "2"):
        vocabulary.save(tmp_path / folder)
    loaded = Vocabulary.load(tmp_path / "1")
    assert loaded.users.equals(vocabulary.users)
    assert loaded.items.equals(vocabulary.items)
    assert loaded.behaviors == vocabulary.behaviors
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert names == ["items.parquet", "users.parquet", "vocabulary.json"]
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_damaged_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        Vocabulary.load(tmp_path)
    Vocabulary(pa.array([7]), pa.array(["a"]), ("event",)).save(tmp_path)
    text = (tmp_path / "vocabulary.json").read_text()
    (tmp_path / "vocabulary.json").write_text(text.replace('"format": 1', '"format": 99'))
    with pytest.raises(CheckpointError, match=r"format 99.*Update"):
        Vocabulary.load(tmp_path)
    (tmp_path / "vocabulary.json").write_text(text.replace('"num_users": 1', '"num_users": 2'))
    with pytest.raises(CheckpointError, match="damaged"):
        Vocabulary.load(tmp_path)
    (tmp_path / "vocabulary.json").write_text(text)
    (tmp_path / "users.parquet").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Vocabulary.load(tmp_path)
