"""Colours, the same for an architecture in every chart and table, in light and in dark.

Charts are drawn with placeholder colours; in the page these become CSS variables, whose values the style
sheet chooses by `prefers-color-scheme`.
"""

from __future__ import annotations

from collections.abc import Iterable

INK = "#0a0b0c"
MUTED = "#7a7b7c"
GRID = "#dadbdc"
PAPER = "#fafbfc"
ALERT = "#e0e1e2"

_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--rule", PAPER: "--paper", ALERT: "--alert"}
_FAMILIES = ("star", "caching", "gossip")
_SHADES = 3
_OTHERS = 4


class Palette:
    """Gives each architecture a colour: the three families their own, variants a shade of it."""

    def __init__(self, architectures: Iterable[str]) -> None:
        self._slots: dict[str, str] = {}
        used: dict[str, int] = {}
        for name in architectures:
            family = next((family for family in _FAMILIES if name.startswith(family)), "other")
            shade = used[family] = used.get(family, 0) + 1
            limit = _OTHERS if family == "other" else _SHADES
            self._slots[name] = f"--{family}-{(shade - 1) % limit + 1}"

    def css(self, architecture: str) -> str:
        """For use in the page."""
        return f"var({self._slots[architecture]})"

    def __getitem__(self, architecture: str) -> str:
        """For use in a chart."""
        return f"#c0{list(self._slots).index(architecture):04x}"

    def resolve(self, drawing: str) -> str:
        """A chart's text with every placeholder replaced by its variable."""
        for name in self._slots:
            drawing = drawing.replace(self[name], self.css(name))
        for placeholder, variable in _VARIABLES.items():
            drawing = drawing.replace(placeholder, f"var({variable})")
        return drawing
