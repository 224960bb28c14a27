"""The requirements of pyproject.toml into those of pip at their lowest versions, for `make test-lowest`."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

EXTRAS = ("train", "report", "serve", "index", "redis", "test")


def lowest(requirement: str) -> str:
    """A requirement with its lower bound as its only version.

    >>> lowest("uvloop>=0.21,<1; sys_platform != 'win32'")
    "uvloop==0.21; sys_platform != 'win32'"
    """
    return re.sub(r">=([\w.]+)(?:,<[\w.]+)?", r"==\1", requirement)


def main() -> None:
    """Print a line for each requirement but torch."""
    project = tomllib.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["project"]
    extras = [one for extra in EXTRAS for one in project["optional-dependencies"][extra]]
    for requirement in [*project["dependencies"], *extras]:
        if not requirement.startswith("torch"):
            print(lowest(requirement))


if __name__ == "__main__":
    main()
