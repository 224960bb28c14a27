from __future__ import annotations

import base64
import importlib
import itertools
import re
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import variseq.reports.report
import variseq.reports.tables
from tests.conftest import small_model
from variseq.errors import InputError, MissingDependencyError
from variseq.estimator import VariationalAttention, load
from variseq.events.simulate import SimulationOptions, simulate
from variseq.log import read
from variseq.training.diagnosis import diagnose, flat_settings

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
pytest.importorskip("jinja2")

from variseq.reports.report import write_report

pytestmark = pytest.mark.slow
SCRIPT = "<script>alert('title')</script>"
ODD_TITLES = [
    SCRIPT,
    "$x_{1} and \\frac $9.99$",
    "_hidden 銀河鉄道の夜 🎉",
    "\" onerror='x' & https://elsewhere.example/x",
    "",
]
PICTURES = [
    "attention.png",
    "conformal-coverage.png",
    "exposure.png",
    "gap-calibration.png",
    "gap-lengths.png",
    "groups.png",
    "inequality.png",
    "item-map.png",
    "kl-by-dimension.png",
    "kl-by-position.png",
    "latent-health.png",
    "reliability-top-1.png",
    "reliability-top-10.png",
    "risk-coverage.png",
    "training.png",
    "uncertainty.png",
]
WITHOUT_HISTORIES = ["item-map.png", "kl-by-dimension.png", "kl-by-position.png", "latent-health.png", "training.png"]


