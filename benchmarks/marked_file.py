"""A table between two markers of a file: replaced whole, or not at all; and the differences in it."""

from __future__ import annotations

from pathlib import Path

from variseq.atomic import atomic_write
from variseq.errors import InputError


def write_between_markers(path: Path, markers: tuple[str, str], text: str) -> None:
    """Replace what stands between two markers. Raises InputError when the file cannot be read or has not both,
    in this order."""
    begin, end = markers
    before, _, after = _parts(path, markers)
    with atomic_write(path) as unfinished:
        unfinished.write_text(f"{before}{begin}\n{text}{end}{after}", encoding="utf-8")


def is_between_markers(path: Path, markers: tuple[str, str], text: str) -> bool:
    """Whether this very text stands there. Raises InputError as writing it would."""
    return _parts(path, markers)[1] == f"\n{text}"


def signed(value: float, digits: int) -> str:
    """A difference as tables show it: with its sign, and a true minus.

    >>> signed(-0.0123, 3), signed(2.0, 1)
    ('−0.012', '+2.0')
    """
    return f"{value:+.{digits}f}".replace("-", "−")


def _parts(path: Path, markers: tuple[str, str]) -> tuple[str, str, str]:
    begin, end = markers
    try:
        before, found_begin, rest = path.read_text(encoding="utf-8").partition(begin)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    inside, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise InputError(f"{path.name} has no place for the table. Write two lines there: {begin} and {end}.")
    return before, inside, after
