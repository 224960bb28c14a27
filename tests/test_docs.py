"""What the README, the tutorials and the notebooks show is run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README_LINES = 130


def python_of(page: Path) -> str:
    """All Python blocks of a page, which build on each other."""
    return "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))


def run(code: str, name: Path) -> None:
    exec(compile(code, str(name), "exec"), {"__name__": "documentation"})


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


def test_quickstart_of_readme_runs_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(python_of(ROOT / "README.md"), ROOT / "README.md")
    assert "item-knn" in capsys.readouterr().out
    assert (tmp_path / "runs" / "shop" / "manifest.json").exists()
