"""A text between two markers of a file: replaced whole, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from variseq.errors import InputError


def write_between_markers(path: Path, markers: tuple[str, str], text: str) -> None:
    """Replace what stands between two markers. Raises InputError when the file has not both of them, in this order."""
    begin, end = markers
    before, found_begin, rest = path.read_text(encoding="utf-8").partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise InputError(f"{path.name} has no place for the table. Write two lines there: {begin} and {end}.")
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(f"{before}{begin}\n{text}{end}{after}", encoding="utf-8")
    os.replace(partial, path)
