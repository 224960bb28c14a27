"""Files and folders that appear whole: what was there stays when the writing breaks off, and nothing else is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from variseq.atomic import atomic_directory, atomic_write, replace_directory, restore_replaced


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


@pytest.mark.parametrize("platform", ["linux", "win32"])
def test_folder_takes_the_place_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    monkeypatch.setattr("sys.platform", platform)
    for name in ("run", ".run.erasing"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "named").write_text(name)
    replace_directory(tmp_path / "run", tmp_path / ".run.erasing")
    assert names(tmp_path) == ["run"]
    assert (tmp_path / "run" / "named").read_text() == ".run.erasing"


def test_folder_that_was_left_without_its_name_gets_it_back(tmp_path: Path) -> None:
    for name in (".run.replaced", ".other.replaced", "other"):
        (tmp_path / "deep" / name).mkdir(parents=True)
    restore_replaced(tmp_path)
    assert names(tmp_path / "deep") == [".other.replaced", "other", "run"]
