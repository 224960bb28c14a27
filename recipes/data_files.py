"""The DATA of a command line into the files of a data set: found, read line by line, and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from variseq.errors import InputError


def find_files(data: Path, *patterns: str) -> list[Path]:
    """One file for each name or pattern, in the folder `data`, or in the folder of the file `data`, itself one of them.

    Raises InputError when one is missing, or when several fit one pattern.
    """
    is_one_of_them = data.is_file() and any(fnmatch(data.name, pattern) for pattern in patterns)
    folder = data.parent if is_one_of_them else data
    if not folder.is_dir():
        what = "is a file of another name" if data.exists() else "does not exist"
        raise InputError(f"DATA {data} {what}. Give the folder that holds {', '.join(patterns)}.")
    found = [[file for file in sorted(folder.glob(pattern)) if file.is_file()] for pattern in patterns]
    for pattern, files in zip(patterns, found, strict=True):
        if len(files) != 1:
            came = "no such file" if not files else f"{len(files)} such files"
            raise InputError(
                f"One file {pattern} is needed, and the folder {folder} has {came}. Give the folder that holds "
                f"{', '.join(patterns)}, each once."
            )
    return [files[0] for files in found]


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers from 1. Raises InputError where it is not UTF-8."""
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason}). Is it the file of this data set?") from error


def sha256_of(path: Path) -> str:
    """The hash that says which data a result belongs to."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
