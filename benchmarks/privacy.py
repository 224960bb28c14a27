"""Accuracy of private runs by their budget, beside exact popularity and exact counts.

    python -m benchmarks.privacy ml-1m DATA --releases 3
    python -m benchmarks.privacy simulated --users 100000
    python -m benchmarks.privacy --draw                    # docs/pictures/privacy.svg

The last event of each user is the target; everything before it is released. The items of the log are declared to be
the public catalog. Noise comes from the system, so releases differ; a row has their mean and their range. Constants of
the mechanism were chosen on the validation events of MovieLens-1M, before its test events were looked at. What that
choice tells of its users is not counted in ε.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa

from measurement.datasets import load_dataset
from measurement.records import (
    RESULTS,
    ROOT,
    Record,
    append_records,
    command_parser,
    exit_code,
    read_records,
    record_of,
)
from variseq import SimulationOptions, read, simulate
from variseq.errors import InputError
from variseq.evaluation.baselines import LastItemTransitions, Popular
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.evaluation import Evaluation
from variseq.log import Log, LogPart
from variseq.privacy.contributions import Pairs
from variseq.privacy.release import PrivacyOptions
from variseq.private_model import PrivateModel
from variseq.recommend.network_model import ModelRecommender
from variseq.terminal.fit_private import content_weight

PICTURE = ROOT / "docs" / "pictures" / "privacy.svg"
EPSILONS = (8.0, 3.0, 1.0)
KINDS = (*get_args(Pairs), "content auto", "near, network")
EXACT, PRIVATE = ("popular, exact", "last-item-transitions, exact"), "private"


def records(
    name: str, log: Log, data: dict[str, Any], epsilons: Sequence[float], releases: int, how: dict[str, Any]
) -> Iterable[Record]:
    """One record for each release, and one for each exact baseline."""
    columns = {} if log.items is None else {one: log.items.table.column(one) for one in log.items.table.column_names}
    train, valid, test = log.on_catalog(pa.table({"item_id": log.vocabulary.items, **columns})).split("leave-one-out")
    known, num_items = valid.part.history_with_targets(), train.part.num_items
    options = EvaluationOptions()
    data = data | {"num_users": len(known), "num_items": num_items}
    for model, baseline in zip(EXACT, (Popular(num_items), LastItemTransitions(num_items)), strict=True):
        found = evaluate(baseline.fit(known), test.part, options)
        yield record_of("privacy", {"data": name, "model": model}, metrics_of(found), data=data)
    for number in range(releases):
        for epsilon in epsilons:
            found, spent = private(train, valid, test, PrivacyOptions(epsilon, **how))
            kind = f"content {how['content']}" if how["content"] else how["pairs"]
            kind += ", network" if how["network"] == "yes" else ""
            case = {"data": name, "model": f"{PRIVATE}, {kind}, ε = {epsilon:g}"}
            settings = {"epsilon": epsilon, "kind": kind, **how}
            yield record_of(
                "privacy", case, metrics_of(found) | spent, seed=number, settings=settings, data=data, threads=1
            )


def private(
    train: LogPart, valid: LogPart, test: LogPart, options: PrivacyOptions
) -> tuple[Evaluation, dict[str, float]]:
    """The evaluation of one private run, with the CPU seconds of its fit and what it spent."""
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        model = PrivateModel.fit(train, valid, Path(folder) / "run", options)
        seconds = time.process_time() - begun
        found = evaluate(ModelRecommender(model.engine.model, PRIVATE), test.part, EvaluationOptions())
    spent = {"fit_seconds": seconds, "epsilon_spent": model.ledger.epsilon(), "delta": model.ledger.delta}
    record = model.engine.health["privacy"]
    return found, spent | {"content": record["options"]["content"], "network": record.get("network_weight", 0.0)}


def metrics_of(found: Evaluation) -> dict[str, float]:
    """Means over users."""
    names = {"ndcg@10": "ndcg", "recall@10": "recall", "nll": "nll"}
    return {shown: float(found.metric(name).mean()) for shown, name in names.items()}


def draw(found: Iterable[Record], path: Path) -> None:
    """NDCG@10 by ε for each data set, with exact popularity and exact transitions as lines."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    from variseq.reports.style import FONT_POINTS, LIGHT, MARKERS

    latest = {(str(one["case"]), one["seed"]): one for one in found if one["benchmark"] == "privacy"}
    names = list(dict.fromkeys(one["case"]["data"] for one in latest.values()))
    if not names:
        raise InputError("There is no record of privacy to draw. Measure a data set first.")
    figure = Figure(figsize=(4.2 * len(names), 4.0), facecolor=LIGHT.paper, layout="constrained")
    FigureCanvasSVG(figure)
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        of_data = [one for one in latest.values() if one["case"]["data"] == name]
        for number, kind in enumerate(KINDS):
            of_kind = [one for one in of_data if one["settings"].get("kind") == kind]
            points = sorted((one["settings"]["epsilon"], one["metrics"]["ndcg@10"]) for one in of_kind)
            look = {"color": LIGHT.colors[number], "marker": MARKERS[number], "linestyle": "none"}
            axes.plot([one for one, _ in points], [one for _, one in points], label=f"{PRIVATE}, {kind}", **look)
        for number, (model, style) in enumerate(zip(EXACT, (":", "--"), strict=True), len(KINDS)):
            value = next(one["metrics"]["ndcg@10"] for one in of_data if one["case"]["model"] == model)
            axes.axhline(value, color=LIGHT.colors[number], linestyle=style, label=model)
        axes.set(xscale="log", xticks=EPSILONS, xticklabels=[f"{one:g}" for one in EPSILONS], facecolor=LIGHT.paper)
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_title(name, color=LIGHT.ink, fontsize=FONT_POINTS)
        axes.set_xlabel("ε, less is more private", color=LIGHT.ink, fontsize=FONT_POINTS)
        axes.tick_params(colors=LIGHT.ink, labelsize=FONT_POINTS)
    panels[0].set_ylabel("NDCG@10", color=LIGHT.ink, fontsize=FONT_POINTS)
    entries = panels[0].get_legend_handles_labels()
    figure.legend(*entries, loc="outside lower center", ncols=5, fontsize=FONT_POINTS, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "privacy"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "privacy")
    parser.add_argument("name", nargs="?", help="a data set of the recipes, or simulated")
    parser.add_argument("folder", nargs="?", type=Path, metavar="DATA", help="the folder with its files")
    parser.add_argument("--users", type=int, default=100_000, help="of a simulated log")
    parser.add_argument("--epsilons", type=float, nargs="+", default=list(EPSILONS))
    parser.add_argument("--releases", type=int, default=3)
    parser.add_argument("--pairs", choices=(*get_args(Pairs), "auto"), default="near")
    parser.add_argument("--content", type=content_weight, default=0.0, help="weight of like content, or auto")
    parser.add_argument("--network", choices=("yes", "no"), default="no", help="whether a network is trained")
    parser.add_argument("--draw", action="store_true", help="draw the picture from the records")
    given = parser.parse_args(words)

    def run() -> None:
        if given.draw:
            draw(read_records(RESULTS / "privacy.jsonl"), PICTURE)
            return
        if given.name == "simulated":
            shop = simulate(SimulationOptions(num_users=given.users, num_items=1000, seed=1))
            log, data = read(shop.events(), items=shop.items()), {"name": f"simulated, {given.users:,} users"}
        elif given.folder is None:
            raise InputError("Give a data set and the folder with its files, or: simulated.")
        else:
            loaded = load_dataset(given.name, given.folder)
            log, data = loaded.log, loaded.description
        how = {"pairs": given.pairs, "content": given.content, "network": given.network}
        for one in records(given.name, log, data, given.epsilons, given.releases, how):
            append_records(given.out, [one])
            print(one["case"], one["metrics"], flush=True)

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
