"""A seed into the files of a small shop, and the words that train a run on it in about a second."""

from __future__ import annotations

from pathlib import Path

from variseq.events.simulate import SimulationOptions, simulate

QUICK = """
size: tiny
device: cpu
split: {by: leave-one-out}
model: {hidden_size: 16, latent_dim: 8, num_layers: 1, num_heads: 2, attention_dim: 4, max_seq_len: 20}
training: {max_epochs: 3, batch_tokens: 512, warmup_steps: 5, learning_rate: 0.01, kl_target: 8.0, beta: 0.001}
"""


def write_shop(folder: Path) -> Path:
    """shop.csv, shop-items.csv and quick.yaml in a folder; the path of the log."""
    options = SimulationOptions(num_users=80, num_items=30, num_categories=3, mean_events=12, seed=5)
    events, _ = simulate(options).write(folder / "shop.csv")
    (folder / "quick.yaml").write_text(QUICK)
    return events


def quick_fit(shop: Path, out: Path, *more: object) -> list[object]:
    """The words of `variseq fit` on the shop."""
    return ["fit", shop, "--out", out, "--config", shop.with_name("quick.yaml"), *more]


def left_in(folder: Path) -> list[str]:
    """The names of everything in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())
