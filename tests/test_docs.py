"""What the README shows is run, word by word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def test_readme_quickstart_runs_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (quickstart,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(quickstart.strip().splitlines()) <= 15
    monkeypatch.chdir(tmp_path)
    exec(compile(quickstart, str(README), "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out
    assert "item-knn" in printed
    assert (tmp_path / "runs" / "first" / "manifest.json").exists()


def test_readme_names_every_room_of_the_package() -> None:
    text = README.read_text(encoding="utf-8")
    package = README.parent / "variseq"
    rooms = [p.name + "/" for p in package.iterdir() if p.is_dir() and (p / "__init__.py").exists()]
    rooms += [p.name for p in package.glob("*.py") if p.name != "__init__.py"]
    assert [room for room in rooms if f"  {room}" not in text] == []
