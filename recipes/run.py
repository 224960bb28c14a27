"""A recipe: a data set, settings and a seed; its run, its evaluation with baselines, and its records."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measurement.datasets import LoadedDataset, dataset_spec, load_dataset
from measurement.records import Record, append_records, check_writable, peak_megabytes, record_of, rounded
from variseq import VariationalAttention, load
from variseq.comparison import evaluated_part
from variseq.errors import InputError
from variseq.evaluation.evaluate import REQUEST_TIME, EvaluationOptions, evaluate
from variseq.evaluation.external_log import ExternalLog, part_of_external_log
from variseq.evaluation.results import Results
from variseq.pipeline import split_of
from variseq.recommend.values import forecast_values
from variseq.terminal.run_config import RunConfig, run_config

OF_BASELINES = ("refit_fraction", "use_categories", "use_content")
PROTOCOL = ("method", "split_hash", "k", "targets", "exclude_seen", "candidates", "ties", "trained_on")


@dataclass(frozen=True)
class Recipe:
    """What decides a result. `changes` are settings of `variseq fit` as NAME=VALUE; they override the data's own."""

    name: str
    data: Path | str
    run: Path | str
    seed: int = 0
    changes: tuple[str, ...] = ()
    compare_with: Path | str | None = None
    size: str | None = None

    def settings(self) -> RunConfig:
        """The resolved settings. Raises InputError."""
        flags = {**dataset_spec(self.name).settings, "seed": self.seed}
        settings = run_config(None, flags | ({} if self.size is None else {"size": self.size}), self.changes)
        if settings.split.test == "none" and dataset_spec(self.name).test_file is None:
            raise InputError("split.test=none leaves no events to evaluate a recipe on. Leave it out.")
        return settings


def run_recipe(recipe: Recipe, out: Path, resume: bool = False, quiet: bool = False) -> list[Record]:
    """Fit, evaluate on the test part, write `evaluation.json` into the run and append one record a model to `out`.

    Raises InputError before anything is trained for a wrong setting, missing files, a run that exists and a file of
    records that cannot be written.
    """
    check_writable(out)
    settings = recipe.settings()
    if Path(recipe.run).exists():
        raise InputError(f"--run {recipe.run} exists already. Give a folder that does not.")
    dataset = load_dataset(recipe.name, Path(recipe.data), settings.read)
    split = settings.split
    train, valid, test = dataset.log.split(split.by, split.test, split.valid, split.targets_of)
    model = VariationalAttention(settings.size, settings.seed, settings.device, settings.model, settings.training)
    begun, begun_cpu = time.monotonic(), time.process_time()
    model.fit(train, valid, recipe.run, resume, verbose=0 if quiet else 1)
    training_seconds, cpu_seconds = time.monotonic() - begun, time.process_time() - begun_cpu
    if dataset_spec(recipe.name).only_values:
        records = [record_of_values(recipe, model, dataset, cpu_seconds, quiet)]
        append_records(out, records)
        return records
    others = {} if recipe.compare_with is None else {"compared": load(recipe.compare_with)}
    begun = time.monotonic()
    spec = dataset_spec(recipe.name)
    results = model.evaluate(dataset.test or test, spec.k, spec.targets, compare_with=others)
    costs = {"training_seconds": training_seconds, "evaluation_seconds": time.monotonic() - begun}
    oracle = None if spec.oracle is None else spec.oracle(dataset.log.vocabulary)
    if oracle is not None:
        assert model.checkpoint is not None
        part, _ = evaluated_part(split_of(model.checkpoint), test.part, model.checkpoint.is_refitted)
        is_excluded = bool(results.evaluations[0].protocol["exclude_seen"])
        results.evaluations.append(evaluate(oracle, part, EvaluationOptions(spec.k, spec.targets, is_excluded)))
        results.table["rows"][-1] |= oracle.other_metrics(part)
    results.to_json(Path(recipe.run) / "evaluation.json")
    if not quiet:
        print(results)
    costs["peak_megabytes"] = round(peak_megabytes())
    if spec.in_one_record:
        rows = {row["model"]: row for row in results.table["rows"]}
        of_model = rows["variseq"] | {"cpu_seconds": cpu_seconds}
        protocol, rows["variseq"] = results.table["protocol"], of_model
        rows |= (of_model.get("value_baselines") or {}) | (of_model.get("gap_baselines") or {})
        records = [one_record_of(recipe, rows, protocol, dataset.description)]
    else:
        records = records_of(recipe, model, results, dataset.description, costs)
    if spec.evaluates_request_time:
        known = model.evaluate(test, request_time=True)
        if not quiet:
            print(known)
        # A baseline that the time does not change has its row already.
        rows = [one["metrics"] for one in records]
        found = records_of(recipe, model, known, dataset.description, {})
        records += [one for one in found if one["metrics"] not in rows]
    append_records(out, records)
    return records


