"""Fitted runs compared on one part: their forecasts, with MC dropout and without parts of the content of items."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int

from variseq.artifacts.checkpoint import Checkpoint
from variseq.errors import InputError
from variseq.evaluation.evaluate import EvaluationOptions
from variseq.evaluation.recommender import Recommender
from variseq.evaluation.splits import Part, Split, part_to_evaluate, trained_on
from variseq.events.items import UserColumn
from variseq.model.posterior import preferences
from variseq.ranking.calibration import NUM_SAMPLES, Calibration
from variseq.ranking.content_table import ContentTable
from variseq.ranking.encoding import EncodedHistories
from variseq.ranking.mixture import MixtureModel
from variseq.recommend.calibrate import Calibrator
from variseq.recommend.network_model import ModelRecommender, NetworkEncoder
from variseq.sequences.calendar import UTC
from variseq.sequences.histories import Histories

DROPOUT_SEED = 0


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """A finished run: the name of its row, the content of its folder, and its own calibrated forecast."""

    name: str
    checkpoint: Checkpoint
    forecast: ModelRecommender

    @property
    def is_refitted(self) -> bool:
        return bool(self.checkpoint.config["training"]["refit_fraction"])


def evaluated_part(split: Split, part: Part | None, is_refitted: bool) -> tuple[Part, Histories]:
    """The test part or the one given, and the training events of the models that are evaluated on it.

    After a refit these are the validation events too, and the unseen targets follow from them. Raises InputError for a
    part that the models cannot be evaluated on.
    """
    evaluated = part_to_evaluate(split, part, is_refitted)
    known = split[2].history() if is_refitted else split[0].history()
    return trained_on(evaluated, known, "training and validation" if is_refitted else "training"), known


def named_forecasts(
    runs: Sequence[ComparedRun], valid: Part, mc_dropout: bool, content_parts: bool = False
) -> list[ModelRecommender]:
    """The forecast of each run under its name.

    `mc_dropout` adds the same network with dropout left on, and `content_parts` adds what `without_content` makes of
    the first run. MC dropout makes as many passes as the first run has samples.

    Raises InputError for runs that were not made of the first one's log and split, for MC dropout where the network was
    trained on the validation part, which calibrates it, and what `without_content` raises.
    """
    first, *others = runs
    for other in others:
        _require_same_data(first, other)
    if mc_dropout and first.is_refitted:
        raise InputError(
            "The run was refitted with the validation events, so MC dropout cannot be calibrated on them. Leave out "
            "mc_dropout, or fit every run with training={'refit_fraction': 0} (--set training.refit_fraction=0)."
        )
    num_passes = first.forecast.model.calibration.num_samples or NUM_SAMPLES
    forecasts = []
    for run in runs:
        run.forecast.name = run.name
        forecasts.append(run.forecast)
        if mc_dropout:
            config = run.checkpoint.config["training"]
            options = EvaluationOptions(targets=config["targets"], exclude_seen=config["exclude_seen"])
            forecasts.append(with_mc_dropout(run.forecast, num_passes, valid, options, config["calendar"]))
    return forecasts + (without_content(first) if content_parts else [])


def with_attributes(
    runs: Sequence[ComparedRun], forecasts: list[ModelRecommender], part: Part, columns: Mapping[str, UserColumn]
) -> tuple[Part, list[ModelRecommender]]:
    """The part with the attributes of its people, and one forecast more: the first run's with them.

    No other forecast uses them. Nothing changes where the first run uses no attribute.
    """
    run = runs[0]
    model = run.forecast.model
    if model.attributes is None or not model.attributes.used or not columns:
        return part, forecasts
    for other in runs:
        other.forecast.model = other.forecast.model.without_attributes()
    known = replace(part, attributes=model.attributes.of_columns(columns))
    return known, [*forecasts, ModelRecommender(model, f"{run.name}, attributes")]


def without_content(run: ComparedRun) -> list[ModelRecommender]:
    """The forecast of a run without each part of the content of its items, and without all where there are several.

    What the part adds to the vectors of items is taken away, and the likeness of new items to histories is that of the
    other parts. Nothing is fitted again, and items with events keep the vectors that they learned beside the part. So
    this is what the forecast rests on. What the part is worth is the difference to a fit without it, which was far
    smaller on two logs. Each part costs a copy of the network with its table of items, and a whole evaluation.
    Raises InputError for a run without content, and for one of a version that did not keep what is needed.
    """
    checkpoint, vectors, model = run.checkpoint, run.checkpoint.new_item_vectors, run.forecast.model
    encoder, content = model.encoder, model.tables.content
    if vectors is None or vectors.encoder is None or content is None or checkpoint.items is None:
        raise InputError(f"{run.name!r} was fitted without content of items, so no part of it can be left out.")
    if vectors.content is None or vectors.content_of_known is None or not isinstance(encoder, NetworkEncoder):
        raise InputError(f"{run.name!r} was fitted by an earlier version, which did not keep each part. Fit it again.")
    encoded, spans = vectors.encoder.encode(checkpoint.items.table), vectors.encoder.spans
    everything = {"all content": slice(0, vectors.encoder.dim)} if len(spans) > 1 else {}
    found = []
    for name, span in (spans | everything).items():
        maps = vectors.content[span], vectors.content_of_known[span]
        of_new, of_known = (encoded[:, span] @ one for one in maps)
        removed = np.where(model.tables.is_new[:, None], of_new, of_known)
        network, codes = copy.deepcopy(encoder.network), content.codes.copy()
        with torch.no_grad():
            network.embedding.item[:-1] -= torch.from_numpy(removed).to(network.embedding.item)
        codes[:, span] = 0
        tables = replace(model.tables, vectors=network.vectors_with_bias, content=ContentTable(codes))
        left = MixtureModel(NetworkEncoder(network), tables, model.calibration, model.repeat_share)
        found.append(ModelRecommender(left, f"{run.name}, without {name}"))
    return found


def refuse_same_names(recommenders: Sequence[Recommender]) -> None:
    """Raises InputError where two rows of a table would have one name."""
    names = [recommender.name for recommender in recommenders]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"Two rows would have the name {name!r}. Give another name than {', '.join(names)}.")


def _require_same_data(first: ComparedRun, other: ComparedRun) -> None:
    ours, theirs = first.checkpoint, other.checkpoint
    # That the first one has its own is seen when its split is made.
    if ours.bounds is None or ours.histories is None or theirs.bounds is None or theirs.histories is None:
        raise InputError(f"{other.name!r} was saved without histories, so it cannot be evaluated.")
    is_same = {
        "users": ours.vocabulary.users.equals(theirs.vocabulary.users),
        "items": ours.vocabulary.items.equals(theirs.vocabulary.items),
        "behaviors": ours.vocabulary.behaviors == theirs.vocabulary.behaviors,
        "behaviors of the targets": _targets_of(ours) == _targets_of(theirs),
        "events": _are_equal(ours.histories, theirs.histories),
        "where validation and test begin": np.array_equal(ours.bounds, theirs.bounds),
        "whether a refit used the validation events": first.is_refitted == other.is_refitted,
    }
    different = [what for what, same in is_same.items() if not same]
    if different:
        raise InputError(
            f"{first.name!r} and {other.name!r} cannot be compared. They differ in: {', '.join(different)}. Give "
            "runs of the same log and split, refitted all or none (training.refit_fraction)."
        )


def _targets_of(checkpoint: Checkpoint) -> list[str] | None:
    targets: list[str] | None = checkpoint.manifest["protocol"].get("targets_of")
    return targets


def _are_equal(first: Histories, second: Histories) -> bool:
    """Whether each array is equal; missing values (NaN) are equal to each other."""
    columns = ("offsets", "item", "behavior", "timestamp", "value")
    arrays = [[getattr(one, name) for name in columns] for one in (first, second)]
    are_equal = (np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(*arrays, strict=True))
    return first.visit_gap == second.visit_gap and all(are_equal)


class DropoutEncoder(NetworkEncoder):
    """MC dropout: one pass with dropout on for each sample, at the posterior mean.

    The same histories together have the same preferences; which units are dropped for one of them depends on the
    others. Source: Gal and Ghahramani, "Dropout as a Bayesian approximation" (2016).
    """

    @torch.no_grad()
    def encode(
        self,
        histories: Histories,
        noise: Float[np.ndarray, "sample position latent"],
        source: Int[np.ndarray, " history"] | None = None,
    ) -> EncodedHistories:
        """As many passes as the noise has samples; the noise itself is not used."""
        network, device = self.network, self.network.item_bias.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(DROPOUT_SEED)
            network.train()
            try:
                passes = [preferences(network, histories) for _ in range(len(noise))]
            finally:
                network.eval()
        preference, log_variance = (list(part) for part in zip(*passes, strict=True))
        mean_log_variance = torch.stack(log_variance).mean(dim=0)
        return EncodedHistories(torch.cat(preference).cpu().numpy(), mean_log_variance.cpu().numpy())


def with_mc_dropout(
    forecast: ModelRecommender, num_passes: int, valid: Part, options: EvaluationOptions, calendar: str = UTC
) -> ModelRecommender:
    """The same network and counts with dropout left on, with a calibration of its own.

    The calibration makes the validation targets most likely, as a run's own does, so the network and the counts must
    not be fitted to these. Raises InputError for a network without dropout.
    """
    encoder, tables = forecast.model.encoder, forecast.model.tables
    assert isinstance(encoder, NetworkEncoder)
    if not encoder.network.config.dropout:
        raise InputError(
            f"{forecast.name!r} was trained without dropout (model.dropout = 0). Leave out mc_dropout, or fit again "
            "with dropout."
        )
    untuned = MixtureModel(DropoutEncoder(encoder.network), tables, Calibration(num_passes))
    calibration = Calibrator(untuned, valid, options, calendar).fit()
    calibration = replace(calibration, new=forecast.model.calibration.new)
    tuned = MixtureModel(untuned.encoder, tables, calibration, forecast.model.repeat_share)
    return ModelRecommender(tuned, f"{forecast.name}, dropout")
