"""Visitors over HTTP: a server logs what they are shown, and the policy at another temperature is evaluated by it.

    python -m benchmarks.feedback_loop serve --seeds 0 1 2 --rounds 10
    python -m benchmarks.feedback_loop cost --requests 2000

Each visit has a wanted item, from the true distribution of the simulated shop after the visitor's history. It is taken
where the list has it, and bought with a rate of its own. So the value of each policy is known. `cost` has two servers,
with exposures and without, that answer in turn. What is measured already is left out.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving import CLI, HOST, START_SECONDS, server
from measurement.records import ROOT, Record, append_records, command_parser, exit_code, read_records, record_of
from variseq.events.simulate import Simulation, SimulationOptions, simulate
from variseq.exposures.folder import segments
from variseq.exposures.read import read_exposures
from variseq.exposures.rewards import RewardOptions
from variseq.exposures.segments import compress
from variseq.off_policy.evaluation import evaluate_policies
from variseq.off_policy.logged import LoggedLists, logged_lists
from variseq.off_policy.policies import TargetProbabilities

NUM_USERS, NUM_ITEMS, SHOP_SEED = 2000, 300, 7
BUY_RATE = (1.2, 3.0)
"""Of the beta distribution of the rates with which items are bought when they are taken."""
K, TARGET_TEMPERATURE, USERS_AT_ONCE, ANSWER_SECONDS = 10, 0.5, 100, 50
VIEW, PURCHASE = 0, 2
REWARDS = RewardOptions({"purchase": 1.0, "view": 0.0})
FOLDER = ROOT / ".competitors" / "feedback"
Metrics = dict[str, Any]


def shop_of(seed: int, num_users: int = NUM_USERS) -> Simulation:
    """A simulated shop."""
    return simulate(SimulationOptions(num_users=num_users, num_items=NUM_ITEMS, mean_events=30, seed=seed))


@dataclass(frozen=True, eq=False)
class Computed:
    """A target policy whose probabilities are known."""

    name: str
    found: TargetProbabilities

    def probabilities(self, lists: LoggedLists) -> TargetProbabilities:
        return self.found


@dataclass(eq=False)
class Client:
    """One connection to a server on this machine."""

    port: int
    connection: http.client.HTTPConnection = field(init=False)

    def __post_init__(self) -> None:
        self.connection = http.client.HTTPConnection(HOST, self.port, timeout=60)

    def close(self) -> None:
        """End the connection."""
        self.connection.close()

    def post(self, path: str, body: Any) -> Any:
        """The answer to a request. Raises RuntimeError where it is refused."""
        self.connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{path} was answered with {answer.status}: {text[:500]!r}")
        return json.loads(text)

    def num_exposures(self, outcome: str) -> int:
        """Records of lists with this outcome, by the metrics of the server."""
        self.connection.request("GET", "/metrics")
        text = self.connection.getresponse().read().decode()
        found = re.findall(r"^variseq_exposures_total\{(.*)\} (\S+)$", text, re.MULTILINE)
        return sum(
            int(float(number))
            for labels, number in found
            if f'"{outcome}"' in labels and ('"exposure"' in labels or '"event"' in labels)
        )


class Visitors:
    """People of a shop who take what they want from lists, and come back with it in their history."""

    def __init__(self, shop: Simulation, seed: int) -> None:
        self.shop, self.random = shop, np.random.default_rng([seed, 1])
        self.buy_rate = np.random.default_rng(0).beta(*BUY_RATE, shop.options.num_items)
        columns = zip(shop.item.tolist(), shop.timestamp.tolist(), shop.behavior.tolist(), strict=True)
        events = list(columns)
        self.history = [events[one:end] for one, end in zip(shop.offsets[:-1], shop.offsets[1:], strict=True)]
        self.user_ids, self.item_ids = shop.user_ids(), shop.item_ids()
        self.number = {name: item for item, name in enumerate(self.item_ids)}
        self.worth: dict[str, np.ndarray] = {}
        """For each exposure the expected purchases of each item, if it is listed."""

    def visit(self, client: Client) -> int:
        """Everybody comes once; the number of events."""
        num_events = 0
        for first in range(0, len(self.user_ids), USERS_AT_ONCE):
            people = range(first, min(first + USERS_AT_ONCE, len(self.user_ids)))
            body = {"users": [self.user_ids[one] for one in people], "k": K, "reasons": False}
            answers = client.post("/v1/recommend/batch", body)["answers"]
            wanted = self._wanted(people)
            events: list[Metrics] = []
            for row, (person, answer) in enumerate(zip(people, answers, strict=True)):
                self.worth[answer["exposure_id"]] = (wanted[row] * self.buy_rate).astype(np.float32)
                listed = [self.number[one["item_id"]] for one in answer["recommendations"]]
                events += self._act(person, answer["exposure_id"], listed, wanted[row])
            if events:
                client.post("/v1/events", {"events": events})
            num_events += len(events)
        return num_events

    def _wanted(self, people: Sequence[int]) -> np.ndarray:
        """The true distribution of what each of them wants next."""
        lengths = [len(self.history[one]) for one in people]
        item, timestamp, behavior = np.array([event for one in people for event in self.history[one]]).T
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        found = np.exp(self.shop.log_probabilities(offsets, item, timestamp, behavior))
        return np.asarray(found / found.sum(axis=1, keepdims=True))

    def _act(self, person: int, exposure_id: str, listed: Sequence[int], wanted: np.ndarray) -> Iterator[Metrics]:
        """The events of one visit."""
        item = int(self.random.choice(len(wanted), p=wanted))
        if item not in listed:
            return
        is_bought = self.random.random() < self.buy_rate[item]
        for behavior, name in ((VIEW, "view"), (PURCHASE, "purchase")):
            if behavior == VIEW or is_bought:
                now = time.time_ns() // 1000
                self.history[person].append((item, now, behavior))
                yield {
                    "event_id": f"{exposure_id}-{name}", "user_id": self.user_ids[person], "event": name,
                    "item_id": self.item_ids[item], "timestamp": now / 1e6, "exposure_id": exposure_id,
                }  # fmt: skip


def run_of(folder: Path) -> Path:
    """A fitted and exported run of the shop, made the first time."""
    run = folder / "run"
    if not run.exists():
        folder.mkdir(parents=True, exist_ok=True)
        log, items = shop_of(SHOP_SEED).write(folder / "log.parquet")
        fit = ["fit", str(log), "--items", str(items), "--size", "tiny", "--out", str(run)]
        for words in (fit, ["export", str(run)]):
            subprocess.run([sys.executable, "-c", CLI, *words], check=True, cwd=ROOT)
    return run


def options_of(folder: Path, strategy: str = "softmax", has_exposures: bool = True) -> list[str]:
    """Options of a server with a store and exposures in a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    exposures = ["--exposures", str(folder / "exposures")] if has_exposures else []
    address = f"sqlite:///{folder.resolve()}/events.db"
    return ["--store", address, "--strategy", strategy, "--timeout-seconds", str(ANSWER_SECONDS), *exposures]


