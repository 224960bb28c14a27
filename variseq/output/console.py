"""Consoles that print text as it is: no markup, no emoji codes, no control characters."""

from __future__ import annotations

from io import StringIO
from typing import Any

from rich.console import Console
from rich.text import Text

from variseq.output.printable import printable_lines


class _PlainConsole(Console):
    """A console that reads no markup, no emoji codes and no control characters in the text it is given."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable_lines(text), **options)


def console(
    stderr: bool = False, quiet: bool = False, file: StringIO | None = None, width: int | None = None
) -> Console:
    """A console on standard output, standard error or a `file` (without colors); `quiet` prints nothing."""
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
