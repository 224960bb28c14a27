"""Files and folders that appear whole: what was there stays when the writing breaks off, and nothing else is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from variseq.atomic import atomic_directory, atomic_write


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def broken_off(path: Path) -> None:
    path.write_text("half")
    raise KeyboardInterrupt


def test_file_is_there_at_the_end_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "page.txt"
    path.write_text("before")
    with atomic_write(path) as unfinished:
        unfinished.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert names(tmp_path) == ["page.txt"]


def test_folder_is_there_at_the_end_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run"
    left_by_a_crash = path.with_name(".run.partial")
    left_by_a_crash.mkdir(parents=True)
    (left_by_a_crash / "old").write_text("old")
    with atomic_directory(path) as unfinished:
        (unfinished / "new").write_text("new")
        assert not path.exists()
    assert names(path) == ["new"]
    assert names(path.parent) == ["run"]


def test_what_breaks_off_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "page.txt"
    path.write_text("before")
    for write, part in ((atomic_write(path), ""), (atomic_directory(tmp_path / "run"), "new")):
        with pytest.raises(KeyboardInterrupt), write as unfinished:
            broken_off(unfinished / part)
    assert path.read_text() == "before"
    assert names(tmp_path) == ["page.txt"]
