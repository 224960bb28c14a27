"""Attacks on an ordinary fit of MovieLens-100K and on private releases of MovieLens-1M.

    python -m benchmarks.audit fit ml-100k DATA                                     # the default training
    python -m benchmarks.audit fit ml-100k DATA --epochs 6 --shadows 4
    python -m benchmarks.audit release ml-1m DATA
    python -m benchmarks.audit steps ml-1m DATA --epsilons 8                        # the steps of the network
    python -m benchmarks.audit steps ml-1m DATA --epsilons 8 --noise .5             # with half of the noise
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
from variseq.privacy.noise import Noise, secure_noise
from variseq.privacy.one_run_audit import OneRunAudit, audit_release
from variseq.privacy.release import PrivacyOptions
from variseq.privacy.steps_audit import audit_steps
from variseq.reports.attack_figure import write_attack_figure
from variseq.terminal.attacked_fit import FitAuditOptions, attack_fit

PICTURE = ROOT / "docs" / "pictures" / "attacks.svg"
EPSILONS = (8.0, 3.0, 1.0)
BENCHMARKS = {"release": "one_run_audit", "steps": "steps_audit"}
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


def private_records(
    kind: str, dataset: LoadedDataset, epsilon: float, noise: float, audited: OneRunAudit, seconds: float
) -> Iterable[Record]:
    """One record for what is released, and one for its positive control without noise."""
    claim = {"epsilon_claimed": audited.epsilon, "delta": audited.ledger.delta, "largest_auc": audited.largest_auc}
    claim["largest_tpr"] = float(audited.best_attack.true_positive_rate(0.01))
    for found in (audited.found, audited.control) if noise == 1 else (audited.found,):
        metrics = metrics_of(found.attack) | claim | {"cpu_seconds": seconds}
        metrics |= {name: value for name, value in found.to_json().items() if name not in metrics and name != "attack"}
        release = found.attack.name if noise == 1 else f"with {noise:g} of the noise"
        case = {"data": dataset.description["name"], "epsilon": epsilon, "release": release}
        yield record_of(BENCHMARKS[kind], case, metrics, seed=0, data=dataset.description, threads=1)


def metrics_of(attack: Attack) -> dict[str, Any]:
    """The numbers of an attack."""
    metrics = {name: value for name, value in attack.to_json().items() if name != "attack"}
    return metrics | {"num_canaries": len(attack.score)}


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "audit")
    parser.add_argument("kind", choices=("fit", *BENCHMARKS))
    parser.add_argument("name", metavar="NAME", help="a data set of the recipes")
    parser.add_argument("folder", type=Path, metavar="DATA", help="the folder with its files")
    parser.add_argument("--epochs", type=int, help="of each fit; the default otherwise")
    parser.add_argument("--shadows", type=int, default=0, help="shadow fits")
    parser.add_argument("--epsilons", type=float, nargs="+", default=list(EPSILONS))
    parser.add_argument("--noise", type=float, default=1.0, help="the share of the noise that is added")
    parser.add_argument("--canaries", type=int, help="made-up people of a private release; the default otherwise")
    parser.add_argument("--draw", action="store_true", help="draw the attacks on the first release, record nothing")
    given = parser.parse_args(words)

    def run() -> None:
        dataset = load_dataset(given.name, given.folder)
        if given.kind == "fit":
            training: Training = () if given.epochs is None else (("max_epochs", given.epochs),)
            append_records(given.out, fit_records(dataset, given.shadows, training))
            return
        audit = audit_release if given.kind == "release" else audit_steps
        noise: Noise = lambda deviation, number: secure_noise(given.noise * deviation, number)  # noqa: E731
        for epsilon in given.epsilons:
            begun = time.process_time()
            log = dataset.log
            options = PrivacyOptions(epsilon)
            audited = audit(log.histories, log.vocabulary.num_items, options, given.canaries, noise=noise)
            if given.draw and given.kind == "release":
                guarantee = (audited.epsilon, audited.best_attack)
                write_attack_figure(PICTURE, [audited.found.attack, audited.control.attack], guarantee)
                return
            seconds = time.process_time() - begun
            append_records(given.out, private_records(given.kind, dataset, epsilon, given.noise, audited, seconds))
            print(epsilon, audited.to_json(), flush=True)

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
