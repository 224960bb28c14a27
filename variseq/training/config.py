"""The validated settings of a training run, and the error message for settings that are not allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from variseq.errors import InputError
from variseq.sequences.calendar import UTC, checked_calendar


class TrainingConfig(BaseModel):
    """Settings of one training run. KL is in nats per position, fractions are of the epochs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, ge=0, description="the same seed gives the same model on one machine")
    max_epochs: int = Field(default=60, ge=1, description="passes over every training event")
    patience: int = Field(
        default=12,
        ge=1,
        description="epochs without a better validation NDCG@10 before stopping; only those with full noise count, so "
        "a run with no more of them than this goes on to its end",
    )
    batch_tokens: int = Field(default=4096, ge=16, description="tokens per batch")
    learning_rate: float = Field(default=2e-3, gt=0, description="highest learning rate; it falls as a cosine")
    weight_decay: float = Field(default=0.01, ge=0, description="decay of matrices (AdamW)")
    item_weight_decay: float = Field(default=0.0, ge=0, description="decay of the items' own vectors (AdamW)")
    warmup_steps: int = Field(default=100, ge=0, description="steps in which the learning rate rises from zero")
    max_grad_norm: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    ema_decay: float = Field(default=0.99, ge=0, lt=1, description="decay of the moving average of weights; 0 is off")
    deterministic_fraction: float = Field(
        default=0.3, ge=0, le=1, description="fraction trained without noise, at the start"
    )
    kl_anneal_fraction: float = Field(default=0.1, ge=0, le=1, description="fraction in which noise and β then rise")
    noise_learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="highest learning rate of the epochs with noise; the rate of those without noise then falls to its "
        "end before, and validation chooses between them. None: one cosine, and an epoch with noise is chosen",
    )
    num_samples: int = Field(default=1, ge=1, description="posterior samples in the mixture that the loss is of")
    kl_target: float | None = Field(default=40.0, gt=0, description="KL that β is adapted to; None: β is fixed")
    beta: float = Field(default=1e-4, ge=0, description="weight of the KL: at the start, or fixed")
    free_nats: float = Field(default=0.0, ge=0, description="KL per dimension without penalty")
    value_loss_weight: float = Field(default=0.1, ge=0, description="λ, the weight of the value regression")
    num_negatives: int = Field(default=2048, ge=1, description="shared negatives of a large catalog")
    full_softmax_max_items: int = Field(default=4096, ge=1, description="largest catalog with the full softmax")
    skip_gram_weight: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="weight of the event after the next one; that of each later one falls by this factor",
    )
    mask_seen: bool = Field(
        default=False, description="leave seen items out of the softmax of training, where they are not ranked"
    )
    use_categories: bool = Field(default=True, description="add category vectors to item vectors")
    use_content: bool = Field(default=True, description="add a map of content vectors to item vectors")
    refit_fraction: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="epochs of a refit on training and validation events, as a fraction; 0: no refit",
    )
    num_refits: int = Field(default=2, ge=1, description="refits whose weights are averaged")
    refit_weight_decay_multiplier: float = Field(default=1.0, ge=0, description="factor of item_weight_decay in refits")
    exclude_seen: bool = Field(default=True, description="do not rank items of the user's history")
    only_new_targets: bool = Field(
        default=False, description="train on items that are new to the person; own history forecasts the others"
    )
    targets: Literal["first", "last", "all"] = Field(default="last", description="targets of validation")
    validation_users: int = Field(default=10_000, ge=1, description="most users that validation uses")
    calendar: str = Field(
        default=UTC, description="IANA time zone of hours and days where the request time is known; none: no calendar"
    )

    @field_validator("calendar")
    @classmethod
    def _is_a_zone(cls, calendar: str) -> str:
        try:
            return checked_calendar(calendar)
        except InputError as error:
            raise ValueError(str(error).rstrip(".")) from error

    @property
    def masks_seen(self) -> bool:
        """Whether seen items are left out of the softmax of training."""
        return self.mask_seen and self.exclude_seen

    @property
    def chooses_noise(self) -> bool:
        """Whether validation chooses between the epochs without noise and those with it, which come later."""
        return self.noise_learning_rate is not None and 0 < self.deterministic_fraction < 1

    @property
    def refit_epochs(self) -> int:
        """Epochs of each refit; 0 where there is none.

        >>> TrainingConfig(max_epochs=20).refit_epochs
        6
        """
        return max(1, round(self.refit_fraction * self.max_epochs)) if self.refit_fraction else 0


Model = TypeVar("Model", bound=BaseModel)


def validated(kind: type[Model], settings: dict[str, Any], section: str = "") -> Model:
    """Settings as a model. Raises InputError with all problems; for an unknown name it lists the known ones."""
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        problems = []
        for fault in error.errors():
            name = ".".join(str(part) for part in (section, *fault["loc"]) if part != "")
            if fault["type"] == "extra_forbidden":
                known = _known_names(kind, fault["loc"][:-1])
                problems.append(f"there is no {name or 'setting without a name'}; {known}")
            else:
                problems.append(f"{name or 'settings'} = {fault['input']!r}: {fault['msg']}")
        raise InputError(f"The settings are not right: {'; '.join(problems)}.") from error


def _known_names(kind: type[BaseModel], path: Sequence[int | str]) -> str:
    for part in path:
        inner = kind.model_fields[str(part)].annotation
        kind = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else kind
    return f"there are: {', '.join(kind.model_fields)}"
