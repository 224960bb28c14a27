"""The command line as a whole: help, lazy imports, plain output in a pipe, and every failure a message."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import typer

from tests.terminal.invoke import Finished, refuse, succeed, variseq
from variseq.cli import app

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "log.csv").write_text("user,item,ts\na,x,1600000000\nb,y,1600000001\n")
    return tmp_path / "log.csv"


@pytest.mark.parametrize(
    ("words", "heavy"), [("--help", ["duckdb", "pandas", "pyarrow", "torch"]), ("check LOG", ["torch"])]
)
def test_quick_commands_import_no_heavy_library(log: Path, words: str, heavy: list[str]) -> None:
    argv = ["variseq", *words.replace("LOG", str(log)).split()]
    program = f"""
import sys
sys.argv = {argv!r}
from variseq.cli import main
try:
    main()
finally:
    print(*[name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=ONE_THREAD)
    assert (done.returncode, done.stderr.split()) == (0, [])


def test_help_lists_every_command() -> None:
    out = succeed("--help").out
    for name in ("check", "fit", "evaluate", "compare", "recommend", "report", "diagnose", "simulate", "demo"):
        assert f" {name} " in out


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_of_each_command_tells_every_flag(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    out = succeed(name, "--help").out
    for parameter in COMMANDS[name].params:
        if parameter.param_type_name == "option":
            assert parameter.help, f"{name} {parameter.name} has no help"
            assert parameter.opts[-1] in out


def test_no_words_show_the_help() -> None:
    finished = variseq()
    assert finished.code in (0, 2)
    assert "recommend" in finished.out + finished.err


@pytest.mark.parametrize("words", [["fly"], ["fit"], ["check"], ["recommend"], ["check", "--color", "red"]])
def test_words_that_are_no_command_end_with_code_2_and_no_trace(words: list[str]) -> None:
    finished = variseq(*words)
    assert finished.code == 2
    assert finished.err
    assert "Traceback" not in finished.err


def test_piped_output_has_no_control_codes(run_folder: Path) -> None:
    refused = variseq("recommend", run_folder, "--user", "u001", "--history-of-nobody")
    assert refused.code == 2
    for finished in (refused, succeed("recommend", run_folder, "--history", "i01,nope", "-k", 2)):
        assert "\x1b" not in finished.out + finished.err


@pytest.mark.slow
def test_first_line_can_be_taken_of_an_answer(log: Path) -> None:
    program = "import sys; from variseq.cli import main; main()"
    reads, writes = os.pipe()
    os.close(reads)
    with open(writes, "wb") as closed:
        command = [sys.executable, "-c", program, "check", log]
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, env=ONE_THREAD, check=False)
    assert done.stderr == b""
    assert done.returncode in (0, 1)


def test_version_is_printed() -> None:
    assert re.fullmatch(r"variseq \d+\.\d+\.\d+\S*\n", succeed("--version").out)


@pytest.mark.slow
def test_report_is_written_into_the_run(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    monkeypatch.setattr("variseq.reports.style.png", lambda *_: b"")
    copied = shutil.copytree(run_folder, tmp_path / "run")
    assert "Report: " in succeed("report", copied, "-k", 5).out
    assert list(Path(copied).glob("*.html"))
    refuse("does not exist", "report", tmp_path / "nowhere")


def interrupted_by(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> Finished:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("variseq.terminal.recommend.recommend_run", fail)
    return variseq("recommend", "run", "--user", "u1")


def test_ctrl_c_is_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    finished = interrupted_by(KeyboardInterrupt(), monkeypatch)
    assert finished.code == 130
    assert "Traceback" not in finished.err


def test_failure_of_the_disk_is_one_message_and_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    finished = interrupted_by(OSError(28, "No space left on device", "all.csv"), monkeypatch)
    assert (finished.code, finished.err.count("\n")) == (2, 1)
    assert "No space left on device: 'all.csv'" in finished.err
    with pytest.raises(ZeroDivisionError):
        interrupted_by(ZeroDivisionError(), monkeypatch)


def test_warning_is_one_line_and_the_filters_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = warnings.showwarning
    monkeypatch.setattr("variseq.terminal.recommend.recommend_run", lambda *_: warnings.warn("odd data", stacklevel=1))
    finished = variseq("recommend", "run", "--user", "u1")
    assert (finished.code, finished.err) == (0, "warning: odd data\n")
    assert warnings.showwarning is before