def serve(run: Path, folder: Path, seed: int, rounds: int) -> Metrics:
    """Visitors of one seed, their exposures read back, and the evaluation of another policy beside its truth."""
    visitors, begun = Visitors(shop_of(SHOP_SEED), seed), time.perf_counter()
    with server(run, None, 2 * START_SECONDS, options_of(folder)) as port, closing(Client(port)) as client:
        num_events = sum(visitors.visit(client) for _ in range(rounds))
        num_dropped = client.num_exposures("dropped")
    return read_back(run, folder, visitors) | {
        "num_events": num_events,
        "num_dropped": num_dropped,
        "seconds": time.perf_counter() - begun,
    }


def read_back(run: Path, folder: Path, visitors: Visitors) -> Metrics:
    """What the exposures of a folder tell, beside the truth."""
    from rich.progress import Progress

    from variseq.terminal.ope import run_policy

    exposures, report = read_exposures(folder / "exposures", None, REWARDS)
    missing = sorted(set(visitors.item_ids) - set(exposures.item_ids))
    exposures = replace(exposures, item_ids=[*exposures.item_ids, *missing])
    changes, bar = {"temperature": TARGET_TEMPERATURE}, Progress(disable=True)
    store = f"sqlite:///{folder.resolve()}/events.db"
    policy = run_policy(str(run), exposures, folder / "exposures", store, changes, bar)
    lists = logged_lists(exposures)
    target = policy.probabilities(lists)
    assert target.expected is not None
    worth = np.stack([visitors.worth[one] for one in lists.exposures.exposure_id])
    worth = worth[:, [visitors.number[str(one)] for one in exposures.item_ids]].astype(float)
    truth = float(target.expected(worth, np.arange(len(worth))).mean())
    found = evaluate_policies(exposures, [Computed(policy.name, target)], show_refused=True)
    (of_policy,) = found.policies
    metrics: Metrics = {
        "num_lists": exposures.num_exposures,
        "num_answered": len(visitors.worth),
        "num_rebuilt": exposures.num_exposures - sum(target.left_out.values()),
        "num_joined": report.events["joined by the list"],
        "purchases": float(exposures.reward.sum()),
        "truth": truth,
        "on_policy": found.on_policy.value,
        "effective_sample": of_policy.diagnostics[0].effective_sample,
        "refused": float(of_policy.diagnostics[0].refusal is not None),
    }
    for name in ("IPS", "SNIPS", "doubly robust"):
        one = of_policy.estimate(name)
        assert one.value is not None
        assert one.interval is not None
        metrics |= {name: one.value, f"{name}_interval": list(one.interval)}
        metrics[f"{name} holds"] = float(one.interval[0] <= truth <= one.interval[1])
    return metrics


