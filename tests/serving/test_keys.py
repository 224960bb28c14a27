"""Keys are known by their hash; a file of keys that is damaged or open to others is refused."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from variseq.errors import InputError
from variseq.serving.keys import MAX_KEYS, KeyRing, StoredKey, create_key, read_keys


def test_key_finds_its_owner_and_no_other_text_does(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    keys = {name: create_key(file, name, [role]) for name, role in (("shop", "read"), ("boss", "admin"))}
    ring = read_keys(file)
    for name, key in keys.items():
        caller = ring.find(key)
        assert caller is not None
        assert caller.name == name
        assert ring.find(key[:-1]) is None
        assert ring.find(key + " ") is None
    assert ring.find("") is None
    assert len(set(keys.values())) == 2


@given(st.text(max_size=100))
def test_no_text_is_a_key_by_chance_and_none_breaks_the_search(text: str) -> None:
    assert KeyRing([StoredKey(name="a", roles=["read"], sha256="0" * 64)]).find(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "keys: []", "keys: 3", "[]", "", "keys: [{name: a}]", "keys: [{name: a, roles: [], sha256: " + "0" * 64 + "}]",
        "keys: [{name: a, roles: [king], sha256: " + "0" * 64 + "}]", "keys: [{name: a, roles: [read], sha256: x}]",
        "keys: [{name: a, roles: [read], sha256: " + "0" * 64 + ", key: vsk_x}]", "keys: [", "\x00",
        "!!python/object/apply:os.system ['true']",
    ],
)  # fmt: skip
def test_file_that_is_not_one_of_keys_is_one_message(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(InputError, match="key file"):
        read_keys(file)


def test_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    create_key(file, "shop", ["read"])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o620)
    with pytest.raises(InputError, match="written by others"):
        read_keys(file)


@pytest.mark.parametrize(
    ("name", "roles"), [("", ["read"]), ("a b", ["read"]), ("a", []), ("a", ["king"]), ("a\n", ["read"])]
)
def test_key_that_is_not_possible_leaves_the_file_as_it_was(tmp_path: Path, name: str, roles: list[str]) -> None:
    with pytest.raises(InputError):
        create_key(tmp_path / "keys.yaml", name, roles)
    assert not list(tmp_path.iterdir())


def test_number_of_keys_is_bounded(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    entries = [f"- {{name: k{n}, roles: [read], sha256: '{n:064x}'}}" for n in range(MAX_KEYS)]
    file.write_text("keys:\n" + "\n".join(entries) + "\n")
    with pytest.raises(InputError, match="the most"):
        create_key(file, "one-more", ["read"])
