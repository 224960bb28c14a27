"""Consoles that print text as it is: no markup, no emoji codes, no control characters."""

from __future__ import annotations

import os
import sys
from io import StringIO
from typing import Any

from rich.console import Console
from rich.text import Text

from variseq.output.printable import printable_lines

_WIDTH_OF_FILES = 1000  # lines of a pipe or a file are not wrapped


class _PlainConsole(Console):
    """A console that reads no markup, no emoji codes and no control characters in the text it is given."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable_lines(text), **options)


def console(
    stderr: bool = False, quiet: bool = False, file: StringIO | None = None, width: int | None = None
) -> Console:
    """A console on standard output, standard error or a `file` (without colors); `quiet` prints nothing.

    Without a `width`, lines are as long as the terminal is wide, or as COLUMNS says. Where there is neither, none is
    wrapped.
    """
    is_terminal = (sys.stderr if stderr else sys.stdout).isatty() or "COLUMNS" in os.environ
    if width is None and file is None and not is_terminal:
        width = _WIDTH_OF_FILES
    return _PlainConsole(
        stderr=stderr,
        quiet=quiet,
        file=file,
        width=width,
        color_system="auto" if file is None else None,
        emoji=False,
        markup=False,
        highlight=False,
    )