def cost(run: Path, folder: Path, num_requests: int) -> Iterator[tuple[Metrics, Metrics]]:
    """Latencies of one client with exposures and without, in turn; by strategy."""
    users = shop_of(SHOP_SEED).user_ids()
    for strategy in ("greedy", "softmax"):
        taken: dict[bool, list[float]] = {True: [], False: []}
        with ExitStack() as stack:
            clients = {}
            for has_exposures in taken:
                options = options_of(folder / f"{strategy}-{has_exposures}", strategy, has_exposures)
                port = stack.enter_context(server(run, None, 2 * START_SECONDS, options))
                clients[has_exposures] = stack.enter_context(closing(Client(port)))
            for number in range(num_requests):
                for has_exposures in (True, False) if number % 2 else (False, True):
                    body = {"user_id": users[number % len(users)], "k": K}
                    begun = time.perf_counter()
                    clients[has_exposures].post("/v1/recommend", body)
                    taken[has_exposures].append(1e3 * (time.perf_counter() - begun))
        metrics: Metrics = {}
        for has_exposures, name in ((True, "with"), (False, "without")):
            p50, p99 = np.quantile(taken[has_exposures], (0.5, 0.99)).tolist()
            metrics |= {f"p50_{name}": p50, f"p99_{name}": p99}
        metrics |= {f"{one}_added": metrics[f"{one}_with"] - metrics[f"{one}_without"] for one in ("p50", "p99")}
        (path,) = segments(folder / f"{strategy}-True" / "exposures")
        num_lines, num_bytes = path.read_bytes().count(b"\n"), path.stat().st_size
        compress(path)
        (path,) = segments(folder / f"{strategy}-True" / "exposures")
        metrics |= {"line_bytes": num_bytes / num_lines, "compressed_line_bytes": path.stat().st_size / num_lines}
        yield {"strategy": strategy}, metrics


def is_measured(records: Sequence[Record], name: str, case: Metrics, seed: int | None) -> bool:
    """Whether there is a record of this case and seed."""
    return any((one["benchmark"], one["case"], one["seed"]) == (name, case, seed) for one in records)


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "feedback_loop")
    parser.add_argument("name", choices=["serve", "cost"])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(20)))
    parser.add_argument("--rounds", type=int, default=10, help="visits of each person")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="for the run, which is fitted the first time")
    given = parser.parse_args(words)

    def add(name: str, case: Metrics, metrics: Metrics, seed: int | None, **settings: Any) -> None:
        append_records(given.out, [record_of(name, case, metrics, seed=seed, settings=settings, threads=1)])
        print(case, seed, metrics, flush=True)

    def work() -> None:
        run = run_of(given.folder)
        if given.name == "cost":
            for case, metrics in cost(run, given.folder / "cost", given.requests):
                sizes = {name: metrics.pop(name) for name in ("line_bytes", "compressed_line_bytes")}
                add("feedback_bytes", case, sizes, None, num_requests=given.requests)
                add("feedback_cost", case, metrics, None, num_requests=given.requests)
            return
        for seed in given.seeds:
            case = {"num_lists": given.rounds * NUM_USERS}
            if not is_measured(read_records(given.out), "feedback_loop", case, seed):
                metrics = serve(run, given.folder / "served", seed, given.rounds)
                add("feedback_loop", case, metrics, seed, target_temperature=TARGET_TEMPERATURE)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
