"""What the outside sees: a short list of names, a quick import, and a wheel with everything in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import variseq

ROOT = Path(__file__).parent.parent
PUBLIC = [
    "CheckpointError",
    "InputError",
    "MissingDependencyError",
    "PosteriorCollapseWarning",
    "PrivacyOptions",
    "PrivateModel",
    "ReadOptions",
    "RecommendOptions",
    "Recommendations",
    "SimulationOptions",
    "TrainingCallback",
    "TrainingDivergedError",
    "VariationalAttention",
    "VariseqError",
    "compare",
    "load",
    "read",
    "simulate",
]
HEAVY = ["duckdb", "matplotlib", "pandas", "pyarrow", "sklearn", "torch"]


def test_public_api_is_this_short_sorted_list() -> None:
    assert list(variseq.__all__) == PUBLIC == sorted(PUBLIC)


def test_every_public_name_can_be_had_and_is_documented() -> None:
    for name in PUBLIC:
        assert getattr(variseq, name).__doc__, f"variseq.{name} has no docstring"
    assert set(PUBLIC) <= set(dir(variseq))


def test_import_is_quick_because_heavy_libraries_wait() -> None:
    program = f"import sys, variseq; print(*[name for name in {HEAVY} if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout.split() == []


def run_python(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; "


def test_only_training_requires_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert [name for name, needs in extras.items() if any(one.startswith("torch") for one in needs)] == ["train"]
    assert not any(one.startswith("torch") for one in project["dependencies"])
    assert all(extra in extras["all"][0] for extra in extras if extra not in ("all", "spark", "docs", "test", "check"))


@pytest.mark.slow
def test_without_torch_a_log_is_read_and_split_and_a_model_names_the_extra() -> None:
    finished = run_python(
        WITHOUT_TORCH
        + """import variseq
parts = variseq.read(variseq.simulate(variseq.SimulationOptions(num_users=50)).events()).split("leave-one-out")
print(len(parts))
try:
    variseq.VariationalAttention("tiny").fit(*parts[:2])
except variseq.MissingDependencyError as error:
    print(error)
"""
    )
    number, message = finished.stdout.splitlines()
    assert number == "3"
    assert "pip install 'variseq[train]'" in message


def test_without_torch_the_command_names_the_extra_and_does_not_trace() -> None:
    finished = run_python(WITHOUT_TORCH + "from variseq.cli import main; main()", "fit", "nothing.csv", "--out", "run")
    assert finished.returncode == 2
    assert "pip install 'variseq[train]'" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_shell_completes_commands() -> None:
    program = "import sys; sys.argv[0] = 'variseq'; from variseq.cli import main; main()"
    words = {"_VARISEQ_COMPLETE": "complete_bash", "COMP_WORDS": "variseq simu", "COMP_CWORD": "1"}
    assert run_python(program, **words).stdout.split() == ["simulate"]


@pytest.mark.slow
def test_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "variseq", source / "variseq", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    finished = subprocess.run(
        [*command, "--wheel-dir", str(tmp_path), str(source)], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    (wheel,) = tmp_path.glob("variseq-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "variseq").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.startswith("variseq/")} == expected
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith("entry_points.txt") for name in names)