class Page(HTMLParser):
    """The tags of a page with their attributes, its text, and which headings it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def trained(folder: Path, with_items: bool) -> VariationalAttention:
    """A model that hardly learned, from a log whose titles and categories mean harm."""
    shop = simulate(SimulationOptions(num_users=150, num_items=40, seed=3))
    items: pd.DataFrame | None = None
    if with_items:
        items = shop.items().to_pandas()
        items["title"] = [ODD_TITLES[row % 5] if row < 35 else title for row, title in enumerate(items["title"])]
        items["category"] = items["category"].replace({"Books": "_$Books$", "Toys": SCRIPT})
    train, valid, _ = read(shop.events(), items).split("leave-one-out")
    return small_model(max_epochs=3).fit(train, valid, folder, verbose=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert write_report(trained(folder, with_items=True), folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page(run / "report.html")


def test_page_needs_nothing_but_itself(page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed"), tag
        for name in ("src", "srcset", "href", "data", "action", "poster"):
            value = attributes.get(name) or "#"
            assert value.startswith(("data:image/png;base64,", "#")), f"{tag} {name}={value[:60]}"
        assert not [name for name in attributes if name.startswith("on")], attributes
    policy = next(one["content"] for one in page.named("meta") if one.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_no_style_asks_the_network(run: Path) -> None:
    style = re.search(r"<style>(.*?)</style>", (run / "report.html").read_text(encoding="utf-8"), re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_every_picture_is_there_and_in_the_page(run: Path, page: Page) -> None:
    assert sorted(path.name for path in (run / "report").iterdir()) == PICTURES
    embedded = [base64.b64decode((one["src"] or "").partition(",")[2]) for one in page.named("img")]
    assert sorted(map(zlib.crc32, embedded)) == sorted(
        zlib.crc32((run / "report" / name).read_bytes()) for name in PICTURES
    )
    assert len(page.named("source")) == len(PICTURES)  # the dark ones
    assert "Not shown" not in page.text


def test_no_picture_is_blank(run: Path) -> None:
    from matplotlib.image import imread

    for name in PICTURES:
        pixels = imread(run / "report" / name)[..., :3]
        assert min(pixels.shape[:2]) > 400, name
        assert 0.005 < float((np.abs(pixels - 1).max(axis=2) > 0.1).mean()) < 0.9, name


def test_every_picture_has_an_alternative_text_with_numbers(page: Page) -> None:
    for image in page.named("img"):
        assert re.search(r"\d", image["alt"] or ""), image["alt"]
        assert len(image["alt"] or "") > 30


def test_title_of_a_user_never_becomes_markup(run: Path, page: Page) -> None:
    source = (run / "report.html").read_text(encoding="utf-8")
    assert "<script" not in source
    assert SCRIPT in page.text  # as text it is there
    assert "&lt;script&gt;" in source


def test_page_has_headings_in_order_and_its_language(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert page.named("html")[0]["lang"] == "en"


def test_page_tells_how_the_run_was_made(run: Path, page: Page) -> None:
    manifest = load(run).checkpoint
    for told in (
        "leave-one-out",
        manifest.manifest["protocol"]["split_hash"],
        f"{min(manifest.manifest['calibration']['temperatures']):.2f}",
    ):
        assert told in page.text
    for model in ("variseq", "popular", "recent-popular", "last-item-transitions", "item-knn"):
        assert model in page.text
    assert "The latent is used" in page.text or "The latent is NOT used" in page.text
    assert page.text.count("User ") == 5


def test_page_tells_the_diagnosis_of_the_latent(run: Path, page: Page) -> None:
    checkpoint = load(run).checkpoint
    settings = flat_settings(checkpoint.network.config.model_dump(), checkpoint.config["training"])
    found = diagnose(checkpoint.metrics, settings)
    assert f"Diagnosis: {found.kind}" in page.text
    for told in (found.verdict, *found.evidence, *(one.assignment() for one in found.changes)):
        assert told in page.text


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of no pixel, for tests of the page around them."""
    monkeypatch.setattr("variseq.reports.style.png", lambda drawn, _: drawn.name.encode())


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without an items file."""
    folder = tmp_path_factory.mktemp("runs") / "plain"
    trained(folder, with_items=False)
    return folder


@pytest.mark.usefixtures("undrawn")
def test_second_report_replaces_the_first_with_the_same_bytes(plain_run: Path, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "old.png").write_bytes(b"old")
    first, second = (write_report(load(plain_run), tmp_path).read_bytes() for _ in range(2))
    assert first == second
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == PICTURES
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".partial")]


@pytest.mark.usefixtures("undrawn")
def test_run_without_items_and_histories_says_what_is_missing_and_why(plain_run: Path, tmp_path: Path) -> None:
    load(plain_run).save(tmp_path / "bare", with_histories=False)
    page = Page(write_report(load(tmp_path / "bare"), tmp_path / "bare"))
    assert sorted(path.name for path in (tmp_path / "bare" / "report").iterdir()) == WITHOUT_HISTORIES
    assert page.text.count("saved without histories") >= 4
    assert "without titles and categories" in page.text


@pytest.mark.usefixtures("undrawn")
def test_k_of_one_and_no_items_file_still_give_a_page(plain_run: Path, tmp_path: Path) -> None:
    page = Page(write_report(load(plain_run), tmp_path / "elsewhere", k=1))
    assert "NDCG@1 ↑" in page.text
    assert "in one color, as the run has no categories" in page.text


@pytest.mark.parametrize("k", [0, 41])
def test_k_that_does_not_fit_is_refused_before_anything_is_written(run: Path, tmp_path: Path, k: int) -> None:
    with pytest.raises(InputError, match="1 to 40"):
        write_report(load(run), tmp_path / "report", k=k)
    assert not (tmp_path / "report").exists()


def test_model_that_is_not_fitted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not fitted"):
        write_report(VariationalAttention(), tmp_path)


def test_folder_that_is_a_file_is_refused_in_one_message(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="could not be written"):
        write_report(load(run), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("module", "library"), [("matplotlib", "matplotlib"), ("sklearn", "scikit-learn"), ("jinja2", "jinja2")]
)
def test_missing_library_names_the_command_that_installs_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, library: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=rf"{library} is not installed.*variseq\[report\]"):
        write_report(load(run), tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_report_is_imported_without_drawing_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("matplotlib", "sklearn", "jinja2"):
        monkeypatch.setitem(sys.modules, module, None)
    for module in (variseq.reports.tables, variseq.reports.report):
        importlib.reload(module)
