"""One setting changed at a time on a published data set, evaluated on validation: what each part is worth.

    python -m benchmarks.ablations amazon-beauty DATA --seeds 0 1 --rows dropout-0.3 one-layer

The grid is `GRID`, or a YAML file of the same form (--grid): a name, and the settings it changes. Rows without noise
are compared with `no-noise`, the others with `default`. No run is refitted and test events are never used. What stands
in the records with the same settings, data and seed is not run again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from measurement.datasets import LoadedDataset, dataset_spec, load_dataset
from measurement.records import Record, append_records, command_parser, exit_code, read_records, record_of
from variseq import VariationalAttention
from variseq.errors import InputError
from variseq.terminal.run_config import run_config

NO_NOISE = {"training.deterministic_fraction": 1.0}
EARLY_NOISE = {
    "training.deterministic_fraction": 0.3, "training.kl_anneal_fraction": 0.1, "training.num_samples": 1,
}  # fmt: skip
SAME_RATE = {"training.learning_rate": 0.003}
"""That of hidden size 64: by default the rate follows from the size."""
GRID: dict[str, dict[str, Any]] = {
    "default": {},
    "early-noise": EARLY_NOISE,
    "no-noise": NO_NOISE,
    "dropout-0.3": NO_NOISE | {"model.dropout": 0.3},
    "dropout-0.7": NO_NOISE | {"model.dropout": 0.7},
    "hidden-32": NO_NOISE | SAME_RATE | {"model.hidden_size": 32, "model.latent_dim": 32},
    "hidden-128": NO_NOISE | SAME_RATE | {"model.hidden_size": 128},
    "one-layer": NO_NOISE | {"model.num_layers": 1},
    "four-layers": NO_NOISE | {"model.num_layers": 4},
    "dot-product": NO_NOISE | {"model.attention": "dot"},
    "batch-512": NO_NOISE | {"training.batch_tokens": 512},
    "batch-2048": NO_NOISE | {"training.batch_tokens": 2048},
    "full-softmax": NO_NOISE | {"training.full_softmax_max_items": 1_000_000},
    "512-negatives": NO_NOISE | {"training.num_negatives": 512},
    "no-ema": NO_NOISE | {"training.ema_decay": 0.0},
    "no-item-decay": NO_NOISE | {"training.item_weight_decay": 0.0},
    "no-skip-gram": NO_NOISE | {"model.skip_gram_window": 0},
    "seen-not-masked": NO_NOISE | {"training.mask_seen": False},
    "no-categories": NO_NOISE | {"training.use_categories": False},
}


def ablation_record(dataset: LoadedDataset, name: str, row: str, changes: dict[str, Any], seed: int) -> Record:
    """A run with the changed settings, and its result on validation. Raises InputError for an unknown setting."""
    fixed = {"training.refit_fraction": 0.0, "seed": seed}
    settings = run_config(None, {**dataset_spec(name).settings, **fixed, **changes}, ())
    model = VariationalAttention(settings.size, seed, "cpu", settings.model, settings.training)
    train, valid, _ = dataset.log.split(settings.split.by, settings.split.test, settings.split.valid)
    begun = time.process_time()
    model.fit(train, valid, verbose=0)
    seconds = time.process_time() - begun
    checkpoint = model.checkpoint
    assert checkpoint is not None
    chosen = next(epoch for epoch in reversed(checkpoint.metrics) if epoch["is_best"])
    found = model.evaluate(valid).table["rows"][0]
    metrics = {key: found[key] for key in ("ndcg@10", "ndcg@10_interval", "nll", "nll_interval")}
    metrics |= {"network_nll": chosen["validation_nll"], "best_epoch": chosen["epoch"] + 1, "cpu_seconds": seconds}
    resolved = {"changes": changes, "model": checkpoint.config["model"], "training": checkpoint.config["training"]}
    case = {"data": name, "change": row}
    return record_of("ablations", case, metrics, seed=seed, settings=resolved, data=dataset.description)


def run_grid(name: str, folder: Path, grid: dict[str, dict[str, Any]], seeds: Sequence[int], out: Path) -> None:
    """Every row with every seed that the records do not have yet."""
    dataset = load_dataset(name, folder)
    done = [
        (one["case"], one["seed"], one["settings"].get("changes"), one["data"].get("sha256"))
        for one in read_records(out) if one["benchmark"] == "ablations"
    ]  # fmt: skip
    for seed in seeds:
        for row, changes in grid.items():
            if ({"data": name, "change": row}, seed, changes, dataset.description["sha256"]) in done:
                continue
            record = ablation_record(dataset, name, row, changes, seed)
            append_records(out, [record])
            metrics = record["metrics"]
            print(f"seed {seed}, {row}: NDCG@10 {metrics['ndcg@10']:.4f}, NLL {metrics['nll']:.3f}", flush=True)


def chosen_grid(path: Path | None, rows: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The rows of the grid, all by default. Raises InputError for a file of another form and for unknown rows."""
    grid = GRID if path is None else yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(grid, dict) or not all(isinstance(changes, dict) for changes in grid.values()):
        raise InputError(
            f"{path} is not a YAML mapping of names to settings, such as one-layer: {{model.num_layers: 1}}."
        )
    if unknown := [row for row in rows if row not in grid]:
        raise InputError(f"The grid has no row {unknown[0]!r}. It has: {', '.join(grid)}.")
    return {row: changes for row, changes in grid.items() if not rows or row in rows}


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "ablations")
    parser.add_argument("name", metavar="NAME", help="a data set of the recipes")
    parser.add_argument("data", type=Path, metavar="DATA", help="its folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", nargs="+", default=[], help="rows of the grid; all by default")
    parser.add_argument("--grid", type=Path, help="YAML file with a grid of your own")
    given = parser.parse_args(words)
    return exit_code(
        lambda: run_grid(given.name, given.data, chosen_grid(given.grid, given.rows), given.seeds, given.out)
    )


if __name__ == "__main__":
    sys.exit(main())
