"""One refit or the mean of several, on Amazon Beauty without its last events: what each is worth.

    python benchmarks/refits.py DATA [--seeds 0,1] [--most 2]    # resumable: what is there is not run again
    python benchmarks/refits.py DATA --set model.dropout=0.3     # the same with other settings of model and training
    python benchmarks/refits.py --table                          # only writes the table into docs/ablations.md

DATA is the folder of the data set (see recipes/amazon_beauty.py). The last event of each user, which the recipe asks
for, is taken out of the file before anything else, so that choosing here leaves the test part of the recipe unseen; the
events before it play test and validation. Size small, leave-one-out, with noise and without (the twin). The twin is
asked at its posterior mean, as always; the model at its mean and for the mean of its samples. A seed takes 10 to
20 minutes on one core. Differences are from the same network with one refit, paired by user, with 95 % intervals. In
the table "changed" tells what a row has other than the latest run without --set, whatever was asked for at the time.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from marked_file import signed, write_between_markers
from provenance import provenance, short_commit
from record_file import Record, append_records, changed_settings, exit_code, read_records

from variseq.errors import InputError
from variseq.estimator import VariationalAttention
from variseq.evaluation.bootstrap import mean_interval
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.evaluation import Evaluation
from variseq.evaluation.splits import learned_from
from variseq.log import Log, LogPart, read
from variseq.ranking.calibration import NUM_SAMPLES, Calibration
from variseq.recommend.calibrate import calibrate
from variseq.recommend.forecast import Forecast
from variseq.recommend.memory import Memory
from variseq.recommend.transfer import transferred
from variseq.terminal.run_config import run_config
from variseq.training.display import Display
from variseq.training.refit import mean_of, refit, seed_of_refit
from variseq.training.run import new_network
from variseq.training.settings import TrainingConfig
from variseq.training.state import load_network, network_tensors
from variseq.training.symptoms import flat_settings
from variseq.training.trainer import Trainer, TrainingData
from variseq.training.validation import Validation

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "recipes"))
from amazon_beauty import FILES, LEAVE_ONE_OUT, items_of  # noqa: E402
from data_files import find_files, sha256_of  # noqa: E402
from sequence_file import events_in_order  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "refits.jsonl"
DOCUMENT = ROOT / "docs" / "ablations.md"
MARKERS = ("<!-- refits:begin -->", "<!-- refits:end -->")
ROLES: dict[str, dict[str, float]] = {"twin": {"deterministic_fraction": 1.0}, "model": {}}
METRICS = ("ndcg", "nll")
OF_A_TRIAL = ("training.refits", "training.seed", "training.deterministic_fraction")
"""Settings that a trial has for itself."""
Changes = tuple[str, ...]
Parts = tuple[LogPart, LogPart, LogPart]


def without_last(events: pa.Table) -> pa.Table:
    """The events in order without the last of each user."""
    user = events["user_id"].to_numpy()
    return events.filter(pa.array(np.append(user[1:] == user[:-1], False)))


def shifted_log(files: Sequence[Path]) -> Log:
    """What is known a purchase earlier."""
    options = run_config(None, LEAVE_ONE_OUT, ()).read
    return read(without_last(events_in_order(files[0])), items=items_of(files[1], files[2]), options=options)


def estimator_of(role: str, seed: int, changes: Changes) -> VariationalAttention:
    """What is trained."""
    settings = run_config(None, LEAVE_ONE_OUT, changes)
    return VariationalAttention(settings.size, seed, "cpu", settings.model, settings.training | ROLES[role])


def resolved(train: LogPart, role: str, seed: int, changes: Changes) -> dict[str, Any]:
    """All settings but the number of refits, those that follow from the log among them."""
    settings = estimator_of(role, seed, changes)._settings(train)
    return flat_settings(settings.network.model_dump(), settings.training.model_dump(exclude={"refits"}))


class Trial:
    """One network that validation chose, refitted as often as wanted."""

    def __init__(self, parts: Parts, role: str, seed: int, changes: Changes = ()) -> None:
        self.train, self.valid, self.test = parts
        settings = estimator_of(role, seed, changes)._settings(self.train)
        self.known, self.latest = self.train.part.known(), self.valid.part.known_after()
        self.validation = Validation(self.valid.part, settings.training)
        self.network = new_network(settings, self.known)
        trainer = Trainer(self.network, TrainingData(self.known, self.validation), settings.training)
        trainer.run()
        self.config: TrainingConfig = settings.training.model_copy(update={"beta": trainer.progress.beta})

    def refitted(self, number: int) -> dict[str, torch.Tensor]:
        """The weights of one refit; the same as those that a run of several has in this place."""
        network = copy.deepcopy(self.network)
        again = self.config.model_copy(update={"refits": 1, "seed": seed_of_refit(self.config, number)})
        refit(network, self.latest, again, None, Display(quiet=True))
        return network_tensors("network", network)

    def judged(self, weights: dict[str, torch.Tensor], num_samples: int) -> Evaluation:
        """Calibrated with the chosen network, carried over, and asked for the last events."""
        network = copy.deepcopy(self.network)
        load_network("network", network, weights)
        chosen, final = self.network.folded().eval(), network.folded().eval()
        memory = Memory(self.train.part.num_items).fit(self.known)
        untuned = Forecast(chosen, memory, Calibration(num_samples))
        learned = calibrate(untuned, self.validation.part, self.validation.options)
        learned = transferred(learned, (chosen, self.known), (final, self.latest))
        options = EvaluationOptions(10, "last", self.config.exclude_seen, learned.repeat_share)
        forecast = Forecast(final, Memory(self.train.part.num_items).fit(self.latest), learned.calibration)
        return evaluate(forecast, learned_from(self.test.part, self.latest, "training and validation"), options)


def records_of(parts: Parts, role: str, seed: int, changes: Changes, most: int) -> list[Record]:
    """One record for each number of refits and way of asking."""
    trial = Trial(parts, role, seed, changes)
    refits = [trial.refitted(number) for number in range(most)]
    found = []
    for num_samples in (0,) if role == "twin" else (0, NUM_SAMPLES):
        first = trial.judged(refits[0], num_samples)
        for number in range(1, most + 1):
            judged = first if number == 1 else trial.judged(mean_of(refits[:number]), num_samples)
            record = {"role": role, "changes": list(changes), "seed": seed}
            record |= {"refits": number, "num_samples": num_samples}
            record |= {name: round(float(judged.metric(name).mean()), 5) for name in METRICS}
            if number > 1:
                record |= {f"{name}_interval": _interval(judged, first, name) for name in METRICS}
            found.append(record | provenance())
    return found


def _interval(judged: Evaluation, first: Evaluation, name: str) -> list[float]:
    return [round(bound, 5) for bound in mean_interval(first.user, judged.metric(name) - first.metric(name))]


def run_all(data: Path, seeds: Sequence[int], changes: Changes, most: int, out: Path) -> None:
    """What is not in the file yet; the records of a network come together."""
    files = find_files(data, *FILES)
    hashes = {file.name: sha256_of(file) for file in files}
    parts = shifted_log(files).split("leave-one-out")
    known = read_records(out)
    for role, seed in ((role, seed) for seed in seeds for role in ROLES):
        settings = resolved(parts[0], role, seed, changes)
        of_run = {"role": role, "seed": seed, "settings": settings, "sha256": hashes}
        if any(one["refits"] >= most and of_run.items() <= one.items() for one in known):
            continue
        print(f"seed {seed}: {role}", flush=True)
        append_records(out, [record | of_run for record in records_of(parts, role, seed, changes, most)])


def table(records: Sequence[Record]) -> str:
    """The table in Markdown: a row for each network, change, way of asking and number of refits; cells list the seeds.

    Of the same seed the latest record counts.
    """
    usual = {one["role"]: one["settings"] for one in records if not one["changes"]}
    by_row: dict[tuple[Any, ...], dict[int, Record]] = {}
    for one in records:
        changed = _differences(one, usual.get(one["role"], {}))
        of_row = (list(ROLES).index(one["role"]), changed, one["num_samples"], one["refits"])
        by_row.setdefault(of_row, {})[one["seed"]] = one
    titles = "| network | changed | asked | refits | seeds | NDCG@10 | against one refit | NLL | against one refit |"
    lines = [titles, "|---|---|---|---:|---|---|---|---|---|"]
    for (role, changed, num_samples, number), of_seed in sorted(by_row.items(), key=lambda row: row[0]):
        asked = f"{num_samples} samples" if num_samples else "posterior mean"
        rows = [of_seed[seed] for seed in sorted(of_seed)]
        seeds = ", ".join(str(seed) for seed in sorted(of_seed))
        cells = [cell for name, digits in (("ndcg", 4), ("nll", 3)) for cell in _cells(rows, name, digits)]
        lines.append(" | ".join([f"| {list(ROLES)[role]}", changed or "–", asked, str(number), seeds, *cells]) + " |")
    shown = [one for of_seed in by_row.values() for one in of_seed.values()]
    commits = ", ".join(sorted({short_commit(one) for one in shown}))
    cpus = ", ".join(sorted({one["hardware"]["cpu"] for one in shown}))
    return "\n".join([*lines, "", f"<sub>{cpus}, one thread. Commit {commits}; `benchmarks/refits.py`.</sub>", ""])


def _differences(record: Record, usual: Record) -> str:
    """The settings that are not as usual, but for the seed; one that was asked for and was not there yet, too."""
    settings = record["settings"]
    asked = {name for name in (change.partition("=")[0] for change in record["changes"]) if name not in usual}
    names = {*changed_settings(settings, usual), *asked} - {"training.seed"}
    return ", ".join(f"`{name.split('.')[1]}` {settings[name]}" for name in sorted(names))


def _cells(rows: Sequence[Record], name: str, digits: int) -> tuple[str, str]:
    values = ", ".join(f"{row[name]:.{digits}f}".removeprefix("0") for row in rows)
    if f"{name}_interval" not in rows[0]:
        return values, "–"
    bounds = ([signed(bound, digits) for bound in row[f"{name}_interval"]] for row in rows)
    return values, ", ".join(f"{low} to {high}" for low, high in bounds)


def changes_of(words: Sequence[str]) -> Changes:
    """The settings of --set, in order. Raises InputError for one that a trial has for itself."""
    for word in words:
        name = word.partition("=")[0]
        if not name.startswith(("model.", "training.")) or name in OF_A_TRIAL:
            raise InputError(
                f"--set {word} is not possible here. Allowed: settings of model and training, without "
                f"{', '.join(OF_A_TRIAL)}."
            )
    return tuple(sorted(words))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", metavar="DATA", help="folder of the data set")
    parser.add_argument("--seeds", default="0", help="seeds, with commas between them")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the run")
    parser.add_argument("--most", type=int, default=2, help="the largest number of refits (default: 2)")
    parser.add_argument("--out", type=Path, default=RESULT, help="a .jsonl file to which records are appended")
    parser.add_argument("--table", action="store_true", help="only write the table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    def work() -> None:
        if not arguments.table:
            if arguments.data is None:
                raise InputError("Name the folder of the data set, or ask for --table.")
            seeds = [int(seed) for seed in arguments.seeds.split(",")]
            run_all(arguments.data, seeds, changes_of(arguments.set), arguments.most, arguments.out)
        write_between_markers(DOCUMENT, MARKERS, table(read_records(arguments.out)))

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
