"""The style of the figures of a report, light and dark, and their PNG files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, fontManager, get_font
from matplotlib.text import Text

WIDTH_INCHES = 4.8
"""One column, so that text can still be read when a phone shows the figure 360 pixels wide."""
DOTS_PER_INCH = 190
FONT_POINTS = 10.5
# Fonts with the scripts that the first one lacks; those that are installed are used.
FONTS = ("DejaVu Sans", "Noto Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Microsoft YaHei")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 3)), (0, (3, 1, 1, 1)))
MODELS = (
    "variseq",
    "popular",
    "item-knn",
    "last-item-transitions",
    "recent-popular",
    "own-frequency",
    "own-transitions",
    "own-latest-first",
)
STYLE_INDEX = {model: index for index, model in enumerate(MODELS)}


@dataclass(frozen=True)
class Style:
    """Colors of light or of dark figures; `colors` are distinct for the color-blind (Okabe and Ito 2008)."""

    paper: str
    ink: str
    muted: str
    grid: str
    colors: tuple[str, ...]


LIGHT = Style(
    "#ffffff",
    "#1f2328",
    "#59636e",
    "#d9dee3",
    ("#0072B2", "#D55E00", "#009E73", "#B5588F", "#8A6A00", "#5B4BB5", "#59636e", "#1f2328"),
)
DARK = Style(
    "#161b22",
    "#e6edf3",
    "#a0aab5",
    "#30363d",
    ("#56B4E9", "#FF9A5C", "#2FC79B", "#E79AC6", "#F0E442", "#B7A6FF", "#C9D1D9", "#ffffff"),
)


@dataclass(frozen=True)
class ReportFigure:
    """A figure with its caption: how to read it, what it shows of this run, and the function that draws it.

    `missing` is the reason where this run cannot have the figure.
    """

    name: str
    title: str
    how_to_read: str
    finding: str
    alt: str
    draw: Callable[[Style], Figure]
    missing: str = ""


def missing_figure(name: str, title: str, reason: str) -> ReportFigure:
    """A figure that this run cannot have, and why."""
    return ReportFigure(name, title, "", "", "", lambda style: new_figure(style, 1)[0], reason)


def new_figure(style: Style, height_inches: float, ratios: Sequence[int | float] = (1,)) -> tuple[Figure, list[Axes]]:
    """A figure of one column with an axes for each ratio, from top to bottom."""
    figure = Figure(figsize=(WIDTH_INCHES, height_inches), facecolor=style.paper, layout="constrained")
    grid = figure.subplots(len(ratios), 1, squeeze=False, gridspec_kw={"height_ratios": list(ratios)})
    panels: list[Axes] = list(grid[:, 0])
    for axes in panels:
        axes.set_facecolor(style.paper)
        axes.grid(color=style.grid, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(which="both", colors=style.muted, labelsize=FONT_POINTS - 1)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(style.muted)
    return figure, panels


def name_axes(axes: Axes, style: Style, across: str, up: str = "", title: str = "") -> None:
    """Labels of the axes; `up` is written above the panel, where it takes no width."""
    axes.set_xlabel(across, color=style.ink, fontsize=FONT_POINTS)
    axes.set_title(up or title, loc="left", color=style.ink, fontsize=FONT_POINTS, pad=7)


def style_index(model: str) -> int:
    """The index of a model's color, marker and line: the same in every figure, 0 for the model itself."""
    return STYLE_INDEX.get(model, 0)


def add_legend(
    axes: Axes, style: Style, location: Literal["best", "upper left", "upper right", "outside"] = "best"
) -> None:
    """A legend of what was drawn with a label; "outside" is above the panel, where nothing is covered."""
    size = FONT_POINTS - 1.5
    if location == "outside":
        handles, labels = axes.get_legend_handles_labels()
        figure = axes.get_figure(root=True)
        assert figure is not None
        figure.legend(handles, labels, loc="outside upper left", frameon=False, labelcolor=style.ink, fontsize=size)
        return
    axes.legend(loc=location, facecolor=style.paper, edgecolor=style.grid, framealpha=0.85, labelcolor=style.ink,
                fontsize=size)  # fmt: skip


def png(drawn: ReportFigure, style: Style) -> bytes:
    """The figure as a PNG; the same numbers give the same bytes."""
    figure = drawn.draw(style)
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_fontfamily(_families())
        # A dollar sign in a title is a dollar sign, and no formula.
        text.set_parse_math(False)
    stream = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(stream, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return stream.getvalue()


def plain(text: str, max_characters: int) -> str:
    """A text short enough for a figure, on one line; characters that no installed font has become "?".

    >>> plain("Snow White and the\\nSeven Dwarfs", 14)
    'Snow White an…'
    """
    line = " ".join(text.split())
    line = line if len(line) <= max_characters else line[: max_characters - 1].rstrip() + "…"
    return "".join(character if ord(character) in _drawable() else "?" for character in line)


def missing_note(texts: Iterable[str]) -> str:
    """A sentence for a caption when some of the texts cannot be written as they are; otherwise empty."""
    missing = any(ord(character) not in _drawable() for text in texts for character in " ".join(text.split()))
    return " Characters that no installed font has are shown as “?”." if missing else ""


def decimal(value: float, _: object = None) -> str:
    """A tick label without exponents or formulas.

    >>> decimal(0.001), decimal(20000.0)
    ('0.001', '20,000')
    """
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.4g}"


def percent(value: float, _: object = None) -> str:
    """A tick label of a share."""
    return f"{value:.0%}"


@cache
def _families() -> list[str]:
    installed = set(fontManager.get_font_names())
    return [name for name in FONTS if name in installed]


@cache
def _drawable() -> frozenset[int]:
    return frozenset(code for name in _families() for code in get_font(findfont(name)).get_charmap())
