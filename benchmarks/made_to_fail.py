"""Runs made to fail in each way, what the doctor says of each, and of the same run with its advice followed.

    python benchmarks/made_to_fail.py

Small networks on simulated shoppers, a few seconds each; the verdicts are printed and written to results/doctor.json.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from provenance import provenance
from record_file import write_record
from rich.console import Console

from variseq.events.simulate import SimulationOptions, simulate
from variseq.log import LogPart, read
from variseq.model.network import Network, NetworkConfig
from variseq.terminal.doctor import print_diagnosis
from variseq.training.diagnosis import Diagnosis, diagnose
from variseq.training.settings import TrainingConfig
from variseq.training.symptoms import flat_settings
from variseq.training.trainer import Trainer, TrainingData
from variseq.training.validation import Validation

RESULTS = Path(__file__).parent / "results" / "doctor.json"
SHOP = SimulationOptions(num_users=300, num_items=60, num_categories=6, mean_events=20, seed=3)
SOUND: dict[str, Any] = {
    "model.hidden_size": 16,
    "model.latent_dim": 8,
    "model.num_layers": 1,
    "model.attention_dim": 4,
    "model.max_seq_len": 20,
    "model.dropout": 0.1,
    "training.max_epochs": 12,
    "training.patience": 12,
    "training.batch_tokens": 256,
    "training.learning_rate": 0.01,
    "training.warmup_steps": 10,
    "training.ema_decay": 0.95,
    "training.kl_target": 6.0,
}
WITHOUT_PAUSE = {"training.deterministic_fraction": 0.0, "training.kl_anneal_fraction": 0.0}
MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "sound settings": ("healthy", {}),
    "never any noise": ("deterministic twin", {"training.deterministic_fraction": 1.0}),
    "fixed β of 10 from the start, means free to shrink": (
        "collapse",
        {"model.bn_gamma": None, "training.kl_target": None, "training.beta": 10.0, **WITHOUT_PAUSE},
    ),
    "target of 0.05 nats, means free to shrink": (
        "over-regularized",
        {"model.bn_gamma": None, "training.kl_target": 0.05, "training.beta": 0.05},
    ),
    "learning rate of 0.3": ("variance explosion", {"training.learning_rate": 0.3}),
    "noise in the last tenth only, narrow means": (
        "variance explosion",
        {"model.bn_gamma": 0.3, "training.deterministic_fraction": 0.9, "training.kl_anneal_fraction": 0.0},
    ),
    "decoder made deaf by hand": ("bypass", {"training.beta": 0.0}),
    "learning rate that rises without end": (
        "instability",
        {"training.learning_rate": 10.0, "training.warmup_steps": 2000, **WITHOUT_PAUSE},
    ),
}
DEAF = "decoder made deaf by hand"


def make_deaf(network: Network) -> None:
    """Cut what leads from z into the decoder; no setting does that, as nothing else of the encoder arrives there."""
    for way in (network.decoder.posterior, network.decoder.context):
        torch.nn.init.zeros_(way.weight)
        way.weight.requires_grad_(False)


def train(parts: tuple[LogPart, LogPart], settings: dict[str, Any], is_deaf: bool) -> Diagnosis:
    """A run with these settings, and the doctor's word on it."""
    train_part, valid = parts[0].part, parts[1].part
    model, training = (
        {name.partition(".")[2]: value for name, value in settings.items() if name.startswith(section)}
        for section in ("model.", "training.")
    )
    shape = NetworkConfig(num_items=train_part.num_items, num_behaviors=3, has_gaps=True, **model)
    config = TrainingConfig(**training)
    torch.manual_seed(config.seed)
    network = Network(shape)
    if is_deaf:
        make_deaf(network)
    records: list[dict[str, Any]] = []
    Trainer(network, TrainingData(train_part.known(), Validation(valid, config)), config).run([records.append])
    return diagnose(records, flat_settings(shape.model_dump(), config.model_dump()))


def main() -> None:
    torch.set_num_threads(1)
    console, rows = Console(), []
    shop = simulate(SHOP)
    parts = read(shop.events(), items=shop.items()).split("leave-one-out")[:2]
    for name, (expected, changes) in MADE.items():
        console.rule(name)
        found = train(parts, SOUND | changes, name == DEAF)
        print_diagnosis(found, console)
        row = {"made": name, "settings": changes, "expected": expected, "diagnosis": asdict(found)}
        if found.kind not in ("healthy", "deterministic twin", "bypass"):
            followed = {one.setting: one.value for one in found.advice}
            after = train(parts, SOUND | changes | followed, is_deaf=False)
            console.print(f"With that advice followed: {after.kind}", style="bold")
            row |= {"advice_followed": followed, "after": after.kind, "evidence_after": after.evidence}
        rows.append(row)
    head = {
        **provenance(),
        "shop": asdict(SHOP),
        "sound_settings": SOUND,
    }
    write_record(RESULTS, head | {"runs": rows})
    for row in rows:
        console.print(f"{row['made']}: {row['diagnosis']['kind']} (expected {row['expected']}); {row.get('after', '')}")


if __name__ == "__main__":
    main()
