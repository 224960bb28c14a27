"""The words of a command line into what a person sees: exit code, output and messages; run in this process."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from dataclasses import dataclass

from variseq.cli import main


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str


def variseq(*words: object) -> Finished:
    """Run `variseq` with these words as a shell would."""
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["variseq", *map(str, words)]
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as finished:
        code = int(finished.code or 0)
    finally:
        sys.argv = before
    return Finished(code, out.getvalue(), err.getvalue())


def succeed(*words: object) -> Finished:
    """Run a command that has to succeed."""
    finished = variseq(*words)
    assert finished.code == 0, finished.out + finished.err
    return finished


def refuse(told: str, *words: object) -> Finished:
    """Run a command that has to end with one message, in which `told` (a pattern) is found, and exit code 2."""
    finished = variseq(*words)
    assert finished.code == 2, finished
    assert_one_message(finished.err)
    assert re.search(told, finished.err), finished.err
    return finished


def assert_one_message(err: str) -> None:
    """One line that says what is wrong; no stack trace."""
    assert err.startswith("error: "), err
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    assert 'File "' not in err
