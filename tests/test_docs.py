"""What the README, the tutorials and the notebooks show is run, with few users and one epoch of each training."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.terminal.invoke import succeed

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README_LINES = 130
NOTEBOOKS = [
    DOCS / "notebooks" / f"{name}.ipynb" for name in ("next-visit", "next-place", "your-own-data", "new-items")
]
"""`make docs` executes all of them."""
COMMAND = f"""#!/bin/sh
PYTHONPATH='{ROOT}' exec '{sys.executable}' -c 'from variseq.cli import main; main()' "$@"
"""


def shortened(text: str) -> str:
    """Code or commands that train for one epoch on 200 users, whatever they say.

    The page on new items keeps its users, as fewer do not take all items; 20 of them ask.
    """
    if "hold_out" not in text:
        text = re.sub(r"(num_users=)\d+", r"\g<1>200", text)
    text = re.sub(r"(asking\[:)\d+", r"\g<1>20", text)
    return re.sub(r"(max_epochs\W+)\d+", r"\g<1>1", text)


def python_of(page: Path) -> str:
    """All Python blocks of a page or cells of a notebook, which build on each other."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code")
    return "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))


def shell(script: str) -> None:
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-c", script], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, where the command `variseq` is that of this checkout."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "variseq").write_text(COMMAND)
    (tmp_path / "bin" / "variseq").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", DOCS / "tutorials" / "first-recommendations.md", *NOTEBOOKS],
    ids=lambda page: page.stem,
)
def test_python_of_a_page_runs(
    page: Path, reading: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.chdir(reading)
    pyplot.switch_backend("agg")
    exec(shortened(python_of(page)), {})
    pyplot.close("all")
    if page.stem == "README":
        assert "item-knn" in capsys.readouterr().out
        assert (reading / "runs" / "shop" / "manifest.json").exists()


@pytest.fixture(scope="module")
def reader_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a reader of all tutorials, who fits the run of the first and uses it in the others."""
    return tmp_path_factory.mktemp("reader")


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="needs bash and curl")
@pytest.mark.parametrize(
    "name", ["tutorials/your-own-log", "tutorials/serve", "tutorials/read-the-report", "how-to/erase-a-person"]
)
def test_commands_of_a_page_run(name: str, reader_folder: Path, reading: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands of ours run in this process, all from the first in the background on in one shell."""
    monkeypatch.chdir(reader_folder)
    page = shortened((DOCS / f"{name}.md").read_text(encoding="utf-8"))
    commands = [line for line in re.findall(r"^ *\$ (.*)$", page, re.MULTILINE) if not line.startswith("pip ")]
    while commands and not commands[0].endswith("&"):
        line = commands.pop(0)
        out = re.search(r" --out (\S+)", line)
        if not line.startswith("variseq "):
            shell(line)
        elif out is None or not Path(out[1]).exists():
            succeed(*shlex.split(line)[1:])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ends = "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"
    shell("\n".join(["set -eu", ends, *commands]).replace("8000", port))
