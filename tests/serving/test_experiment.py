"""A user of an experiment gets the options of an arm, and answers and exposures name it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.server_process import LocalServer, serving_here
from variseq.errors import InputError
from variseq.experiments.experiment import Experiment, read_experiment
from variseq.exposures.read import read_exposures

FILE = """name: ranking
arms:
- {name: control, share: 0.4}
- {name: drawn, share: 0.3, strategy: softmax, temperature: 0.7, pool: 20}
- {name: spread, share: 0.3, diversity: 0.6, exclude_seen: false}
"""
USERS = [f"someone {number}" for number in range(12)]


@pytest.fixture(scope="module")
def experiment_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("experiment") / "experiment.yaml"
    file.write_text(FILE)
    return file


@pytest.fixture(scope="module")
def experiment(experiment_file: Path) -> Experiment:
    return read_experiment(experiment_file)


@pytest.fixture(scope="module")
def server(
    bundle_folder: Path, experiment_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalServer]:
    folder = tmp_path_factory.mktemp("exposures")
    with serving_here(bundle_folder, experiment=experiment_file, exposures=folder, uniform_share=0.2) as started:
        yield started


def user_of(experiment: Experiment, arm: str) -> str:
    return next(user for user in USERS if experiment.arm_of(user).name == arm)


def record_of(server: LocalServer, exposure_id: str) -> dict[str, object]:
    """The record of a list, once a thread has written it."""
    log = server.application.services.exposures
    assert log is not None
    end = time.monotonic() + 20
    while True:
        lines = [line for path in log.folder.glob("*.jsonl") for line in path.read_text().splitlines(keepends=True)]
        records = [json.loads(line) for line in lines if line.endswith("\n")]
        found = [one for one in records if one.get("exposure_id") == exposure_id]
        if found or time.monotonic() > end:
            (record,) = found
            return dict(record)
        time.sleep(0.01)


def test_each_user_gets_the_options_of_the_arm(server: LocalServer, experiment: Experiment) -> None:
    for user in USERS:
        answer = server.recommend(user, k=3, reasons=False)
        arm = experiment.arm_of(user)
        assert answer["arm"] == arm.name
        record = record_of(server, answer["exposure_id"])
        assert (record["experiment"], record["arm"]) == ("ranking", arm.name)
        assert record["uncertainty"] == pytest.approx(answer["uncertainty"]["total"], rel=1e-5)
        policy, filters = record["policy"], record.get("filters", {})
        assert isinstance(policy, list)
        if arm.name == "drawn":
            assert policy[:-1] == ["softmax", 0.7, 20, 0.2]
        else:
            assert policy == ["greedy"]
        assert filters == ({"exclude_seen": False, "diversity": 0.6} if arm.name == "spread" else {})


def test_batch_gives_each_user_an_arm_of_their_own(server: LocalServer, experiment: Experiment) -> None:
    wish = {"k": 4, "seed": 5, "reasons": False}
    response = server.client.post("/v1/recommend/batch", json={"users": USERS, **wish}).json()
    for user, answer in zip(USERS, response["answers"], strict=True):
        assert answer["arm"] == experiment.arm_of(user).name
        alone = server.recommend(user, **wish)
        assert answer["recommendations"] == alone["recommendations"]


def test_sent_history_is_in_no_arm(server: LocalServer) -> None:
    answer = server.recommend(history=["i00", "i01"], k=3)
    assert "arm" not in answer
    record = record_of(server, answer["exposure_id"])
    assert not {"arm", "experiment", "uncertainty"} & set(record)


def test_order_that_a_request_names_goes_before_that_of_the_arm(server: LocalServer, experiment: Experiment) -> None:
    drawn, spread = user_of(experiment, "drawn"), user_of(experiment, "spread")
    for user, wish, policy, filters in (
        (drawn, {"strategy": "greedy"}, "greedy", {}),
        (drawn, {"diversity": 0.3}, "greedy", {"diversity": 0.3}),
        (drawn, {"diversity": 0}, "softmax", {}),
        (drawn, {"conformal_level": 0.9}, "greedy", {"conformal_level": 0.9}),
        (spread, {"strategy": "softmax"}, "softmax", {"exclude_seen": False}),
        (spread, {"diversity": 0}, "greedy", {"exclude_seen": False}),
        (spread, {"exclude_seen": True, "diversity": 0.1}, "greedy", {"exclude_seen": True, "diversity": 0.1}),
    ):
        answer = server.recommend(user, k=3, **wish)
        assert answer["arm"] == experiment.arm_of(user).name
        record = record_of(server, answer["exposure_id"])
        assert record["policy"][0] == policy  # type: ignore[index]
        assert record.get("filters", {}) == filters


def test_arms_and_uncertainty_are_read_with_the_exposures(server: LocalServer, experiment: Experiment) -> None:
    answer = server.recommend(USERS[0], k=3)
    record_of(server, answer["exposure_id"])
    log = server.application.services.exposures
    assert log is not None
    exposures, _ = read_exposures(log.folder)
    assert exposures.context is not None
    context = exposures.context[exposures.exposure_id.index(answer["exposure_id"])]
    assert (context["experiment"], context["arm"]) == ("ranking", experiment.arm_of(USERS[0]).name)
    assert context["uncertainty"] == pytest.approx(answer["uncertainty"]["total"], rel=1e-5)


def test_arm_that_the_options_of_the_server_make_impossible_is_refused_at_the_start(
    bundle_folder: Path, experiment_file: Path
) -> None:
    with (
        pytest.raises(InputError, match="'spread'"),
        serving_here(bundle_folder, experiment=experiment_file, strategy="softmax"),
    ):
        pass
