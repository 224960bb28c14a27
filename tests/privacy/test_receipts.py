"""A receipt that was altered is noticed, whatever was altered."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from variseq.errors import CheckpointError, InputError
from variseq.privacy.erased_users import ERASED_USERS, ErasedUsers, erased_users_above, user_hash
from variseq.privacy.merkle import MerkleTree
from variseq.privacy.receipts import KEY, Receipts, proof_of, verify_receipt

PEOPLE = [f"u{number}" for number in range(9)]


def content_of(receipts: Receipts, erased: str, people: list[str]) -> dict[str, Any]:
    tree = MerkleTree([user_hash(receipts.key, one) + b"h" * 32 for one in people])
    marker = user_hash(receipts.key, erased)
    run = {
        "after": {"root": tree.root.hex(), "num_users": len(people)},
        "absent": {marker.hex(): proof_of(tree.absence(marker))},
    }
    return {"num_people": 1, "erased": [marker.hex()], "runs": [run]}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The receipts of three erasures."""
    receipts = Receipts.open(tmp_path_factory.mktemp("receipts") / "new")
    return [receipts.add(content_of(receipts, PEOPLE[number], PEOPLE[number + 1 :])) for number in range(3)]


def test_receipts_of_a_folder_are_verified_and_name_nobody(three: list[Path]) -> None:
    assert [verify_receipt(path)["number"] for path in three] == [1, 2, 3]
    assert not any(user in path.read_text() for path in three for user in PEOPLE)
    assert stat.S_IMODE(three[0].with_name(KEY).stat().st_mode) == 0o600
    assert three[0].with_name(KEY).read_text() not in three[0].read_text()


@given(st.data())
def test_any_altered_byte_is_noticed(three: list[Path], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(three))
    before = path.read_bytes()
    position = data.draw(st.integers(0, len(before)))
    number = data.draw(st.integers(0, 1))
    byte = data.draw(st.binary(min_size=1, max_size=1))
    after = before[:position] + byte + before[position + number :]
    try:
        path.write_bytes(after)
        if after == before:
            verify_receipt(three[-1])
        else:
            with pytest.raises(InputError, match=r"altered|next one names"):
                verify_receipt(three[-1])
    finally:
        path.write_bytes(before)


def _places(node: Any, where: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [where, *(place for key, child in inner for place in _places(child, (*where, key)))]


@given(st.data())
def test_any_altered_field_is_noticed(three: list[Path], data: st.DataObject) -> None:
    path = three[-1]
    before = path.read_bytes()
    content = json.loads(before)
    *where, last = data.draw(st.sampled_from(_places(content)[1:]))
    node = content
    for key in where:
        node = node[key]
    node[last] = data.draw(
        st.one_of(st.none(), st.integers(), st.text(max_size=3)).filter(lambda new: new != node[last])
    )
    try:
        path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
        with pytest.raises(InputError, match="altered"):
            verify_receipt(path)
    finally:
        path.write_bytes(before)


def test_false_proof_is_noticed_though_it_is_signed(tmp_path: Path) -> None:
    receipts = Receipts.open(tmp_path)
    content = content_of(receipts, "u0", PEOPLE)
    with pytest.raises(InputError, match="does not prove"):
        verify_receipt(receipts.add(content))


def test_missing_and_renamed_receipts_are_noticed(three: list[Path], tmp_path: Path) -> None:
    for path in (three[0].with_name(KEY), *three):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / three[1].name).unlink()
    with pytest.raises(InputError, match="cannot be read"):
        verify_receipt(tmp_path / three[2].name)
    (tmp_path / three[1].name).write_bytes(three[0].read_bytes())
    with pytest.raises(InputError, match="not the receipt"):
        verify_receipt(tmp_path / three[2].name)
    with pytest.raises(InputError, match="renamed"):
        verify_receipt(tmp_path / three[1].name)
    (tmp_path / KEY).unlink()
    with pytest.raises(InputError, match="key"):
        verify_receipt(tmp_path / three[0].name)
    with pytest.raises(InputError, match="key is missing"):
        Receipts.open(tmp_path)


def test_erased_users_are_found_from_every_run_below(tmp_path: Path) -> None:
    run = tmp_path / "deep" / "run"
    run.mkdir(parents=True)
    ErasedUsers().with_users(["ann", 12], until=5).with_users(["ann"], until=3).write(tmp_path)
    (found,) = erased_users_above(run)
    assert [found.refuses(*one) for one in (("ann", 5), ("ann", 6), (12, 5), ("12", 5), ("bob", 1))] == [
        *(True, False, True, False, False)
    ]
    text = (tmp_path / ERASED_USERS).read_text()
    assert "ann" not in text
    assert stat.S_IMODE((tmp_path / ERASED_USERS).stat().st_mode) == 0o600
    (tmp_path / ERASED_USERS).write_text(text[:-9])
    with pytest.raises(CheckpointError, match="who was erased is not known"):
        erased_users_above(run)
