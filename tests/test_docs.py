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


def run(code: str, folder: Path) -> str:
    """What the code prints, run in a process as a reader would, without the type checks of the tests."""
    variables = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


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


@pytest.mark.slow
def test_quickstart_of_readme_runs_as_printed(tmp_path: Path) -> None:
    assert "item-knn" in run(python_of(ROOT / "README.md"), tmp_path)
    assert (tmp_path / "runs" / "shop" / "manifest.json").exists()


@pytest.mark.slow
def test_python_of_tutorial_runs(tmp_path: Path) -> None:
    run(python_of(DOCS / "tutorials" / "first-recommendations.md"), tmp_path)


@pytest.fixture(scope="module")
def reader_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a reader of all tutorials, who fits the run of the first and uses it in the others."""
    return tmp_path_factory.mktemp("reader")


def is_needed(command: str, folder: Path) -> bool:
    """Whether a command writes what is not there yet, or writes no file."""
    out = re.search(r" --out (\S+)", command)
    return out is None or not (folder / out[1]).exists()


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="needs bash and curl")
@pytest.mark.parametrize("name", ["your-own-log", "serve", "read-the-report"])
def test_commands_of_tutorial_run(name: str, reader_folder: Path, command: None) -> None:
    page = (DOCS / "tutorials" / f"{name}.md").read_text(encoding="utf-8")
    commands = [line for line in re.findall(r"^\$ (.*)$", page, re.MULTILINE) if not line.startswith("pip ")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ends = "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"
    needed = [one for one in commands if is_needed(one, reader_folder)]
    script = "\n".join(["set -eu", ends, *needed]).replace("8000", port)
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=reader_folder, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((DOCS / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path, command: None) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    run("\n".join(cells), tmp_path)
