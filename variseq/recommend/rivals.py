"""Finished runs of one log into the forecasts that are judged beside each other, and the part they are judged on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from variseq.errors import InputError
from variseq.evaluation.evaluate import EvaluationOptions
from variseq.evaluation.recommender import Recommender
from variseq.evaluation.splits import Part, Split, learned_from, part_to_judge
from variseq.model.checkpoint import Checkpoint
from variseq.ranking.calibration import NUM_SAMPLES
from variseq.recommend.dropout import with_dropout
from variseq.recommend.forecast import Forecast
from variseq.sequences.histories import Histories


@dataclass(frozen=True, eq=False)
class Rival:
    """A finished run: what its row is called, what its folder holds, and its own calibrated forecast."""

    name: str
    checkpoint: Checkpoint
    forecast: Forecast

    @property
    def is_refitted(self) -> bool:
        return bool(self.checkpoint.config["training"]["refit_fraction"])


def judged_on(split: Split, part: Part | None, is_refitted: bool) -> tuple[Part, Histories]:
    """The test part or the one given, for models that have learned from the events that come with it.

    After a refit these are the validation events too, and what counts as an unseen target follows. Raises InputError
    for a part that they cannot be judged on.
    """
    judged = part_to_judge(split, part, is_refitted)
    known = split[2].known() if is_refitted else split[0].known()
    return learned_from(judged, known, "training and validation" if is_refitted else "training"), known


def named_forecasts(rivals: Sequence[Rival], valid: Part, dropout: bool) -> list[Forecast]:
    """The forecast of each run under its name and, with `dropout`, the same network with dropout left on after it.

    As many passes are made as the first run has samples. Raises InputError for runs that were not made of the first
    one's log and split, and for dropout where the network has learned from the validation part, on which it is
    calibrated.
    """
    first, *others = rivals
    for other in others:
        _require_alike(first, other)
    if dropout and first.is_refitted:
        raise InputError(
            "The run has been refitted with the validation events, so dropout cannot be calibrated on them as the run "
            "was, and the comparison would not be fair. Ask without dropout, or fit every run with "
            "training={'refit_fraction': 0} (--set training.refit_fraction=0)."
        )
    num_passes = first.forecast.calibration.num_samples or NUM_SAMPLES
    forecasts = []
    for rival in rivals:
        rival.forecast.name = rival.name
        forecasts.append(rival.forecast)
        if dropout:
            config = rival.checkpoint.config["training"]
            options = EvaluationOptions(targets=config["targets"], exclude_seen=config["exclude_seen"])
            forecasts.append(with_dropout(rival.forecast, num_passes, valid, options))
    return forecasts


def refuse_same_names(recommenders: Sequence[Recommender]) -> None:
    """Raises InputError where two rows of a table would have one name."""
    names = [recommender.name for recommender in recommenders]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"Two rows would be called {name!r}. Give another name than {', '.join(names)}.")


def _require_alike(first: Rival, other: Rival) -> None:
    ours, theirs = first.checkpoint, other.checkpoint
    # That the first one has its own is seen when its split is made.
    if ours.bounds is None or ours.histories is None or theirs.bounds is None or theirs.histories is None:
        raise InputError(f"{other.name!r} was saved without histories, so there is nothing to evaluate it on.")
    is_alike = {
        "users": ours.vocabulary.users.equals(theirs.vocabulary.users),
        "items": ours.vocabulary.items.equals(theirs.vocabulary.items),
        "behaviors": ours.vocabulary.behaviors == theirs.vocabulary.behaviors,
        "the behaviors that are asked for": _targets_of(ours) == _targets_of(theirs),
        "events": _are_equal(ours.histories, theirs.histories),
        "where validation and test begin": np.array_equal(ours.bounds, theirs.bounds),
        "whether a refit took in the validation events": first.is_refitted == other.is_refitted,
    }
    different = [what for what, same in is_alike.items() if not same]
    if different:
        raise InputError(
            f"{first.name!r} and {other.name!r} are not measured alike. They differ in: {', '.join(different)}. Give "
            "runs of the same log and split, refitted all or none (training.refit_fraction)."
        )


def _targets_of(checkpoint: Checkpoint) -> list[str] | None:
    targets: list[str] | None = checkpoint.manifest["protocol"].get("targets_of")
    return targets


def _are_equal(first: Histories, second: Histories) -> bool:
    """Whether each array is; an event without a value is like another without one."""
    columns = [field.name for field in fields(Histories) if field.name != "is_target"]
    arrays = [[getattr(one, name) for name in columns] for one in (first, second)]
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(*arrays, strict=True))
