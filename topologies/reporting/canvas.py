"""Matplotlib figures as inline SVG: text stays text in the page's font, colours become CSS variables.

The same figure gives the same bytes: the hash salt is fixed and no date is written.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from topologies.reporting.palette import GRID, MUTED, Palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEXT_PX = 12.0
SMALL_PX = 11.0
LETTER_PX = 7.6
"""Width of a bold letter of TEXT_PX, wide ones included."""


class Canvas:
    """One chart of `width_px` x `height_px`, with one pair of axes inside the margins given in px."""

    def __init__(
        self, width_px: float, height_px: float, *, left: float, right: float, top: float, bottom: float
    ) -> None:
        from matplotlib.figure import Figure

        self.width_px, self.height_px = width_px, height_px
        # 72 points an inch: one point of the drawing is one pixel of the page.
        self.figure: Figure = Figure(figsize=(width_px / 72, height_px / 72), dpi=72)
        self.axes: Axes = self.figure.add_axes(
            (
                left / width_px,
                bottom / height_px,
                (width_px - left - right) / width_px,
                (height_px - top - bottom) / height_px,
            ),
            facecolor="none",
        )
        self._plain()

    def bare(self) -> None:
        """No axes at all: a drawing."""
        self.axes.set_axis_off()

    def svg(self, name: str, about: str, palette: Palette) -> str:
        """The chart as an `<svg>` element. `name` must be unique in the page, `about` is read out."""
        from matplotlib import rc_context

        text = io.StringIO()
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
            metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            self.figure.savefig(text, format="svg", transparent=True, metadata=metadata)
        drawing = text.getvalue()
        drawing = drawing[drawing.index("<svg") :]
        # Ids are made unique in the page; those that nothing refers to are noise.
        referred = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', drawing))
        drawing = re.sub(
            r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in referred else "", drawing
        )
        drawing = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", drawing)
        drawing = re.sub(r" ?font-family: [^;\"]+;?", "", drawing)
        drawing = re.sub(r' transform="rotate\(-0 [^)]*\)"', "", drawing)
        drawing = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", drawing, count=1, flags=re.DOTALL)
        drawing = re.sub(r'(?<= d=")[^"]+|(?<= [xy]=")[^"]+', _tenths, drawing)
        opening = (
            f'<svg viewBox="0 0 {self.width_px:g} {self.height_px:g}" role="img" '
            f'xmlns:xlink="http://www.w3.org/1999/xlink" aria-label="{escape(about)}">'
        )
        return palette.resolve(re.sub(r"<svg[^>]*>", lambda _: opening, drawing, count=1)).strip()

    def label_ends(self, labels: Sequence[tuple[float, str, str]], *, x_px: float = 8.0) -> None:
        """Write (y, text, colour) beside the right edge, moved apart where they would overlap."""
        height = self.axes.get_position().height * self.height_px
        low, high = self.axes.get_ylim()
        at = apart([(y - low) / (high - low) * height for y, _, _ in labels], gap=TEXT_PX * 1.3, end=height)
        for y_px, (_, text, colour) in zip(at, labels, strict=True):
            self.axes.annotate(
                text, (1.0, y_px / height), xycoords="axes fraction", xytext=(x_px, 0), color=colour,
                textcoords="offset points", va="center", fontsize=TEXT_PX, fontweight="bold",
                annotation_clip=False,
            )  # fmt: skip

    def label_points(self, labels: Sequence[tuple[float, float, str, str, bool]]) -> None:
        """Write (x, y, text, colour, whether on the right) beside points, moved apart where they overlap."""
        height = self.axes.get_position().height * self.height_px
        to_fraction = self.axes.transData + self.axes.transAxes.inverted()
        wanted = [to_fraction.transform((x, y))[1] * height for x, y, *_ in labels]
        for (x, y, text, colour, right), at, had in zip(
            labels, apart(wanted, gap=TEXT_PX * 1.2, end=height), wanted, strict=True
        ):
            self.axes.annotate(
                text, (x, y), xytext=(10 if right else -10, at - had), textcoords="offset points",
                va="center", ha="left" if right else "right", fontsize=TEXT_PX, fontweight="bold",
                color=colour, annotation_clip=False,
            )  # fmt: skip

    def _plain(self) -> None:
        axes = self.axes
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(MUTED)
        axes.tick_params(length=0, labelsize=SMALL_PX, labelcolor=MUTED, pad=5)
        axes.tick_params(axis="x", pad=8)
        axes.grid(axis="y", color=GRID, linewidth=1)
        axes.set_axisbelow(True)
        axes.xaxis.label.set_color(MUTED)
        axes.yaxis.label.set_color(MUTED)


def _tenths(coordinates: re.Match[str]) -> str:
    """A tenth of a pixel is fine enough, and half the size of the page."""
    return re.sub(r"\d+\.\d{2,}", lambda number: f"{float(number[0]):.1f}", coordinates[0])


def apart(wanted: Sequence[float], gap: float, end: float) -> list[float]:
    """Positions in `[0, end]`, in the order of `wanted`, as near to it as a `gap` between neighbours allows.

    >>> apart([10.0, 11.0, 50.0], gap=8.0, end=60.0)
    [6.5, 14.5, 50.0]
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    # Labels that would overlap form a block, centred on the mean of what its members want.
    blocks: list[list[int]] = []
    for i in order:
        blocks.append([i])
        while len(blocks) > 1 and _top(blocks[-2], wanted, gap, end) + gap > _bottom(
            blocks[-1], wanted, gap, end
        ):
            last = blocks.pop()
            blocks[-1] += last
    placed = [0.0] * len(wanted)
    for block in blocks:
        bottom = _bottom(block, wanted, gap, end)
        for n, i in enumerate(block):
            placed[i] = bottom + n * gap
    return placed


def _bottom(block: Sequence[int], wanted: Sequence[float], gap: float, end: float) -> float:
    height = gap * (len(block) - 1)
    centre = sum(wanted[i] for i in block) / len(block)
    return max(0.0, min(centre - height / 2, end - height))


def _top(block: Sequence[int], wanted: Sequence[float], gap: float, end: float) -> float:
    return _bottom(block, wanted, gap, end) + gap * (len(block) - 1)
