"""Fit and evaluate the model on a published data set, and append one record a model.

    python -m recipes ml-100k DATA --run runs/ml-100k --seed 0
    python -m recipes amazon-beauty DATA --run runs/beauty-det --set training.deterministic_fraction=1

RUN is the folder that the run is saved in. Records go to --out, one a model.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from measurement.datasets import DATASETS
from measurement.records import command_parser, exit_code
from recipes.run import Recipe, run_recipe


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "accuracy")
    parser.add_argument("name", choices=list(DATASETS), metavar="NAME", help=", ".join(DATASETS))
    parser.add_argument("data", nargs="?", default=".", metavar="DATA", help="folder of the data set, or a file of it")
    parser.add_argument("--run", required=True, metavar="RUN", help="folder for the run; must not exist yet")
    parser.add_argument("--size", help="tiny, small, medium or large; that of the recipe otherwise")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="such as training.max_epochs=5"
    )
    parser.add_argument("--compare-with", metavar="RUN", help="another run of the same data, compared by paired tests")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was interrupted")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    given = parser.parse_args(words)
    recipe = Recipe(given.name, given.data, given.run, given.seed, tuple(given.set), given.compare_with, given.size)
    return exit_code(lambda: run_recipe(recipe, given.out, given.resume, given.quiet))


if __name__ == "__main__":
    sys.exit(main())
