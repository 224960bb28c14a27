"""An experiment: its arms, read from a YAML file, and the arm of each user."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from variseq.errors import InputError
from variseq.events.options import duration
from variseq.events.vocabulary import Id, typed
from variseq.ranking.options import RecommendOptions

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
MAX_ARMS = 20
HASH_BITS = 53
"""Of the hash of a user: as many as a float holds."""


class Arm(BaseModel):
    """A policy of an experiment, and the share of the users who get it. An option that is not named is the server's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    share: float = Field(gt=0, lt=1)
    strategy: str | None = None
    temperature: float | None = None
    pool: int | None = None
    uniform_share: float | None = None
    diversity: float | None = None
    new_items_share: float | None = None
    exclude_seen: bool | None = None

    @property
    def policy(self) -> dict[str, Any]:
        """The options that are named."""
        return self.model_dump(exclude={"name", "share"}, exclude_none=True)

    def refuse_impossible(self, policy: dict[str, Any]) -> None:
        """Raises InputError where its options, with those of a server, cannot be."""
        try:
            RecommendOptions(k=1, **policy | self.policy)
        except InputError as error:
            raise InputError(f"The arm {self.name!r} cannot be served. {error}") from error


class Experiment(BaseModel):
    """Policies that are compared on live users.

    Args:
        name: The salt of the assignment, so that users are assigned anew in each experiment.
        arms: The first one is the control.
        follow_up: A user's rewards count for so long after the first list.
        planned_users: In all arms; the always-valid interval is tightest once there are as many.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    arms: tuple[Arm, ...] = Field(min_length=2, max_length=MAX_ARMS)
    follow_up: str = "1d"
    planned_users: int = Field(10_000, ge=100)

    @model_validator(mode="after")
    def _check(self) -> Experiment:
        twice = [name for name, number in Counter(arm.name for arm in self.arms).items() if number > 1]
        if twice:
            raise ValueError(f"two arms have the name {twice[0]!r}; give each its own")
        total = math.fsum(arm.share for arm in self.arms)
        if abs(total - 1) > 1e-9:
            raise ValueError(f"the shares of the arms sum to {total:.6g}, and must sum to 1")
        if self.follow_up_microseconds <= 0:
            raise ValueError(f"follow_up={self.follow_up!r} is no time; give one, such as 1d")
        for arm in self.arms:
            arm.refuse_impossible({})
        return self

    @property
    def follow_up_microseconds(self) -> int:
        """`follow_up` in microseconds."""
        return duration(self.follow_up, "follow_up")

    def arm_of(self, user_id: Id) -> Arm:
        """The arm of a user: always the same, and unrelated to the arms in other experiments.

        The first 53 bits of SHA-256 of the name, a line break and the id with its type ("i:12", or "s:ann") are a
        number from 0 to 1; the arms divide this range in their order.

        >>> halves = [{"name": "control", "share": 0.5}, {"name": "softmax", "share": 0.5, "strategy": "softmax"}]
        >>> experiment = Experiment(name="ranking", arms=halves)
        >>> [experiment.arm_of(user_id).name for user_id in ("ann", "bob", 12, "12")]
        ['control', 'control', 'softmax', 'control']
        """
        digest = hashlib.sha256(f"{self.name}\n{typed(user_id)}".encode()).digest()
        at = (int.from_bytes(digest[:8], "big") >> (64 - HASH_BITS)) / 2**HASH_BITS
        end = 0.0
        for arm in self.arms:
            end += arm.share
            if at < end:
                return arm
        return self.arms[-1]


def read_experiment(path: Path) -> Experiment:
    """The experiment of a YAML file. Raises InputError for a file or a value that cannot be, naming the first."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"The experiment {path} cannot be read: {str(error).splitlines()[0]}.") from error
    if not isinstance(values, dict):
        raise InputError(f"The experiment {path} is no YAML mapping. It has a name and arms.")
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            model = Arm if "arms" in first["loc"] else Experiment
            reason = f"there is no such option; allowed are {', '.join(model.model_fields)}"
        raise InputError(f"The experiment {path} is not possible: {where}{': ' if where else ''}{reason}.") from error
