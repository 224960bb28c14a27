"""Content of simulated items tells their category, no single part does, and new items have true probabilities too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from variseq.errors import InputError
from variseq.events.simulate import Simulation, SimulationOptions, simulate
from variseq.events.simulate_content import MAX_CATEGORIES, TOPICS, attributes

SIZES = {"num_users": 200, "num_items": 40, "num_categories": 9, "mean_events": 8, "seed": 2}
IS_NEW = np.random.default_rng(0).random(40) < 0.3


@pytest.fixture(scope="module")
def shop() -> Simulation:
    return simulate(SimulationOptions(**SIZES, content=True))  # type: ignore[arg-type]  # the fields vary


@pytest.fixture(scope="module")
def held_out(shop: Simulation) -> Simulation:
    return shop.hold_out(IS_NEW)


def test_content_changes_no_event(shop: Simulation) -> None:
    assert shop.events().equals(simulate(SimulationOptions(**SIZES)).events())  # type: ignore[arg-type]


def test_words_are_of_the_topic_and_no_column_is_the_category(shop: Simulation) -> None:
    items = shop.items().to_pydict()
    assert list(items) == ["item_id", "title", "text"]
    topic = attributes(shop.catalog.category, 9)[:, 0]
    for number, title, text in zip(topic, items["title"], items["text"], strict=True):
        words = {*title.split(), *text.split()}
        assert [len(words & set(of_topic)) for of_topic in TOPICS] == [
            3 * (one == number) for one in range(len(TOPICS))
        ]


@pytest.mark.parametrize("side", [2, 3, 8])
def test_two_attributes_tell_the_category_and_one_does_not(side: int) -> None:
    found = attributes(np.arange(side**2), side**2)
    for one in range(3):
        assert np.bincount(found[:, one]).tolist() == [side] * side
        assert len(np.unique(np.delete(found, one, axis=1), axis=0)) == side**2


def test_equal_options_give_equal_files(shop: Simulation, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    first, second = (shop.write_media(tmp_path / name) for name in ("first", "second"))
    assert first.equals(second)
    assert first.column_names == ["item_id", "title", "text", "image", "audio"]
    names = [*first["image"].to_pylist(), *first["audio"].to_pylist()]
    contents = [[(tmp_path / folder / name).read_bytes() for name in names] for folder in ("first", "second")]
    assert contents[0] == contents[1]
    assert len(set(contents[0])) == 80


def test_media_are_refused_without_content_and_where_no_folder_can_be(shop: Simulation, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="content=True"):
        simulate(SimulationOptions(num_users=3)).write_media(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        shop.write_media(tmp_path / "file")


def test_more_categories_than_attributes_tell_are_refused_with_content() -> None:
    many = MAX_CATEGORIES + 1
    SimulationOptions(num_categories=many)
    with pytest.raises(InputError, match=f"^num_categories is {many}"):
        SimulationOptions(num_categories=many, content=True)


def test_held_out_items_are_last_after_a_whole_history(shop: Simulation, held_out: Simulation) -> None:
    last = held_out.offsets[1:][np.diff(held_out.offsets) > 0] - 1
    assert not IS_NEW[np.delete(held_out.item, last)].any()
    assert IS_NEW[held_out.item[last]].any()
    for user, (begin, end) in enumerate(zip(held_out.offsets[:-1], held_out.offsets[1:], strict=True)):
        whole = slice(shop.offsets[user], shop.offsets[user + 1])
        assert held_out.item[begin:end].tolist() == shop.item[whole][: end - begin].tolist()
        assert end - begin == len(shop.item[whole]) or IS_NEW[shop.item[whole]].any()
        assert end - begin >= 3 or not IS_NEW[held_out.item[begin:end]].any()


def test_probabilities_of_new_items_are_means_over_what_events_alone_tell(held_out: Simulation) -> None:
    positions = held_out.offsets[1:][np.diff(held_out.offsets) >= 3] - 2
    exact, found = held_out.next_item_distribution(positions), held_out.new_item_distribution(positions, IS_NEW)
    np.testing.assert_array_equal(found[:, ~IS_NEW], exact[:, ~IS_NEW])
    np.testing.assert_allclose(found.sum(axis=1), 1)
    new, category = np.flatnonzero(IS_NEW), held_out.catalog.category
    for row, position in enumerate(positions.tolist()):
        far = np.zeros(len(category))
        stays = (1 - [0.25, 0.4, 0][held_out.behavior[position]]) * (1 - 0.2)
        for column, weight in ((1, 0.3), (2, 0.1)):
            far[held_out.catalog.successor[held_out.item[position], column]] += stays * 0.5 * weight
        for item in new:
            alike = new[category[new] == category[item]]
            expected = (exact[row] - far)[alike].mean() + far[new].mean()
            assert found[row, item] == pytest.approx(expected)
