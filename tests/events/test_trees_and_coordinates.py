from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from variseq import read
from variseq.errors import InputError
from variseq.events.coordinates import degrees_of
from variseq.events.hierarchy import MAX_LEVELS, nodes_of
from variseq.events.items import ItemTable
from variseq.events.options import ReadOptions

EVENTS = pa.table({"user_id": [1, 1, 1, 2], "item_id": ["a", "b", "c", "a"], "timestamp": [1e9, 1e9 + 1, 1e9 + 9, 1e9]})


def items_of(options: ReadOptions | None = None, **columns: list[object]) -> tuple[ItemTable, list[str]]:
    log = read(EVENTS, pa.table({"item_id": ["a", "b", "c"], **columns}), options)
    assert log.items is not None
    return log.items, log.report.notes


def test_items_of_one_subtree_share_its_nodes() -> None:
    items, notes = items_of(
        hierarchy=["cardio|shock|septic", "cardio|shock|cardiogenic", None], category=["x", None, "y"]
    )
    found = items.categories(range(3))
    assert found[0] == ("x", "cardio", "cardio|shock", "cardio|shock|septic")
    assert set(found[0]) & set(found[1]) == {"cardio", "cardio|shock"}
    assert found[2] == ("y",)
    assert "1 items of the log have no tree code" in notes
    assert "hierarchy" not in items.table.column_names


def test_one_name_below_two_parents_is_two_nodes() -> None:
    items, _ = items_of(
        ReadOptions(item_columns={"hierarchy": "icd"}), icd=["lung|acute", "heart|acute", "heart|acute"]
    )
    one, other, _ = items.categories(range(3))
    assert not set(one) & set(other)


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6, unique=True), min_size=1, max_size=5))
def test_nodes_of_two_items_that_agree_are_their_common_path(paths: list[list[str]]) -> None:
    found = nodes_of(["|".join(path) for path in paths], list(range(len(paths))))
    for path, nodes in zip(paths, found, strict=True):
        assert len(nodes) == len(path)
        num_common = next(
            (depth for depth, pair in enumerate(zip(path, paths[0], strict=False)) if len(set(pair)) > 1), None
        )
        num_common = min(len(path), len(paths[0])) if num_common is None else num_common
        assert len(set(nodes) & set(found[0])) == num_common


@pytest.mark.parametrize("code", ["a||b", "|a", "a|b|", "a|b|a", "a|b|c|b", "|".join(map(str, range(MAX_LEVELS + 1)))])
def test_code_that_is_no_path_is_refused_with_its_item(code: str) -> None:
    with pytest.raises(InputError, match=r"1 items have a tree code that is no path.*item 'b'"):
        items_of(hierarchy=["a", code, None])


def test_level_may_have_the_name_of_its_parent() -> None:
    assert nodes_of(["cardiac arrest|cardiac arrest"], [1]) == [["cardiac arrest", "cardiac arrest|cardiac arrest"]]


def test_coordinates_become_numbers_whatever_they_are_called() -> None:
    items, notes = items_of(Lat=["40.5", " ", "-33"], lng=["-74", "nan", "151.2"])
    np.testing.assert_array_equal(degrees_of(items.table, ["a", "b", "c"]), [[40.5, -74], [np.nan] * 2, [-33, 151.2]])
    assert "1 items of the log have no coordinates" in notes


@pytest.mark.parametrize(
    ("latitude", "longitude"), [(90.5, 0.0), (0.0, -180.1), (45.0, None), (None, 7.0), (np.inf, 0.0), ("north", "7")]
)
def test_coordinates_out_of_range_and_half_ones_are_refused_with_their_item(
    latitude: object, longitude: object
) -> None:
    kind = pa.string() if isinstance(latitude, str) else pa.float64()
    columns = {"latitude": [None, latitude, None], "longitude": [None, longitude, None]}
    with pytest.raises(InputError, match=r"1 items have no latitude from -90 to 90.*item 'b' has"):
        items_of(**{name: pa.array(cells, kind) for name, cells in columns.items()})


def test_latitude_without_longitude_is_refused() -> None:
    with pytest.raises(InputError, match=r"column latitude and no longitude.*item_columns="):
        items_of(latitude=[1.0, 2.0, 3.0])
