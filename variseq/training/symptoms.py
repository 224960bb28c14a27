"""The records and settings of a run into the numbers that its diagnosis rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from variseq.training.collapse_watch import POSITION_EDGES
from variseq.training.kl_control import rate_floor

Epochs = Sequence[dict[str, Any]]


def chosen_epoch(epochs: Epochs) -> dict[str, Any]:
    """The record of the epoch that was chosen on validation."""
    return next((record for record in reversed(epochs) if record["is_best"]), epochs[-1])


def flat_settings(model: Mapping[str, Any], training: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by the names under which they are set.

    >>> flat_settings({"hidden_size": 64}, {"beta": 0.1})
    {'model.hidden_size': 64, 'training.beta': 0.1}
    """
    named = {f"model.{name}": value for name, value in model.items()}
    return named | {f"training.{name}": value for name, value in training.items()}


@dataclass(frozen=True)
class PositionGroup:
    """Posteriors after so many events; nats, None where it was not measured or no history reaches."""

    events: str
    kl: float | None
    swap_gap: float | None
    sigma: float | None


@dataclass(frozen=True)
class Symptoms:
    """The kept epoch in nats unless said, and what happened before and after it; None was not measured.

    `floor` is the KL that β cannot push below; `highest_beta` and `beta_epoch` are of the whole run; `noise_share` is
    the share of the epochs with full noise. `rise` is by how much the training loss of the last epoch lies above the
    lowest under the same noise, `late_ndcg` the last NDCG@10 as a share of the kept one, `swap_gap_before` the largest
    swap gap before the noise.
    """

    settings: Mapping[str, Any]
    epoch: int
    noise: float
    beta: float
    kl: float
    active_share: float
    mutual_information: float
    swap_gap: float
    prior_gap: float
    alarms: tuple[str, ...]
    swap_gap_at_mean: float | None
    noise_cost: float | None
    mean_sigma: float | None
    mean_spread: float | None
    clamped_share: float | None
    swap_gap_before: float | None
    floor: float
    highest_beta: float
    beta_epoch: int
    noise_share: float
    rise: float
    late_ndcg: float
    num_alarmed: int
    groups: tuple[PositionGroup, ...]

    @property
    def target(self) -> float | None:
        """The KL that β was steered to."""
        return self.settings["training.kl_target"] if self.settings["training.beta"] else None

    @property
    def drowned_share(self) -> float | None:
        """The share of a posterior's worth that its noise takes: loss of a sample less that of μ, over the gap at μ."""
        if self.noise_cost is None or not self.swap_gap_at_mean:
            return None
        return self.noise_cost / self.swap_gap_at_mean


def symptoms(epochs: Epochs, settings: Mapping[str, Any]) -> Symptoms:
    """The numbers of a run of at least one epoch; records of older releases lack some of them."""
    chosen = chosen_epoch(epochs)
    health: dict[str, Any] = chosen["health"]
    alike = [record for record in epochs if record["noise"] == epochs[-1]["noise"]]
    # The first of them began under less noise.
    alike = alike[1:] or alike
    strongest = max(epochs, key=lambda record: record["beta"])
    loss, loss_at_mean = health.get("loss"), health.get("loss_at_mean")
    before = [record["health"].get("swap_gap_at_mean", record["health"]["swap_gap"]) for record in _quiet(epochs)]
    return Symptoms(
        settings=settings,
        epoch=chosen["epoch"] + 1,
        noise=chosen["noise"],
        beta=chosen["beta"],
        kl=health["kl"],
        active_share=health["active_share"],
        mutual_information=health["mutual_information"],
        swap_gap=health["swap_gap"],
        prior_gap=health["prior_gap"],
        alarms=tuple(health["alarms"]),
        swap_gap_at_mean=health.get("swap_gap_at_mean"),
        noise_cost=None if loss is None or loss_at_mean is None else loss - loss_at_mean,
        mean_sigma=health.get("mean_sigma"),
        mean_spread=health.get("mean_spread"),
        clamped_share=health.get("clamped_share"),
        swap_gap_before=max(before, default=None),
        floor=rate_floor(settings["model.latent_dim"], settings["model.bn_gamma"], settings["training.free_nats"]),
        highest_beta=strongest["beta"],
        beta_epoch=strongest["epoch"] + 1,
        noise_share=sum(record["noise"] >= 1 for record in epochs) / len(epochs),
        rise=epochs[-1]["nll"] - min(record["nll"] for record in alike),
        late_ndcg=epochs[-1]["validation_ndcg"] / max(chosen["validation_ndcg"], 1e-9),
        num_alarmed=sum(bool(record["alarms"]) for record in epochs),
        groups=position_groups(health),
    )


def _quiet(epochs: Epochs) -> list[dict[str, Any]]:
    return [record for record in epochs if record["noise"] == 0]


def position_groups(health: Mapping[str, Any]) -> tuple[PositionGroup, ...]:
    """The groups that the watched histories reach, by how many events were seen before."""
    missing: list[float | None] = [None] * len(POSITION_EDGES)
    rates = health["kl_per_position"]
    gaps = health.get("swap_gap_per_position", missing)
    sigmas = health.get("sigma_per_position", missing)
    names = [range_name(index) for index in range(len(POSITION_EDGES))]
    rows = zip(names, rates, gaps, sigmas, strict=True)
    return tuple(PositionGroup(*row) for row in rows if row[1] is not None)


def range_name(index: int) -> str:
    """How many events have been seen in a group of positions.

    >>> [range_name(index) for index in (0, 3, 9)]
    ['0', '3–5', '201+']
    """
    first = POSITION_EDGES[index]
    if index + 1 == len(POSITION_EDGES):
        return f"{first}+"
    last = POSITION_EDGES[index + 1] - 1
    return str(first) if first == last else f"{first}–{last}"
