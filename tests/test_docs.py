"""What the README, the tutorials and the notebooks show is run."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README_LINES = 130
COMMAND = f"""#!/bin/sh
PYTHONPATH='{ROOT}' exec '{sys.executable}' -c 'from variseq.cli import main; main()' "$@"
"""


def python_of(page: Path) -> str:
    """All Python blocks of a page, which build on each other."""
    return "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))


def run(code: str, name: Path) -> None:
    exec(compile(code, str(name), "exec"), {"__name__": "documentation"})


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command `variseq` of this checkout."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "variseq").write_text(COMMAND)
    (folder / "variseq").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


def test_quickstart_of_readme_runs_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(python_of(ROOT / "README.md"), ROOT / "README.md")
    assert "item-knn" in capsys.readouterr().out
    assert (tmp_path / "runs" / "shop" / "manifest.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["first-recommendations"])
def test_python_of_tutorial_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(python_of(DOCS / "tutorials" / f"{name}.md"), DOCS / "tutorials" / f"{name}.md")


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="needs bash and curl")
@pytest.mark.parametrize("name", ["your-own-log", "serve", "read-the-report"])
def test_commands_of_tutorial_run(name: str, tmp_path: Path, command: None) -> None:
    page = (DOCS / "tutorials" / f"{name}.md").read_text(encoding="utf-8")
    commands = [line for line in re.findall(r"^\$ (.*)$", page, re.MULTILINE) if not line.startswith("pip ")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ends = "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"
    script = "\n".join(["set -eu", ends, *commands]).replace("8000", port)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((DOCS / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
@pytest.mark.filterwarnings("default")
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: None) -> None:
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    run("\n".join(cells), path)
