"""What the README shows is run, word by word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import small_model
from variseq.log import LogPart

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
    assert (tmp_path / "runs" / "shop" / "manifest.json").exists()


def test_examples_of_the_guide_to_posteriors_run_as_printed(
    run_folder: Path,
    shop_parts: tuple[LogPart, LogPart, LogPart],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    guide = README.parent / "docs" / "posteriors.md"
    examples = re.findall(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) >= 6
    assert all(len(example.strip().splitlines()) <= 5 for example in examples)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "first").symlink_to(run_folder)
    train, valid, _ = shop_parts
    small_model(deterministic_fraction=1.0).fit(train, valid, tmp_path / "runs" / "twin", verbose=0)
    monkeypatch.chdir(tmp_path)
    told: dict[str, object] = {"__name__": "guide"}
    for example in examples:
        exec(compile(example, str(guide), "exec"), told)
    printed = capsys.readouterr().out
    assert "sum over the catalog: 1.0" in printed
    assert "variseq minus 'twin', paired by " in printed


def test_readme_names_every_room_of_the_package() -> None:
    text = README.read_text(encoding="utf-8")
    package = README.parent / "variseq"
    rooms = [p.name + "/" for p in package.iterdir() if p.is_dir() and (p / "__init__.py").exists()]
    rooms += [p.name for p in package.glob("*.py") if p.name != "__init__.py"]
    assert [room for room in rooms if f"  {room}" not in text] == []
