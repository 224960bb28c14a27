"""What is to be shown into characters on a terminal: the one place where a console is made."""

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
    """A console that shows text character by character, on standard output, on standard error or in a text.

    `quiet` prints nothing. What is written to a `file` has no colors.
    """
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
