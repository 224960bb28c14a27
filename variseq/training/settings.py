"""How a network is trained: every dial of the loop, checked."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainingConfig(BaseModel):
    """Settings of one training run; rates are in nats per position, shares are of the whole run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, ge=0, description="the same seed gives the same model on one machine")
    max_epochs: int = Field(default=60, ge=1, description="passes over every training event")
    patience: int = Field(
        default=12,
        ge=1,
        description="epochs without a better validation NDCG@10 before stopping; only those with full noise count, so "
        "a run with no more of them than this goes on to its end",
    )
    batch_tokens: int = Field(default=4096, ge=16, description="positions per batch")
    learning_rate: float = Field(default=2e-3, gt=0, description="highest learning rate; it falls as a cosine")
    weight_decay: float = Field(default=0.01, ge=0, description="decay of matrices (AdamW)")
    item_weight_decay: float = Field(default=0.0, ge=0, description="decay of the items' own vectors (AdamW)")
    warmup_steps: int = Field(default=100, ge=0, description="steps in which the learning rate rises from zero")
    max_grad_norm: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    ema_decay: float = Field(default=0.99, ge=0, lt=1, description="decay of the moving average of weights; 0 is off")
    deterministic_fraction: float = Field(default=0.3, ge=0, le=1, description="share trained without noise, first")
    kl_anneal_fraction: float = Field(
        default=0.1, ge=0, le=1, description="share in which noise and β then rise to full"
    )
    num_samples: int = Field(default=1, ge=1, description="samples of a posterior, whose mixture is trained")
    kl_target: float | None = Field(default=40.0, gt=0, description="KL that β is steered to; None: β stays fixed")
    beta: float = Field(default=1e-4, ge=0, description="weight of the KL: at the start, or fixed")
    free_nats: float = Field(default=0.0, ge=0, description="KL per dimension that costs nothing")
    value_loss_weight: float = Field(default=0.1, ge=0, description="λ, the weight of the value regression")
    num_negatives: int = Field(default=2048, ge=1, description="shared negatives where the catalog is too large")
    full_softmax_max_items: int = Field(default=4096, ge=1, description="largest catalog with the full softmax")
    use_categories: bool = Field(default=True, description="item vectors share those of their categories in training")
    refit_fraction: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="epochs of the refit on training and validation, as a share; 0: none",
    )
    num_refits: int = Field(default=2, ge=1, description="refits in other orders, whose weights are averaged")
    refit_weight_decay_multiplier: float = Field(
        default=1.0, ge=0, description="item_weight_decay is multiplied by this in the refit"
    )
    exclude_seen: bool = Field(default=True, description="leave out the user's own items; off for repeat consumption")
    targets: Literal["next", "last", "successive"] = Field(default="last", description="what validation asks for")
    validation_users: int = Field(default=10_000, ge=1, description="users that validation looks at, at most")

    @property
    def refit_epochs(self) -> int:
        """Epochs of each refit; 0 where there is none.

        >>> TrainingConfig(max_epochs=20).refit_epochs
        6
        """
        return max(1, round(self.refit_fraction * self.max_epochs)) if self.refit_fraction else 0
