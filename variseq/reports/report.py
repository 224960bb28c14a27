"""One self-contained HTML page about a fitted model, and its figures as PNG files."""

from __future__ import annotations

import shutil
from base64 import b64encode
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from variseq.artifacts.checkpoint import Checkpoint
from variseq.atomic import atomic_directory, atomic_write
from variseq.errors import InputError, MissingDependencyError
from variseq.estimator import VariationalAttention
from variseq.reports.tables import ReportData, accuracy_verdict, evaluation_grids, examples, facts, neighbors
from variseq.training.diagnosis import diagnose, flat_settings

if TYPE_CHECKING:
    from variseq.reports.style import ReportFigure

PAGE, FIGURES = "report.html", "report"
NO_TEST = "The run was fitted without a test part, so it cannot be evaluated."
NO_HISTORIES = "The run was saved without histories, so it cannot be evaluated and there is no user to show."


def write_report(model: VariationalAttention, folder: Path, k: int = 10) -> Path:
    """Write `folder`/report.html and the figures in `folder`/report; an earlier report is replaced.

    The page needs no network and no other file. It names a few users and their events, so treat it like the log itself.

    Args:
        model: A fitted model.
        folder: Usually the folder of the run.
        k: Length of the lists.

    Returns:
        The path of the page.

    Raises:
        MissingDependencyError: A library of the extra "report" is missing.
        InputError: The model is not fitted, k does not fit the catalog, or the folder cannot be written.
    """
    require_libraries()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"The report could not be written to {folder}: it is a file. Give the folder of the run.")
    data = report_data(model, k)
    sections = report_figures(data)
    images = {one.name: _images(one) for _, figures in sections for one in figures if not one.missing}
    page = _render(data, sections, images)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_directory(folder / FIGURES) as unfinished:
            for name, (light, _) in images.items():
                (unfinished / f"{name}.png").write_bytes(light)
            shutil.rmtree(folder / FIGURES, ignore_errors=True)
        with atomic_write(folder / PAGE) as unfinished:
            unfinished.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"The report could not be written to {folder}: {error.strerror or error}. Free some room, or give a folder "
            "that can be written to."
        ) from error
    return folder / PAGE


def require_libraries() -> None:
    """Raises MissingDependencyError, before any work is done, when a library of the extra is missing."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        library = str(error.name).split(".")[0]
        raise MissingDependencyError("scikit-learn" if library == "sklearn" else library, "report") from error


def report_data(model: VariationalAttention, k: int) -> ReportData:
    """Everything that the page shows, with an evaluation on the test part, if the run has one.

    Raises InputError when the model is not fitted, or k does not fit the catalog.
    """
    checkpoint = model.checkpoint
    if checkpoint is None:
        raise InputError("The model is not fitted, so there is nothing to report. Call fit, or load a run.")
    num_items = checkpoint.vocabulary.num_items
    if not 1 <= k <= num_items:
        raise InputError(f"k={k} is not possible. Allowed: 1 to {num_items}, the size of the catalog.")
    categories = None if checkpoint.items is None else checkpoint.items.all_categories()
    results, train_count = None, None
    if checkpoint.histories is not None and checkpoint.bounds is not None:
        if checkpoint.manifest["protocol"]["num_test_events"]:
            vectors = checkpoint.new_item_vectors
            has_parts = vectors is not None and vectors.content_of_known is not None
            results = model.evaluate(k=k, content_parts=has_parts)
        trained = checkpoint.histories.select(checkpoint.histories.offsets[:-1], checkpoint.bounds[0])
        train_count = np.bincount(trained.item, minlength=num_items)
    return ReportData(model, checkpoint, _names(checkpoint), categories, results, train_count)


def _names(checkpoint: Checkpoint) -> list[str]:
    """The title of each item, its id where there is none."""
    every = range(checkpoint.vocabulary.num_items)
    ids = checkpoint.vocabulary.item_ids(every)
    titles = [None] * len(ids) if checkpoint.items is None else checkpoint.items.titles(every)
    return [title or str(item_id) for item_id, title in zip(ids, titles, strict=True)]


def report_figures(data: ReportData) -> list[tuple[str, list[ReportFigure]]]:
    """Headings with their figures, in the order of the page; a figure that the run cannot have has a reason."""
    from variseq.reports import catalog_figures, evaluation_figures, gap_figures, model_figures
    from variseq.reports.style import missing_figure

    checkpoint, epochs, results = data.checkpoint, data.checkpoint.metrics, data.results
    accuracy = [missing_figure("accuracy", "Accuracy and calibration", _why_no_results(data))]
    catalog = [missing_figure("exposure", "Which items are recommended", _why_no_results(data))]
    if results is not None and data.train_count is not None:
        depths = sorted({1, results.evaluations[0].k})
        accuracy = [evaluation_figures.reliability_diagram(results, depth) for depth in depths]
        accuracy += [made(results) for made in evaluation_figures.FIGURES]
        catalog = [made(results, data.train_count) for made in catalog_figures.FIGURES]
    vectors = checkpoint.network.item_vectors.detach().cpu().numpy()
    visits, gaps = [], []
    if results is not None and results.evaluations[0].visits is not None:
        visits = [("Visits", [evaluation_figures.recall_of_visits(results)])]
    if results is not None and results.gaps is not None:
        gaps = [("Time to the next event", [made(results.gaps) for made in gap_figures.FIGURES])]
    return [
        ("Training", [model_figures.training_curves(epochs, checkpoint.config["training"]["kl_target"])]),
        ("Latent", [made(epochs) for made in model_figures.LATENT_FIGURES]),
        ("Accuracy and calibration", accuracy),
        *visits,
        *gaps,
        ("Catalog", [*catalog, catalog_figures.item_map(vectors, data.train_count, data.categories)]),
        ("Attention", [model_figures.attention_heatmap(checkpoint, data.names)]),
    ]


def _why_no_results(data: ReportData) -> str:
    return NO_HISTORIES if data.train_count is None else NO_TEST


def _images(figure: ReportFigure) -> tuple[bytes, bytes]:
    """Light and dark."""
    from variseq.reports.style import DARK, LIGHT, png

    return png(figure, LIGHT), png(figure, DARK)


def _render(
    data: ReportData, sections: list[tuple[str, list[ReportFigure]]], images: dict[str, tuple[bytes, bytes]]
) -> str:
    from jinja2 import Environment, StrictUndefined

    # Titles and ids come from the data of users: all is escaped, and nothing is marked as safe.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = resources.files("variseq.reports").joinpath("page.html").read_text(encoding="utf-8")
    results, checkpoint = data.results, data.checkpoint
    settings = flat_settings(checkpoint.network.config.model_dump(), checkpoint.config["training"])
    return environment.from_string(source).render(
        created=checkpoint.manifest["created"],
        size=checkpoint.config["size"],
        accuracy=_why_no_results(data) if results is None else accuracy_verdict(results),
        latent=diagnose(checkpoint.metrics, settings),
        no_items=checkpoint.items is None,
        grids=[] if results is None else evaluation_grids(results),
        no_results=_why_no_results(data),
        no_histories=NO_HISTORIES,
        sections=sections,
        images={name: [b64encode(image).decode() for image in pair] for name, pair in images.items()},
        examples=examples(data),
        neighbors=neighbors(data),
        facts=facts(data),
    )
