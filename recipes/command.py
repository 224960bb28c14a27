"""A command line into a call of a recipe; a user's mistake is one message and exit code 2."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from record import Record, Request

from variseq.errors import VariseqError

Recipe = Callable[[Path, Request], Record]


def command(*recipes: Recipe, words: Sequence[str] | None = None) -> int:
    """Run the recipe that `words` (by default the command line) ask for, or the first; returns the exit code."""
    by_name = {recipe.__name__: recipe for recipe in recipes}
    arguments = _parser(by_name).parse_args(words)
    request = Request(
        arguments.out, arguments.seed, tuple(arguments.set), arguments.result, arguments.quiet, arguments.resume
    )
    try:
        by_name[arguments.variant](arguments.data, request)
    except VariseqError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted; what was trained is in {arguments.out}.unfinished; go on with --resume", file=sys.stderr)
        return 130
    return 0


def _parser(by_name: dict[str, Recipe]) -> argparse.ArgumentParser:
    first = next(iter(by_name))
    about = "\n\n".join(f"{name}: {recipe.__doc__}" for name, recipe in by_name.items())
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of the data set, or a file of it")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder for the run; must not exist yet")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting: size=medium, model.hidden_size=128, ...",
    )
    parser.add_argument("--result", type=Path, metavar="FILE", help="a .jsonl file to which one record is appended")
    parser.add_argument("--variant", choices=list(by_name), default=first, help=f"which recipe (default: {first})")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was interrupted")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    return parser
