"""What a settings model found wrong into one message for the person who wrote the settings."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ValidationError

from variseq.errors import InputError


def settings_error(error: ValidationError, kind: type[BaseModel], section: str = "") -> InputError:
    """What is wrong with settings of a kind, as one message; an unknown name is answered with the known ones."""
    told = []
    for fault in error.errors():
        name = ".".join(str(part) for part in (section, *fault["loc"]) if part != "")
        if fault["type"] == "extra_forbidden":
            told.append(f"there is no {name or 'setting without a name'}; {_known_names(kind, fault['loc'][:-1])}")
        else:
            told.append(f"{name or 'settings'} = {fault['input']!r}: {fault['msg']}")
    return InputError(f"The settings are not right: {'; '.join(told)}.")


def _known_names(kind: type[BaseModel], path: Sequence[int | str]) -> str:
    for part in path:
        inner = kind.model_fields[str(part)].annotation
        kind = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else kind
    return f"there are: {', '.join(kind.model_fields)}"
