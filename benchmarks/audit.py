"""Attacks on an ordinary fit of MovieLens-100K and on private releases of MovieLens-1M.

    python -m benchmarks.audit fit ml-100k DATA                                     # the default training
    python -m benchmarks.audit fit ml-100k DATA --epochs 6 --shadows 4
    python -m benchmarks.audit release ml-1m DATA
    python -m benchmarks.audit release ml-1m DATA --epsilons 8 --draw               # docs/pictures/attacks.svg

Made-up people are in the log with probability 1/2; attacks find out who. The items of the log are declared to be the
public catalog.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from measurement.datasets import LoadedDataset, load_dataset
from measurement.records import ROOT, Record, append_records, command_parser, exit_code, record_of
from variseq.privacy.attacks import Attack
from variseq.privacy.one_run_audit import OneRunAudit, audit_release
from variseq.privacy.release import PrivacyOptions
from variseq.reports.attack_figure import write_attack_figure
from variseq.terminal.attacked_fit import FitAuditOptions, attack_fit

PICTURE = ROOT / "docs" / "pictures" / "attacks.svg"
EPSILONS = (8.0, 3.0, 1.0)
Training = tuple[tuple[str, object], ...]


def fit_records(dataset: LoadedDataset, num_shadows: int, training: Training) -> list[Record]:
    """One record for each attack on an ordinary fit of size tiny."""
    options = FitAuditOptions(num_shadows=num_shadows, training=training)
    begun = time.process_time()
    found = attack_fit(dataset.log, options, lambda fit, total: print(f"fit {fit} of {total}", flush=True))
    seconds = (time.process_time() - begun) / (1 + num_shadows)
    epochs = dict(training).get("max_epochs", "default")
    settings = {"size": options.size, "num_canaries": options.num_canaries, "num_shadows": num_shadows}
    return [
        record_of(
            "attacks",
            {"data": dataset.description["name"], "epochs": epochs, "attack": one.name},
            metrics_of(one) | {"cpu_seconds": seconds},
            seed=options.seed,
            settings=settings | {"max_epochs": epochs},
            data=dataset.description,
        )
        for one in found
    ]


def release_records(dataset: LoadedDataset, epsilon: float, audited: OneRunAudit, seconds: float) -> Iterable[Record]:
    """One record for the release and one for its positive control without noise."""
    claim = {"epsilon_claimed": audited.epsilon, "delta": audited.delta, "largest_auc": audited.largest_auc}
    for found in (audited.found, audited.control):
        metrics = metrics_of(found.attack) | claim | {"cpu_seconds": seconds}
        metrics |= {name: value for name, value in found.to_json().items() if name not in metrics and name != "attack"}
        case = {"data": dataset.description["name"], "epsilon": epsilon, "release": found.attack.name}
        yield record_of("one_run_audit", case, metrics, seed=0, data=dataset.description, threads=1)


def metrics_of(attack: Attack) -> dict[str, Any]:
    """The numbers of an attack."""
    metrics = {name: value for name, value in attack.to_json().items() if name != "attack"}
    return metrics | {"num_canaries": len(attack.score)}


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "audit")
    parser.add_argument("kind", choices=("fit", "release"))
    parser.add_argument("name", metavar="NAME", help="a data set of the recipes")
    parser.add_argument("folder", type=Path, metavar="DATA", help="the folder with its files")
    parser.add_argument("--epochs", type=int, help="of each fit; the default otherwise")
    parser.add_argument("--shadows", type=int, default=0, help="shadow fits")
    parser.add_argument("--epsilons", type=float, nargs="+", default=list(EPSILONS))
    parser.add_argument("--draw", action="store_true", help="draw the attacks on the first release, record nothing")
    given = parser.parse_args(words)

    def run() -> None:
        dataset = load_dataset(given.name, given.folder)
        if given.kind == "fit":
            training: Training = () if given.epochs is None else (("max_epochs", given.epochs),)
            append_records(given.out, fit_records(dataset, given.shadows, training))
            return
        for epsilon in given.epsilons:
            begun = time.process_time()
            log = dataset.log
            audited = audit_release(log.histories, log.vocabulary.num_items, PrivacyOptions(epsilon))
            if given.draw:
                guarantee = (audited.epsilon, audited.mu)
                write_attack_figure(PICTURE, [audited.found.attack, audited.control.attack], guarantee)
                return
            append_records(given.out, release_records(dataset, epsilon, audited, time.process_time() - begun))
            print(epsilon, audited.to_json(), flush=True)

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
