"""`variseq encode` writes the items with vectors, computes each once, reads no file outside its folder."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.content.test_encoders import png, write_picture, write_tone
from tests.terminal.invoke import refuse, succeed, variseq
from variseq.content.media import ColorEncoder, MelEncoder

pytest.importorskip("PIL")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with items, pictures and sounds below it."""
    (tmp_path / "media").mkdir()
    for index in range(3):
        write_picture(tmp_path / "media" / f"{index}.png", (80 * index, 10, 99))
        write_tone(tmp_path / "media" / f"{index}.wav", 200.0 * (index + 1))
    rows = [f"00{index},soap {index},{index}.5,media/{index}.png,media/{index}.wav" for index in range(3)]
    rows += ["003,soap 3,,media/none.png,", "004,soap 4,2,,", "005,soap 5,2,media/0.png,"]
    (tmp_path / "items.csv").write_text("\n".join(["sku,name,price,Picture,audio_path", *rows]))
    return tmp_path


def change(shop: Path, before: str, after: str) -> None:
    (shop / "items.csv").write_text((shop / "items.csv").read_text().replace(before, after))


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_pictures_and_sounds_become_columns_of_vectors(shop: Path) -> None:
    done = succeed("encode", shop / "items.csv", "--out", shop / "vectors.parquet")
    table = pq.read_table(shop / "vectors.parquet")
    assert table.column_names == ["sku", "name", "price", "Picture", "audio_path", "image_vector", "audio_vector"]
    assert table.column("sku").to_pylist() == [f"00{index}" for index in range(6)]
    images = table.column("image_vector").to_pylist()
    np.testing.assert_allclose(images[0], ColorEncoder().encode([str(shop / "media" / "0.png")])[0])
    assert images[5] == images[0]
    assert [cell is None for cell in images] == [False, False, False, True, True, False]
    assert [cell is None for cell in table.column("audio_vector").to_pylist()] == [False] * 3 + [True] * 3
    assert table.schema.field("image_vector").metadata[b"variseq.encoder"] == b"color"
    assert "1 items have no file where the column 'Picture' says" in done.out
    assert "'003'" in done.out
    assert "fit makes its vectors by TF-IDF" in done.out


def test_second_run_computes_nothing(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["encode", shop / "items.csv", "--out", shop / "vectors.parquet"]
    succeed(*words)
    first = pq.read_table(shop / "vectors.parquet")
    monkeypatch.setattr(ColorEncoder, "_row", None)
    monkeypatch.setattr(MelEncoder, "_row", None)
    succeed(*words)
    assert pq.read_table(shop / "vectors.parquet").equals(first)


def test_changed_file_is_computed_again(shop: Path) -> None:
    words = ["encode", shop / "items.csv", "--out", shop / "vectors.parquet", "--audio", "none"]
    succeed(*words)
    shutil.copy(shop / "media" / "1.png", shop / "media" / "0.png")
    succeed(*words)
    images = pq.read_table(shop / "vectors.parquet").column("image_vector").to_pylist()
    assert images[0] == images[1]


def test_interrupted_run_goes_on_where_it_stopped(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, num_encoded = ColorEncoder.encode, 0

    def stops(self: ColorEncoder, values: list[str]) -> np.ndarray:
        nonlocal num_encoded
        num_encoded += 1
        if num_encoded == 3:
            raise KeyboardInterrupt
        return encode(self, values)

    monkeypatch.setattr(ColorEncoder, "encode", stops)
    words = ["encode", shop / "items.csv", "--out", shop / "vectors.parquet"]
    assert variseq(*words).code == 130
    assert left_in(shop) == {"items.csv", "media", "vectors.parquet.cache"}
    succeed(*words)
    assert num_encoded == 4  # two were kept, the third was computed again


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        ("../secret.png", "leads out of the folder"),
        ("/etc/hostname", "leads out of the folder"),
        ("media/link.png", "leads out of the folder"),
        ("http://shop.example/0.png", "is an address"),
        ("media", "is no file"),
        ("media/bomb.png", "more than 50,000,000 pixels"),
        ("media/text.jpg", "is no picture"),
        ("x" * 5000, "is no path"),
    ],
)
def test_bad_file_is_one_message_that_names_the_item(shop: Path, cell: str, problem: str) -> None:
    write_picture(shop.parent / "secret.png", (1, 2, 3))
    (shop / "media" / "link.png").symlink_to(shop.parent / "secret.png")
    (shop / "media" / "bomb.png").write_bytes(png(50_000, 50_000))
    (shop / "media" / "text.jpg").write_text("soap")
    change(shop, "media/1.png", cell)
    refuse(f"1 items have a file.*'001' .*{problem}", "encode", shop / "items.csv", "--out", shop / "vectors.parquet")
    assert "vectors.parquet" not in left_in(shop)


