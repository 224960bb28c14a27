"""A fitted model into one self-contained HTML page, with its pictures as PNG files beside it."""

from __future__ import annotations

import os
import shutil
from base64 import b64encode
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from variseq.atomic import atomic_write
from variseq.errors import InputError, MissingDependencyError
from variseq.estimator import VariationalAttention
from variseq.reports.material import NO_HISTORIES, Material, gather
from variseq.reports.tables import accuracy_verdict, evaluation_grids, examples, facts
from variseq.training.diagnosis import diagnose, flat_settings

if TYPE_CHECKING:
    from variseq.reports.canvas import Absent, Picture

PAGE, PICTURES = "report.html", "report"


@dataclass(frozen=True)
class Figure:
    """A picture as the page shows it: light and dark in base64, or the reason why it is not there."""

    name: str
    title: str
    absent: str = ""
    reading: str = ""
    shows: str = ""
    alt: str = ""
    light: str = ""
    dark: str = ""


def write_report(model: VariationalAttention, folder: Path, k: int = 10) -> Path:
    """Write `folder`/report.html and the pictures in `folder`/report; returns the path of the page.

    The page needs no network and no other file. A report that is there already is replaced. It names a few users and
    what they did, so treat it like the log itself.

    Raises MissingDependencyError without the libraries of the extra "report", InputError when the model is not fitted,
    k does not fit the catalog, or the folder cannot be written.
    """
    require_libraries()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"The report could not be written to {folder}: it is a file. Give the folder of the run.")
    material = gather(model, k)
    pictures: dict[str, bytes] = {}
    sections = _sections(material, pictures)
    page = _render(material, sections)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace_pictures(folder, pictures)
        with atomic_write(folder / PAGE) as unfinished:
            unfinished.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"The report could not be written to {folder}: {error.strerror or error}. Free some room, or give a folder "
            "that can be written to."
        ) from error
    return folder / PAGE


def require_libraries() -> None:
    """Raises MissingDependencyError, before any work is done, when a library of the extra is not there."""
    library = "matplotlib"
    try:
        import matplotlib  # noqa: F401

        library = "scikit-learn"
        import sklearn  # noqa: F401

        library = "jinja2"
        import jinja2  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(library, "report") from error


def _sections(material: Material, pictures: dict[str, bytes]) -> list[tuple[str, list[Figure]]]:
    """The drawn gallery; the light PNGs are put into `pictures` too."""
    from variseq.reports.gallery import gallery

    return [(heading, [_drawn(one, pictures) for one in shown]) for heading, shown in gallery(material)]


def _drawn(one: Picture | Absent, pictures: dict[str, bytes]) -> Figure:
    from variseq.reports.canvas import DARK, LIGHT, Absent, png

    if isinstance(one, Absent):
        return Figure(one.name, one.title, one.reason)
    light, dark = (png(one, style) for style in (LIGHT, DARK))
    pictures[f"{one.name}.png"] = light
    images = [b64encode(image).decode() for image in (light, dark)]
    return Figure(one.name, one.title, "", one.reading, one.shows, one.alt, *images)


def _render(material: Material, sections: list[tuple[str, list[Figure]]]) -> str:
    from jinja2 import Environment, StrictUndefined

    # Titles and ids come from the data of users: all is escaped, and nothing is marked as safe.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = resources.files("variseq.reports").joinpath("page.html").read_text(encoding="utf-8")
    results, checkpoint = material.results, material.checkpoint
    settings = flat_settings(checkpoint.network.config.model_dump(), checkpoint.config["training"])
    return environment.from_string(source).render(
        made=checkpoint.manifest["created"],
        size=checkpoint.config["size"],
        accuracy=material.why_no_results if results is None else accuracy_verdict(results),
        latent=diagnose(checkpoint.metrics, settings),
        no_items=checkpoint.items is None,
        grids=[] if results is None else evaluation_grids(results),
        no_results=material.why_no_results,
        no_histories=NO_HISTORIES,
        sections=sections,
        examples=examples(material),
        facts=facts(material),
    )


def _replace_pictures(folder: Path, pictures: dict[str, bytes]) -> None:
    partial = folder / f".{PICTURES}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        for name, picture in pictures.items():
            (partial / name).write_bytes(picture)
        if (folder / PICTURES).exists():
            shutil.rmtree(folder / PICTURES)
        os.rename(partial, folder / PICTURES)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
