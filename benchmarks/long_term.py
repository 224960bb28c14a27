"""Does a long view win? Reward over 50 rounds by greedy lists, the reward of one step and SlateQ, in simulated worlds.

    python -m benchmarks.long_term                # 20 worlds in five settings, about a quarter of an hour; resumable
    python -m benchmarks.long_term --draw         # docs/pictures/long-term.svg from the records

Every policy learns from two logs of equal size. The first has random lists. The second has lists that the policy itself
drew by a softmax. In logs a visitor who leaves is replaced by a new one, so all policies learn from as many exposures.
Then each policy gets the same new visitors, who are not replaced. Constants were chosen on worlds from 100 on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.list_values import ChoiceModel, LongTermValue
from benchmarks.simulated_visitors import NOTHING, World, WorldOptions
from benchmarks.visitor_logs import Lists, Log, SeenState, TrueState, View, simulate
from measurement.records import (
    RESULTS,
    ROOT,
    Record,
    append_records,
    check_writable,
    command_parser,
    exit_code,
    read_records,
    record_of,
    rounded,
)
from variseq.errors import InputError
from variseq.evaluation.significance import (
    holm,
    mean_interval,
    percentile_interval,
    resampled_sums,
    sign_flip_p_value,
)

PICTURE = ROOT / "docs" / "pictures" / "long-term.svg"
WORLDS = ROOT / ".cache" / "long_term_worlds.jsonl"
OFF = {"satiation": False, "churn": False, "cost": False}
SETTINGS: dict[str, dict[str, bool]] = {
    "all effects": {},
    "without satiation": {"satiation": False},
    "without churn": {"churn": False},
    "without cost": {"cost": False},
    "none": OFF,
}
RANDOM, GREEDY, ONE_STEP, SLATEQ = "random", "greedy", "one step", "SlateQ"
TOP_K, TRUE_STATE = "SlateQ, top-k lists", ", true state"
POLICIES = (RANDOM, GREEDY, ONE_STEP, SLATEQ, TOP_K, ONE_STEP + TRUE_STATE, SLATEQ + TRUE_STATE)
NUM_PERMUTATIONS = 100_000


@dataclass(frozen=True)
class Protocol:
    """How policies learn and are compared.

    Args:
        num_logging: Visitors of a log at any time.
        num_visitors: New visitors by whom policies are compared.
        num_rounds: Of a log, and of the comparison.
        temperature: Of the softmax over scores with a standard deviation of 1.
        discount: Of a reward that comes a round later.
        choice_ridge: Of the model of the next choice.
        value_ridge: Of long-term values.
        num_iterations: Of policy iteration.
    """

    num_logging: int = 200
    num_visitors: int = 500
    num_rounds: int = 50
    temperature: float = 0.5
    discount: float = 0.9
    choice_ridge: float = 1.0
    value_ridge: float = 100.0
    num_iterations: int = 4


def metrics_of(world: World, log: Log) -> dict[str, Any]:
    """Means over visitors: cumulative reward by round, rounds and items taken."""
    is_taken = log.is_there & (log.item != NOTHING)
    reward = np.where(is_taken, world.value[log.item], 0.0).mean(axis=1).cumsum()
    num_rounds = log.is_there.sum(axis=0).mean()
    return {"curve": reward.tolist(), "rounds": float(num_rounds), "taken": float(is_taken.sum(axis=0).mean())}


def results_of(options: WorldOptions, protocol: Protocol, seed: int) -> dict[str, dict[str, Any]]:
    """The metrics of each policy in one world."""
    world = World.draw(options, seed)
    how = protocol.num_visitors, protocol.num_rounds, [seed, 2]
    found = {RANDOM: metrics_of(world, simulate(world, TrueState, None, *how))}
    found |= results_of_view(world, SeenState, (GREEDY, ONE_STEP, SLATEQ), protocol, seed)
    of_true_state = results_of_view(world, TrueState, (ONE_STEP, SLATEQ), protocol, seed)
    return found | {name + TRUE_STATE: metrics for name, metrics in of_true_state.items()}


def results_of_view(
    world: World, view: View, names: Sequence[str], protocol: Protocol, seed: int
) -> dict[str, dict[str, Any]]:
    """The metrics of policies that see the same of visitors. They share the first log."""

    def logged(lists_of: Lists | None, number: int) -> Log:
        how = protocol.num_logging, protocol.num_rounds, [seed, 1, number], protocol.temperature
        return simulate(world, view, lists_of, *how)

    def choice_of(logs: Sequence[Log]) -> ChoiceModel:
        if view is TrueState:
            return ChoiceModel.of_world(world)
        return ChoiceModel.fit(world, logs, protocol.choice_ridge)

    def compared(lists_of: Lists) -> dict[str, Any]:
        how = protocol.num_visitors, protocol.num_rounds, [seed, 2]
        return metrics_of(world, simulate(world, view, lists_of, *how))

    first, found = logged(None, 0), {}
    first_choice = choice_of([first])
    for name in names:
        logs = [first, logged(value_of(name, world, first_choice, [first], protocol).lists, 1)]
        value = value_of(name, world, choice_of(logs), logs, protocol)
        found[name] = compared(value.lists)
        if name == SLATEQ and view is SeenState:
            found[TOP_K] = compared(partial(value.lists, is_exact=False))
    return found


def value_of(name: str, world: World, choice: ChoiceModel, logs: Sequence[Log], protocol: Protocol) -> LongTermValue:
    """What a policy makes the largest: choices, their rewards, or all rewards to come."""
    reward = np.ones_like(world.value) if name == GREEDY else world.value
    value = LongTermValue(choice, reward, world.options.list_length)
    if name != SLATEQ:
        return value
    return value.fit(logs, protocol.discount, protocol.value_ridge, protocol.num_iterations)


def measure(protocol: Protocol, seeds: Sequence[int], path: Path) -> list[Record]:
    """The records of all worlds in all settings; those in the file are not measured again."""
    done = read_records(path)
    found, begun, num_new = [], time.monotonic(), 0
    wanted = [(seed, name) for seed in seeds for name in SETTINGS]
    for number, (seed, name) in enumerate(wanted):
        options = replace(WorldOptions(), **SETTINGS[name])
        settings = asdict(options) | asdict(protocol)
        case = {"setting": name}
        of_world = [one for one in done if (one["case"], one["seed"], one["settings"]) == (case, seed, settings)]
        if not of_world:
            metrics = rounded(results_of(options, protocol, seed), 4)
            of_world = [record_of("long_term_world", case, metrics, seed=seed, settings=settings, threads=1)]
            append_records(path, of_world)
            num_new += 1
            left = (time.monotonic() - begun) / num_new * (len(wanted) - number - 1) / 60
            shown = ", ".join(f"{policy} {one['curve'][-1]:.1f}" for policy, one in metrics.items())
            print(f"world {seed}, {name}: {shown}; {left:.0f} min left", flush=True)
        found.append(of_world[-1])
    return found


def summaries(worlds: Sequence[Record]) -> list[Record]:
    """A record for each setting and policy: means over worlds, and differences paired by world.

    p-values are of sign flips, corrected after Holm for all comparisons.
    """
    records, tests = [], []
    for name in SETTINGS:
        of_setting = [one for one in worlds if one["case"]["setting"] == name]
        worlds_of = np.arange(len(of_setting))
        curves = {one: np.array([world["metrics"][one]["curve"] for world in of_setting]) for one in POLICIES}
        for policy, curve in curves.items():
            resampled = resampled_sums(curve) / len(curve)
            bands = [percentile_interval(of_round) for of_round in resampled.T]
            metrics: dict[str, Any] = {"reward": curve[:, -1].mean(), "reward_interval": bands[-1]}
            for metric in ("rounds", "taken"):
                metrics[metric] = np.mean([world["metrics"][policy][metric] for world in of_setting])
            one_step = ONE_STEP + TRUE_STATE * policy.endswith(TRUE_STATE)
            for key, other in (("greedy", GREEDY), ("one_step", one_step)):
                if other != policy and (key == "greedy" or policy.startswith(SLATEQ)):
                    difference = curve[:, -1] - curves[other][:, -1]
                    metrics[f"to_{key}"] = difference.mean()
                    metrics[f"to_{key}_interval"] = mean_interval(worlds_of, difference)
                    tests.append((metrics, f"p_value_{key}", sign_flip_p_value(difference, NUM_PERMUTATIONS)))
            shape = {"mean": curve.mean(axis=0), "low": [one[0] for one in bands], "high": [one[1] for one in bands]}
            metrics["curve"] = {key: rounded(np.asarray(of_key).tolist(), 4) for key, of_key in shape.items()}
            records.append((name, policy, metrics, of_setting))
    for (metrics, key, _), corrected in zip(tests, holm([p for _, _, p in tests]), strict=True):
        metrics[key] = corrected
    return [
        record_of(
            "long_term", {"setting": name, "policy": policy}, metrics, threads=1,
            settings={"worlds": [one["seed"] for one in of_setting], **of_setting[0]["settings"]},
        )
        for name, policy, metrics, of_setting in records
    ]  # fmt: skip


def draw(records: Iterable[Record], path: Path) -> None:
    """Cumulative reward by round for each policy, one panel a setting, with 95 % intervals over worlds."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    from variseq.reports.style import FONT_POINTS, LIGHT, LINES

    latest = {(one["case"]["setting"], one["case"]["policy"]): one["metrics"]["curve"] for one in records}
    if not latest:
        raise InputError("There is no record of long_term to draw. Run: python -m benchmarks.long_term")
    figure = Figure(figsize=(10.5, 6.6), facecolor=LIGHT.paper, layout="constrained")
    FigureCanvasSVG(figure)
    panels = figure.subplots(2, 3).ravel()
    for axes, name in zip(panels, SETTINGS, strict=False):
        for number, policy in enumerate(POLICIES):
            curve, color = latest[name, policy], LIGHT.colors[number]
            rounds = np.unique(np.append(np.arange(0, len(curve["mean"]) + 1, 5).clip(1), len(curve["mean"])))
            mean, low, high = (np.array(curve[key])[rounds - 1] for key in ("mean", "low", "high"))
            axes.fill_between(rounds, low, high, color=color, alpha=0.15, linewidth=0)
            axes.plot(rounds, mean, color=color, linestyle=LINES[number], label=policy)
        axes.set_title(name, color=LIGHT.ink, fontsize=FONT_POINTS)
        axes.set(facecolor=LIGHT.paper, xlim=(1, rounds[-1]), ylim=(0, None))
        axes.set_xlabel("round", color=LIGHT.ink, fontsize=FONT_POINTS)
        axes.tick_params(colors=LIGHT.ink, labelsize=FONT_POINTS)
    for axes in panels[::3]:
        axes.set_ylabel("reward so far per visitor", color=LIGHT.ink, fontsize=FONT_POINTS)
    panels[-1].axis("off")
    panels[-1].legend(*panels[0].get_legend_handles_labels(), loc="center", fontsize=FONT_POINTS, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "long-term"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "long_term")
    parser.add_argument("--worlds", type=int, default=20, help="seeds from 0 on")
    parser.add_argument("--raw", type=Path, default=WORLDS, help="file of single worlds, by which a run is resumed")
    parser.add_argument("--draw", action="store_true", help="draw the picture from the records")
    given = parser.parse_args(words)

    def work() -> None:
        if given.draw:
            draw(read_records(RESULTS / "long_term.jsonl"), PICTURE)
            return
        check_writable(given.out)
        check_writable(given.raw)
        append_records(given.out, summaries(measure(Protocol(), range(given.worlds), given.raw)))

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