def records_of(
    recipe: Recipe, model: VariationalAttention, results: Results, data: dict[str, Any], costs: dict[str, float]
) -> list[Record]:
    """One accuracy record for the model and each baseline, and one significance record for each paired comparison."""
    assert model.checkpoint is not None
    table, config = results.table, model.checkpoint.config
    is_deterministic = config["training"]["deterministic_fraction"] >= 1
    # The sizes that a data set has by itself are not named.
    parts = ["variseq", *([recipe.size] if recipe.size else []), *(["deterministic"] if is_deterministic else [])]
    own = ", ".join(parts)
    settings = {name: config[name] for name in ("size", "model", "training")}
    settings |= {"changes": list(recipe.changes), "protocol": {name: table["protocol"].get(name) for name in PROTOCOL}}
    is_known = table["protocol"]["request_time"] == REQUEST_TIME
    settings["request_time"] = is_known or dataset_spec(recipe.name).has_request_time
    # Baselines have no settings but what they may know.
    known = {name: one for name, one in config["training"].items() if name in OF_BASELINES}
    of_baselines = {name: one for name, one in settings.items() if name not in ("size", "model")} | {"training": known}
    records = []
    for row in table["rows"]:
        is_model = row["model"] == "variseq"
        k = table["protocol"]["k"]
        metrics = {name: row.get(name) for name in (f"ndcg@{k}", f"ndcg@{k}_interval", f"recall@{k}", "mrr", "nll")}
        metrics |= {name: row.get(name) for name in (f"ece_top{k}", "num_queries")}
        metrics |= {name: value for name, value in row.items() if name.startswith(("visit_", "num_visits"))}
        metrics |= costs | health(model) if is_model else {}
        case = {"data": recipe.name, "model": own if is_model else row["model"]}
        seed = recipe.seed if is_model else None
        benchmark = "visits" if "num_visits" in row else "accuracy"
        of_row = settings if is_model else of_baselines
        records.append(record_of(benchmark, case, metrics, seed=seed, settings=of_row, data=data))
    for one in table["comparisons"]:
        metrics = {name: one[name] for name in ("difference", "interval", "p_value", "p_value_holm")}
        case = {"data": recipe.name, "model": own, "compared_with": Path(str(recipe.compare_with)).name}
        case["metric"] = one["metric"]
        records.append(record_of("significance", case, metrics, seed=recipe.seed, settings=settings, data=data))
    return records


def record_of_values(
    recipe: Recipe, model: VariationalAttention, dataset: LoadedDataset, cpu_seconds: float, quiet: bool = False
) -> Record:
    """The forecasts of the values of the people of the test file, and those of the baselines."""
    checkpoint, test = model.checkpoint, dataset.test
    assert checkpoint is not None
    assert test is not None
    train, _, own_test = split_of(checkpoint)
    known = (own_test if checkpoint.is_refitted else train).history()
    external = ExternalLog(test.histories, test.vocabulary, test.report)
    part = part_of_external_log(own_test, checkpoint.vocabulary, known, external)
    found = forecast_values(checkpoint.network, part, known, dataset_spec(recipe.name).targets)
    assert found is not None
    if not quiet:
        print(found)
    summary = found.summary()
    rows = {"variseq": summary | {"cpu_seconds": cpu_seconds}, **summary["value_baselines"]}
    return one_record_of(recipe, rows, part.protocol, dataset.description)


def one_record_of(
    recipe: Recipe, rows: dict[str, dict[str, Any]], protocol: dict[str, Any], data: dict[str, Any]
) -> Record:
    """One record with a row a model: the metrics that the data set names. The commit decides all other settings."""
    wanted = ("cpu_seconds", *dataset_spec(recipe.name).in_one_record)
    names = [name for one in wanted for name in (one, f"{one}_interval")]
    found = {model: {name: row[name] for name in names if row.get(name) is not None} for model, row in rows.items()}
    settings = {"changes": list(recipe.changes), "protocol": {name: protocol.get(name) for name in PROTOCOL}}
    record = record_of("fields", {"data": recipe.name}, {}, seed=recipe.seed, settings=settings, data=data)
    return record | {"rows": rounded({model: metrics for model, metrics in found.items() if metrics})}


def health(model: VariationalAttention) -> dict[str, Any]:
    """KL, share of active dimensions and swap gap of the chosen epoch, the last that was the best so far."""
    assert model.checkpoint is not None
    epochs = model.checkpoint.metrics
    chosen = next((epoch for epoch in reversed(epochs) if epoch["is_best"]), epochs[-1])
    found = chosen["health"]
    counts = {"best_epoch": chosen["epoch"] + 1, "num_epochs": len(epochs), "num_alarms": len(chosen["alarms"])}
    return {name: found[name] for name in ("kl", "active_share", "swap_gap")} | counts
