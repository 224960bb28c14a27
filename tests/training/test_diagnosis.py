"""Runs made to fail in each way: the diagnosis names the failure, and its changes mend it."""

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
from variseq.training.config import TrainingConfig
from variseq.training.diagnosis import Diagnosis, chosen_epoch, diagnose, flat_settings
from variseq.training.schedule import refuse_unreachable_kl_target

pytestmark = pytest.mark.slow

Parts = tuple[LogPart, LogPart, LogPart]
Changes = dict[str, Any]

BASE: Changes = {"training.max_epochs": 6, "training.patience": 6, "training.batch_tokens": 128}
PER_POSITION = ("kl_per_position", "swap_gap_per_position", "sigma_per_position")
MADE: dict[str, tuple[str, Changes]] = {
    "sound": ("healthy", {}),
    "never any noise": ("deterministic", {"training.deterministic_fraction": 1.0}),
    "heavy fixed beta": (
        "collapse",
        {
            "model.mean_scale": None,
            "training.kl_target": None,
            "training.beta": 10.0,
            "training.deterministic_fraction": 0.0,
            "training.kl_anneal_fraction": 0.0,
        },
    ),
    "tiny target": (
        "over-regularized",
        {"model.mean_scale": None, "training.kl_target": 0.05, "training.beta": 0.3},
    ),
    "huge steps": ("noise-dominated", {"training.learning_rate": 0.3}),
    "late noise": (
        "noise-dominated",
        {"model.mean_scale": 0.3, "training.deterministic_fraction": 0.9, "training.kl_anneal_fraction": 0.0},
    ),
    "blind decoder": ("decoder ignores z", {"training.beta": 0.0}),
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


def train(parts: Parts, changes: Changes, is_blind: bool = False) -> Run:
    sections: dict[str, Changes] = {"model": {}, "training": {}}
    for name, value in (BASE | changes).items():
        section, _, field = name.partition(".")
        sections[section][field] = value
    trainer = trainer_for(parts, None, sections["model"], **sections["training"])
    if is_blind:
        # No setting does this: nothing of the encoder but the posterior reaches the decoder.
        for way in (trainer.network.decoder.posterior, trainer.network.decoder.context):
            torch.nn.init.zeros_(way.weight)
            way.weight.requires_grad_(False)
    trainer.run()
    return Run(trainer.records, flat_settings(trainer.network.config.model_dump(), trainer.config.model_dump()))


class Runs(dict[str, Run]):
    """The runs of MADE, each trained when it is first used."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.parts = parts

    def __missing__(self, name: str) -> Run:
        self[name] = train(self.parts, MADE[name][1], name == "blind decoder")
        return self[name]


@pytest.fixture(scope="module")
def made(shop_parts: Parts) -> Runs:
    return Runs(shop_parts)


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_each_failure_is_recognized(made: Runs, name: str) -> None:
    found = made[name].diagnosis()
    assert found.kind == MADE[name][0], found.paragraph()
    if found.kind != "noise-dominated":  # a decoder may use a noisy latent a little, or not at all
        assert found.is_used == (found.kind not in ("collapse", "decoder ignores z"))
    assert found.verdict.startswith("The latent is used" if found.is_used else "The latent is NOT used")
    assert bool(found.changes) == (found.kind != "healthy")
    assert all(any(character.isdigit() for character in sentence) for sentence in found.evidence)
    if found.kind != "deterministic":
        assert any(test.is_healthy is False for test in found.tests) == (found.kind != "healthy")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["heavy fixed beta", "tiny target", "huge steps", "late noise"])
def test_suggested_changes_make_the_run_healthy(made: Runs, shop_parts: Parts, name: str) -> None:
    changes = {one.setting: one.suggested for one in made[name].diagnosis().changes}
    after = train(shop_parts, MADE[name][1] | changes).diagnosis()
    assert after.kind == "healthy", after.paragraph()


def test_decoder_that_was_still_learning_needs_more_epochs_and_no_smaller_steps(made: Runs) -> None:
    run = made["blind decoder"]
    records = [record | {"is_best": record is run.records[-1]} for record in run.records]
    (change,) = Run(records, run.settings).diagnosis().changes
    assert change.setting == "training.max_epochs"
    assert change.suggested > change.current


def test_over_regularized_run_shows_its_target_and_its_beta(made: Runs) -> None:
    text = made["tiny target"].diagnosis().paragraph()
    assert "β reached 1 in epoch" in text
    assert "its target is 0.05" in text
    assert "Set training.kl_target=5.0" in text


def test_target_below_the_floor_is_named_as_the_cause_of_a_beta_that_ran_away(made: Runs) -> None:
    """The case of Beauty with a target of 12 nats, whose 64 dimensions cannot have fewer than 32."""
    records = copy.deepcopy(made["sound"].records)
    chosen_epoch(records)["beta"] = 36.0
    settings = made["sound"].settings | {"model.latent_dim": 64, "training.kl_target": 12.0}
    found = diagnose(records, settings)
    assert found.kind == "over-regularized"
    assert "cannot fall below 32" in found.paragraph()
    assert (found.changes[0].setting, found.changes[0].suggested) == ("training.kl_target", 40.0)


def test_diagnosis_is_of_the_epoch_that_was_kept(made: Runs) -> None:
    records = copy.deepcopy(made["sound"].records)
    later = copy.deepcopy(made["heavy fixed beta"].records[-1])
    records.append(later | {"epoch": len(records), "is_best": False, "beta": 0.0, "nll": 0.0})
    records[-1]["validation_ndcg"] = records[-2]["validation_ndcg"]
    found = diagnose(records, made["sound"].settings)
    assert found.kind == "healthy"
    assert found.epoch == chosen_epoch(made["sound"].records)["epoch"] + 1


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
            "mean_sigma": share,
            "mean_spread": share,
        }
    ),
    beta=beta,
    noise=st.sampled_from([0.0, 0.5, 1.0]),
    changes=st.fixed_dictionaries(
        {
            "model.mean_scale": st.none() | st.floats(0.1, 3),
            "model.latent_dim": st.integers(2, 256),
            "training.kl_target": st.none() | st.floats(0.1, 100),
            "training.beta": st.sampled_from([0.0, 1e-5, 1e-4, 1.0]),
            "training.free_nats": st.sampled_from([0.0, 0.3]),
            "training.deterministic_fraction": share,
            "training.kl_anneal_fraction": share,
            "training.noise_learning_rate": st.sampled_from([None, 0.001]),
        }
    ),
)
def test_any_records_get_changes_that_are_allowed_and_change_something(
    health: dict[str, Any], beta: float, noise: float, changes: Changes
) -> None:
    record = {
        "epoch": 0, "is_best": True, "noise": noise, "beta": beta * noise, "nll": 3.0,
        "validation_ndcg": 0.1, "alarms": [],
        "health": health | {"alarms": [], "kl_per_dimension": [1.0]} | dict.fromkeys(PER_POSITION, [1.0] * 10),
    }  # fmt: skip
    settings = flat_settings(NetworkConfig(num_items=9).model_dump(), TrainingConfig().model_dump()) | changes
    if settings["training.noise_learning_rate"] is None:
        del settings["training.noise_learning_rate"]  # as in a run of an earlier release
    found = diagnose([record], settings)
    assert all(one.suggested != settings[one.setting] == one.current for one in found.changes)
    if found.kind == "deterministic" and 0 < settings["training.deterministic_fraction"] < 1:
        has_choice = "training.noise_learning_rate" in settings
        assert [one.assignment() for one in found.changes if "null" in one.assignment()] == (
            ["training.noise_learning_rate=null"] if has_choice else []
        )
    if found.kind in ("collapse", "over-regularized"):
        after = settings | {one.setting: one.suggested for one in found.changes}
        model, training = (
            {name.partition(".")[2]: value for name, value in after.items() if name.startswith(section)}
            for section in ("model.", "training.")
        )
        refuse_unreachable_kl_target(NetworkConfig(**model), TrainingConfig(**training))
