"""MovieLens-100K comes from its publisher with checked rows, or simulated data is labeled so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet
import pytest

from variseq.errors import InputError
from variseq.events import datasets
from variseq.events.datasets import Content, content_sha256, movielens_100k, read_publisher_files

RATINGS = "196\t242\t3\t881250949\n22\t267\t1\t878887116\n"
PUBLISHER_FILMS = (
    "242|Kolya (1996) |24-Jan-1997||http://address|0|0|0|0|0|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
    "267|unknown||||1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
    "5|Misérables, Les (1995)|01-Jan-1995||http://address|0|0|0|0|0|0|0|0|1|0|0|1|0|0|0|0|0|0|0\n"
)


def publisher_content() -> Content:
    return read_publisher_files(RATINGS.encode(), PUBLISHER_FILMS.encode("latin-1"))


def no_network() -> Content:
    raise OSError("the network is unreachable")


def test_titles_and_categories_are_for_people() -> None:
    assert publisher_content().items.to_pylist() == [
        {"item_id": 242, "title": "Kolya (1996)", "category": "Comedy"},
        {"item_id": 267, "title": "unknown", "category": "unknown"},
        {"item_id": 5, "title": "Misérables, Les (1995)", "category": "Drama|Horror"},
    ]


def test_order_of_rows_is_part_of_the_checksum() -> None:
    content = publisher_content()
    assert content_sha256(Content(content.events.take([1, 0]), content.items)) != content_sha256(content)


def test_downloaded_rows_are_kept_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "CONTENT_SHA256", content_sha256(publisher_content()))
    files = movielens_100k(tmp_path, publisher_content)
    assert (files.is_real, files.source) == (True, "MovieLens-100K, from the publisher's archive")
    assert pyarrow.parquet.read_table(files.events).equals(publisher_content().events)
    assert pyarrow.parquet.read_table(files.items).equals(publisher_content().items)
    again = movielens_100k(tmp_path, no_network)
    assert (again.is_real, again.source) == (True, "MovieLens-100K, from the local cache")
    files.events.write_bytes(files.events.read_bytes()[:100])
    assert not movielens_100k(tmp_path, no_network).is_real


@pytest.mark.parametrize(
    ("fetch", "reason"), [(no_network, "the network is unreachable"), (publisher_content, "the rows have SHA-256")]
)
def test_without_the_right_rows_the_data_is_simulated_and_labeled(
    tmp_path: Path, fetch: Callable[[], Content], reason: str
) -> None:
    files = movielens_100k(tmp_path, fetch)
    assert files.source.startswith("simulated")
    assert reason in files.source
    assert pyarrow.parquet.read_table(files.events).num_rows > 10_000


def test_cache_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot be written .* set VARISEQ_CACHE"):
        movielens_100k(tmp_path / "file", no_network)


def test_default_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VARISEQ_CACHE", str(tmp_path))
    assert datasets.default_cache() == tmp_path
    monkeypatch.delenv("VARISEQ_CACHE")
    assert datasets.default_cache() == Path.home() / ".cache" / "variseq"
