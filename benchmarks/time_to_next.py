"""How likely the time of the next event is, by the package's fit and by the baselines that know a person's own gaps.

    python -m benchmarks.time_to_next ml-1m-by-time DATA --seeds 0 1 2

No network is trained: the fit needs the gaps alone. The likelihood is that of the unit of the log's clock that a gap
lies in, the same for all rows. Baselines have no seed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measurement.datasets import dataset_spec, load_dataset
from measurement.records import Record, append_records, command_parser, exit_code, record_of
from variseq.errors import InputError
from variseq.evaluation.next_time import BASELINES, NAME, forecast_gaps
from variseq.recommend.next_time import fit_next_time


def records_of(name: str, folder: Path, split: str | None, seeds: Sequence[int]) -> list[Record]:
    """A record for each seed of the fit, and one for each baseline. Raises InputError for a log without times."""
    loaded, settings = load_dataset(name, folder), dict(dataset_spec(name).settings)
    sizes: dict[str, Any] = {key: settings[f"split.{key}"] for key in ("test", "valid") if f"split.{key}" in settings}
    by = split or settings["split.by"]
    train, valid, test = loaded.log.split(by, **(sizes if by == settings["split.by"] else {}))
    records = []
    for seed in seeds:
        begun = time.process_time()
        fit = fit_next_time(train.part, valid.part, is_refitted=True, seed=seed)
        seconds = time.process_time() - begun
        found = None if fit is None else forecast_gaps(fit, train.part, test.part)
        if found is None:
            raise InputError(f"{name} has no times. Give a data set with the times of its events.")
        summary = found.summary()
        rows = {NAME: {name: summary[name] for name in found.scores[NAME].summary()} | {"cpu_seconds": seconds}}
        rows |= summary["gap_baselines"] if seed == seeds[0] else {}
        for model, metrics in rows.items():
            counts = {key: summary[key] for key in ("num_gaps", "num_open_gaps", "gap_resolution_seconds")}
            case = {"data": name, "split": by, "model": model}
            of_model = None if model in BASELINES else seed
            records.append(record_of("time_to_next", case, metrics | counts, seed=of_model, data=loaded.description))
        print(found, flush=True)
    return records


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "time_to_next")
    parser.add_argument("name", metavar="NAME", help="a data set of the recipes")
    parser.add_argument("data", type=Path, metavar="DATA", help="its folder")
    parser.add_argument("--split", help="in place of that of the recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args(words)
    return exit_code(lambda: append_records(given.out, records_of(given.name, given.data, given.split, given.seeds)))


if __name__ == "__main__":
    sys.exit(main())
