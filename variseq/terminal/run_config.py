"""The configuration of `variseq fit`: a YAML file, flags and `--set`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from variseq.errors import InputError
from variseq.events.options import ReadOptions
from variseq.log import SplitMethod
from variseq.training.config import validated


class SplitConfig(BaseModel):
    """How the log is split; see `Log.split`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: SplitMethod = "time"
    test: int | float | str | None = None
    valid: int | float | str | None = None
    targets_of: str | list[str] | None = None


class RunConfig(BaseModel):
    """All settings of `variseq fit`; each section is checked by the part that uses it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Literal["tiny", "small", "medium", "large"] = "small"
    seed: int = Field(default=0, ge=0)
    device: str = "auto"
    read: ReadOptions = Field(default_factory=ReadOptions)
    split: SplitConfig = Field(default_factory=SplitConfig)
    model: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)


def run_config(
    path: Path | None, flags: dict[str, Any], assignments: Sequence[str], defaults: dict[str, Any] | None = None
) -> RunConfig:
    """The file, then the command line's flags (dotted names; None is not given), then `--set name=value`, later wins.

    `defaults` stand below all of them, by the names of sections.

    Raises InputError for a file that is no YAML mapping, an unknown key or a value that is not allowed.

    >>> run_config(None, {"size": "tiny", "split.by": None}, ["model.hidden_size=16"]).model
    {'hidden_size': 16}
    """
    settings = (defaults or {}) | ({} if path is None else _from_file(path))
    for name, value in flags.items():
        if value is not None:
            _assign(settings, name, value)
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(
                f"--set {assignment!r} is not of the form section.name=value, as in model.hidden_size=128."
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"The value in --set {assignment!r} is no YAML. Quote it: {name}='...'.") from error
        _assign(settings, name.strip(), value)
    return validated(RunConfig, settings)


def _from_file(path: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"The configuration {path} cannot be read: {str(error).splitlines()[0]}.") from error
    if not isinstance(settings, dict):
        raise InputError(
            f"The configuration {path} is no YAML mapping. Allowed sections: {', '.join(RunConfig.model_fields)}."
        )
    if odd := [key for key in settings if not isinstance(key, str)]:
        raise InputError(f"The configuration {path} has a key that is no text: {odd[0]!r}. Put it in quotes.")
    return settings


def _assign(settings: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for section in sections:
        settings = settings.setdefault(section, {})
        if not isinstance(settings, dict):
            raise InputError(f"{name!r} cannot be set: {section!r} has no parts.")
    settings[last] = value
