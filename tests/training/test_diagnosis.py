"""Runs made to fail in each way, in a second or two each: the doctor tells them apart, and its advice heals them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.some_runs import trainer_for
from variseq.log import LogPart
from variseq.model.network import NetworkConfig
from variseq.training.diagnosis import Diagnosis, diagnose
from variseq.training.kl_control import refuse_unreachable_kl_target
from variseq.training.settings import TrainingConfig
from variseq.training.symptoms import chosen_epoch, flat_settings, symptoms

Parts = tuple[LogPart, LogPart, LogPart]
Changes = dict[str, Any]

BASE: Changes = {"training.max_epochs": 10, "training.patience": 10, "training.batch_tokens": 128}
SINCE = ("loss", "loss_at_mean", "swap_gap_at_mean", "mean_sigma", "mean_spread", "clamped_share")
PER_POSITION = ("swap_gap_per_position", "sigma_per_position")
MADE: dict[str, tuple[str, Changes]] = {
    "sound": ("healthy", {}),
    "never any noise": ("deterministic twin", {"training.deterministic_fraction": 1.0}),
    "heavy fixed beta": (
        "collapse",
        {
            "model.bn_gamma": None,
            "training.kl_target": None,
            "training.beta": 10.0,
            "training.deterministic_fraction": 0.0,
            "training.kl_anneal_fraction": 0.0,
        },
    ),
    "tiny target": (
        "over-regularized",
        {"model.bn_gamma": None, "training.kl_target": 0.05, "training.beta": 0.3},
    ),
    "huge steps": ("variance explosion", {"training.learning_rate": 0.3}),
    "late noise": (
        "variance explosion",
        {"model.bn_gamma": 0.3, "training.deterministic_fraction": 0.9, "training.kl_anneal_fraction": 0.0},
    ),
    "deaf decoder": ("bypass", {"training.beta": 0.0}),
    "rising steps": (
        "instability",
        {
            # Stopped by patience while the steps still grow: at the end of a cosine they would have calmed down.
            "training.max_epochs": 40,
            "training.patience": 4,
            "training.learning_rate": 16.0,
            "training.warmup_steps": 2000,
            "training.deterministic_fraction": 0.0,
            "training.kl_anneal_fraction": 0.0,
        },
    ),
}


@dataclass(frozen=True)
class Run:
    """What is known of a run that is over."""

    records: list[dict[str, Any]]
    settings: dict[str, Any]

    def diagnosis(self) -> Diagnosis:
        return diagnose(self.records, self.settings)


def train(parts: Parts, changes: Changes, is_deaf: bool = False) -> Run:
    sections: dict[str, Changes] = {"model": {}, "training": {}}
    for name, value in (BASE | changes).items():
        section, _, field = name.partition(".")
        sections[section][field] = value
    trainer = trainer_for(parts, None, sections["model"], **sections["training"])
    if is_deaf:
        # No setting does this: nothing of the encoder but the posterior reaches the decoder.
        for way in (trainer.network.decoder.posterior, trainer.network.decoder.context):
            torch.nn.init.zeros_(way.weight)
            way.weight.requires_grad_(False)
    records: list[dict[str, Any]] = []
    trainer.run([records.append])
    return Run(records, flat_settings(trainer.network.config.model_dump(), trainer.config.model_dump()))


@pytest.fixture(scope="module")
def made(shop_parts: Parts) -> dict[str, Run]:
    """Every run of MADE."""
    return {name: train(shop_parts, changes, name == "deaf decoder") for name, (_, changes) in MADE.items()}


@pytest.mark.parametrize("name", MADE)
def test_each_failure_is_recognized(made: dict[str, Run], name: str) -> None:
    found = made[name].diagnosis()
    assert found.kind == MADE[name][0], found.paragraph()
    if found.kind != "variance explosion":  # a latent that is drowned may be read a little, or not at all
        assert found.is_used == (found.kind not in ("collapse", "bypass"))
    assert found.verdict.startswith("The latent is used" if found.is_used else "The latent is NOT used")
    assert bool(found.advice) == (found.kind != "healthy")
    assert all(any(character.isdigit() for character in sentence) for sentence in found.evidence)


@pytest.mark.parametrize("name", ["heavy fixed beta", "tiny target", "huge steps", "late noise", "rising steps"])
def test_advice_that_is_followed_makes_the_run_healthy(made: dict[str, Run], shop_parts: Parts, name: str) -> None:
    advised = {one.setting: one.value for one in made[name].diagnosis().advice}
    after = train(shop_parts, MADE[name][1] | advised).diagnosis()
    assert after.kind == "healthy", after.paragraph()


def test_run_that_is_held_down_by_a_target_is_told_its_target_and_its_beta(made: dict[str, Run]) -> None:
    told = made["tiny target"].diagnosis().paragraph()
    assert "β reached 1 in epoch" in told
    assert "where 0.05 was asked for" in told
    assert "Set training.kl_target=5.0" in told


def test_target_below_the_floor_is_named_as_the_cause_of_a_beta_that_ran_away(made: dict[str, Run]) -> None:
    """The case of Beauty with a target of 12 nats, whose 64 dimensions cannot have fewer than 32."""
    records = copy.deepcopy(made["sound"].records)
    chosen_epoch(records)["beta"] = 36.0
    told = made["sound"].settings | {"model.latent_dim": 64, "training.kl_target": 12.0}
    found = diagnose(records, told)
    assert found.kind == "over-regularized"
    assert "less than 32 cannot be reached" in found.paragraph()
    assert (found.advice[0].setting, found.advice[0].value) == ("training.kl_target", 40.0)


@pytest.mark.parametrize("name", ["sound", "never any noise", "heavy fixed beta", "tiny target", "deaf decoder"])
def test_records_without_the_newer_numbers_are_still_read(made: dict[str, Run], name: str) -> None:
    records = copy.deepcopy(made[name].records)
    for record in records:
        for number in (*SINCE, *PER_POSITION):
            del record["health"][number]
    found = diagnose(records, made[name].settings)
    assert found.kind == MADE[name][0]
    assert [test.name for test in found.tests if test.value is None and test.is_healthy is not None] == []
    assert all(group.swap_gap is None and group.sigma is None for group in found.groups)
    assert [group.events for group in found.groups][:4] == ["0", "1", "2", "3–5"]


def test_sound_run_fails_no_test_and_a_failed_one_fails_some(made: dict[str, Run]) -> None:
    assert [test.name for test in made["sound"].diagnosis().tests if test.is_healthy is False] == []
    for name in ("heavy fixed beta", "tiny target", "huge steps", "late noise", "deaf decoder", "rising steps"):
        assert [test.name for test in made[name].diagnosis().tests if test.is_healthy is False], name


def test_diagnosis_is_of_the_epoch_that_was_kept(made: dict[str, Run]) -> None:
    records = copy.deepcopy(made["sound"].records)
    later = copy.deepcopy(made["heavy fixed beta"].records[-1])
    records.append(later | {"epoch": len(records), "is_best": False, "beta": 0.0, "nll": 0.0})
    records[-1]["validation_ndcg"] = records[-2]["validation_ndcg"]
    found = diagnose(records, made["sound"].settings)
    assert found.kind == "healthy"
    assert found.epoch == chosen_epoch(made["sound"].records)["epoch"] + 1


def test_chosen_epoch_is_the_last_that_was_best() -> None:
    assert chosen_epoch([{"is_best": True}, {"is_best": True, "epoch": 1}, {"is_best": False}])["epoch"] == 1
    assert chosen_epoch([{"is_best": False}, {"is_best": False, "epoch": 1}])["epoch"] == 1


share, nats, beta = st.floats(0, 1), st.floats(0, 100), st.floats(0, 100)


@given(
    health=st.fixed_dictionaries(
        {
            "kl": nats,
            "active_share": share,
            "mutual_information": nats,
            "swap_gap": st.floats(-1, 9),
            "swap_gap_at_mean": st.floats(-1, 9),
            "prior_gap": st.floats(-1, 9),
            "loss": nats,
            "loss_at_mean": nats,
            "clamped_share": share,
        }
    ),
    beta=beta,
    noise=st.sampled_from([0.0, 0.5, 1.0]),
    changes=st.fixed_dictionaries(
        {
            "model.bn_gamma": st.none() | st.floats(0.1, 3),
            "model.latent_dim": st.integers(2, 256),
            "training.kl_target": st.none() | st.floats(0.1, 100),
            "training.beta": st.sampled_from([0.0, 1e-5, 1e-4, 1.0]),
            "training.free_nats": st.sampled_from([0.0, 0.3]),
            "training.deterministic_fraction": share,
            "training.kl_anneal_fraction": share,
        }
    ),
)
def test_any_records_get_advice_that_changes_something_and_can_be_followed(
    health: dict[str, Any], beta: float, noise: float, changes: Changes
) -> None:
    record = {
        "epoch": 0, "is_best": True, "noise": noise, "beta": beta * noise, "nll": 3.0,
        "validation_ndcg": 0.1, "alarms": [],
        "health": health | {"alarms": [], "kl_per_position": [1.0] * 10},
    }  # fmt: skip
    settings = flat_settings(NetworkConfig(num_items=9).model_dump(), TrainingConfig().model_dump()) | changes
    found = diagnose([record], settings)
    assert all(one.value != settings[one.setting] == one.now for one in found.advice)
    if found.kind in ("collapse", "over-regularized"):
        after = settings | {one.setting: one.value for one in found.advice}
        model, training = (
            {name.partition(".")[2]: value for name, value in after.items() if name.startswith(section)}
            for section in ("model.", "training.")
        )
        refuse_unreachable_kl_target(NetworkConfig(**model), TrainingConfig(**training))


def test_worth_of_a_posterior_that_is_nothing_has_no_share(made: dict[str, Run]) -> None:
    records = copy.deepcopy(made["sound"].records)
    chosen_epoch(records)["health"]["swap_gap_at_mean"] = 0.0
    assert symptoms(records, made["sound"].settings).drowned_share is None
