"""What was changed of a catalog: merged, counted, bounded, written and read without loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from variseq.artifacts.catalog_changes import read_changes, write_changes
from variseq.artifacts.folder import CHANGES
from variseq.errors import CheckpointError, InputError
from variseq.ranking import catalog_changes
from variseq.ranking.catalog_changes import CatalogChanges, ChangeCounts, ItemDetails, with_items, without_items
from variseq.ranking.item_codes import ItemCodes, int8_codes, product_codes, with_rows, without_bias

KNOWN = {
    "k1": ItemDetails(item_id="k1", title="Known", categories=("A",), image="k1.png"),
    "k2": ItemDetails(item_id="k2", categories=()),
}
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
floats = st.floats(allow_nan=False, allow_infinity=False)
one_item = st.builds(
    ItemDetails,
    item_id=st.sampled_from(["k1", "k2"]) | names,
    title=st.none() | st.text(st.characters(codec="utf-8"), max_size=20),
    categories=st.none() | st.lists(names, max_size=3).map(tuple),
    image=st.none() | st.sampled_from(["k1.png", "other.png"]),
    texts=st.dictionaries(names, names, max_size=2),
    vectors=st.dictionaries(names, st.lists(floats, min_size=1, max_size=4).map(tuple), max_size=2),
    numbers=st.dictionaries(names, floats, max_size=2),
)
some_items = st.lists(one_item, max_size=4, unique_by=lambda one: one.item_id)


def item(item_id: str, **more: object) -> ItemDetails:
    return ItemDetails.of(item_id=item_id, **more)


@given(some_items, st.lists(names, max_size=4, unique=True))
def test_changes_that_are_written_and_read_are_equal(
    tmp_path_factory: pytest.TempPathFactory, items: list[ItemDetails], removed: list[str]
) -> None:
    left = [one for one in removed if one not in {other.item_id for other in items}]
    changes, folder = CatalogChanges(items=tuple(items), removed=tuple(left)), tmp_path_factory.getbasetemp()
    write_changes(folder, changes)
    assert read_changes(folder) == changes


@given(some_items, some_items)
def test_the_same_items_again_change_nothing_and_counts_add_up(
    first: list[ItemDetails], second: list[ItemDetails]
) -> None:
    before, _ = with_items(CatalogChanges(), first, KNOWN)
    after, counts = with_items(before, second, KNOWN)
    assert counts.added + counts.updated + counts.unchanged == len(second)
    again, of_again = with_items(after, second, KNOWN)
    assert (again, of_again) == (after, ChangeCounts(unchanged=len(second)))


def test_what_is_not_given_stays_and_what_the_model_has_is_not_kept() -> None:
    changes, counts = with_items(
        CatalogChanges(),
        [item("k1", title="Known", image="k1.png", numbers={"price": 2}), item("n", title="N", texts={"text": "t"})],
        KNOWN,
    )
    assert (counts.added, counts.unchanged, [one.item_id for one in changes.items]) == (1, 1, ["n"])
    changes, counts = with_items(changes, [item("k1", title="Now"), item("n", numbers={"price": 2})], KNOWN)
    assert counts == ChangeCounts(updated=2)
    assert changes.items == (item("n", title="N", texts={"text": "t"}, numbers={"price": 2}), item("k1", title="Now"))


def test_removed_items_are_forgotten_and_come_back_when_they_are_added() -> None:
    changes, _ = with_items(CatalogChanges(), [item("n", title="N")], KNOWN)
    changes, counts = without_items(changes, ["n", "k1"], KNOWN)
    assert (changes, counts) == (CatalogChanges(removed=("n", "k1")), ChangeCounts(removed=2))
    assert without_items(changes, ["n"], KNOWN) == (changes, ChangeCounts(unchanged=1))
    changes, counts = with_items(changes, [item("k1"), item("n")], KNOWN)
    assert (changes, counts) == (CatalogChanges(items=(item("n"),)), ChangeCounts(added=2))


@pytest.mark.parametrize(
    "bad",
    [
        {"title": "x" * 70_000},
        {"vectors": {"v": [1.0, float("nan")]}},
        {"vectors": {"v": []}},
        {"vectors": {"v": [0.0] * 9000}},
        {"numbers": {"n": float("inf")}},
        {"categories": [""]},
        {"title": "half \ud800"},
        {"odd": 1},
    ],
)
def test_details_that_cannot_be_are_refused_by_name(bad: dict[str, object]) -> None:
    with pytest.raises(InputError, match="i9"):
        item("i9", **bad)


def test_ids_twice_unknown_or_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="'n'"):
        with_items(CatalogChanges(), [item("n"), item("n")], KNOWN)
    with pytest.raises(InputError, match="'x'"):
        without_items(CatalogChanges(), ["k1", "x"], KNOWN)
    with pytest.raises(InputError):
        with_items(CatalogChanges(), [item("")], KNOWN)
    monkeypatch.setattr(catalog_changes, "MAX_ITEMS", 1)
    with pytest.raises(InputError, match="Allowed: 1"):
        with_items(CatalogChanges(), [item("a"), item("b")], KNOWN)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"items":[{"item_id":"a"},{"item_id":"a"}]}',
        b'{"items":[{"item_id":"a"}],"removed":["a"]}',
        b'{"items":[{"item_id":"a"}],"removed":[7]}',
        b'{"items":[{"item_id":true}]}',
        b'{"items":[{"item_id":99999999999999999999}]}',
        b'{"odd":1}',
        b'{"items":[{"item_id":"a"',
    ],
)
def test_damaged_file_is_one_error(tmp_path: Path, text: bytes) -> None:
    (tmp_path / CHANGES).write_bytes(text)
    with pytest.raises(CheckpointError, match=CHANGES):
        read_changes(tmp_path)


@pytest.mark.parametrize("kind", ["int8", "pq"])
def test_codes_with_added_vectors_are_the_decoded_ones_with_these_behind(kind: str) -> None:
    generator = np.random.default_rng(0)
    vectors, added = (generator.normal(size=(number, 9)).astype(np.float32) for number in (300, 7))
    codes = int8_codes(vectors) if kind == "int8" else product_codes(vectors, np.eye(9), np.full(300, 1 / 300))
    longer, plain = with_rows(codes, added), np.concatenate([codes[:], added])
    assert isinstance(longer, ItemCodes)
    assert (len(longer), longer.shape) == (307, (307, 9))
    rows = generator.integers(307, size=(3, 20))
    np.testing.assert_allclose(longer[rows], plain[rows], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(longer[:], plain, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(without_bias(longer)[rows], plain[rows][..., :-1], rtol=1e-5, atol=1e-6)
    preference = generator.normal(size=(4, 9)).astype(np.float32)
    for span in (slice(0, 256), slice(256, 307), slice(302, 307)):
        block = longer.block(span)
        found = block.logits(preference, np.empty((4, len(block)), dtype=np.float32))
        np.testing.assert_allclose(found, preference @ plain[span].T, rtol=1e-4, atol=1e-5)