def test_paths_are_below_the_folder_of_files(shop: Path) -> None:
    change(shop, "media/", "")
    words = ["encode", shop / "items.csv", "--out", shop / "vectors.parquet"]
    assert "5 items have no file" not in succeed(*words, "--files", shop / "media").out
    assert pq.read_table(shop / "vectors.parquet").column("image_vector").null_count == 2


def test_own_vectors_are_joined_by_id(shop: Path) -> None:
    np.save(shop / "clip.npy", np.arange(8.0).reshape(4, 2))
    (shop / "ids.txt").write_text("003\n000\nother\n001\n")
    words = ["--vectors", f"clip={shop / 'clip.npy'}", "--vector-ids", shop / "ids.txt", "--image", "none"]
    done = succeed("encode", shop / "items.csv", "--out", shop / "v.parquet", *words)
    assert pq.read_table(shop / "v.parquet").column("clip").to_pylist() == [[2, 3], [6, 7], None, [0, 1], None, None]
    assert "1 vectors of clip.npy belong to no item" in done.out


@pytest.mark.parametrize(
    ("vectors", "ids", "problem"),
    [
        (np.zeros((2, 2)), "000\n000\n", r"2 ids \(1 of them again\)"),
        (np.zeros((3, 2)), "000\n001\n", "2 ids .* 3 rows"),
        (np.zeros(2), "000\n001\n", "one table of numbers"),
        (np.array([[1.0, np.nan], [1, 2]]), "000\n001\n", "NaN.*'000'"),
        (np.array([[{}], [{}]], dtype=object), "000\n001\n", "npy"),
        (np.zeros((2, 2)), "a\nb\n", "No id of"),
    ],
)
def test_own_vectors_that_do_not_fit_are_one_message(shop: Path, vectors: np.ndarray, ids: str, problem: str) -> None:
    np.save(shop / "clip.npy", vectors, allow_pickle=True)
    (shop / "ids.txt").write_text(ids)
    words = ["--vectors", f"clip={shop / 'clip.npy'}", "--vector-ids", shop / "ids.txt", "--image", "none"]
    refuse(problem, "encode", shop / "items.csv", "--out", shop / "v.parquet", *words)
    assert "v.parquet" not in left_in(shop)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--image", "vgg"], "'vgg'.*none, color, efficientnet"),
        (["--text", "none", "--image", "none", "--audio", "none"], "Nothing has to be encoded"),
        (["--vectors", "clip=a.npy"], "go together"),
        (["--vectors", "clip", "--vector-ids", "a"], "NAME=FILE.npy"),
    ],
)
def test_bad_option_is_one_message(shop: Path, words: list[str], problem: str) -> None:
    refuse(problem, "encode", shop / "items.csv", "--out", shop / "v.parquet", *words)


def test_table_without_what_is_asked_for_is_refused(shop: Path) -> None:
    (shop / "plain.csv").write_text("item_id,price\na,1\nb,2\n")
    words = ["encode", shop / "plain.csv", "--out", shop / "v.parquet"]
    refuse("no column with the paths of the image", *words, "--image", "color")
    refuse("no text to encode", *words, "--text", "sentence")
    refuse("Nothing has to be encoded", *words)
    refuse("has to end in .parquet", *words[:-1], shop / "v.csv")


def test_damaged_cache_is_one_message(shop: Path) -> None:
    (shop / "v.parquet.cache").write_bytes(b"no database" * 100)
    refuse("The cache .* cannot be used.*Delete it", "encode", shop / "items.csv", "--out", shop / "v.parquet")
    (shop / "v.parquet.cache").unlink()
    with sqlite3.connect(shop / "v.parquet.cache") as connection:
        connection.execute("CREATE TABLE vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL)")
    connection.close()
    succeed("encode", shop / "items.csv", "--out", shop / "v.parquet")
