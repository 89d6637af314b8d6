"""The topology, drawn: how many bytes each link carried, who crashed.

Places are those of the manifest, or a layout that depends on the graph alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import sqrt

from topologies.manifest import Manifest
from topologies.metrics.summary import Summary
from topologies.reporting.canvas import SMALL_PX, Canvas
from topologies.reporting.palette import ALERT, GRID, INK, MUTED, PAPER, Palette

DRAWN_MAX = 400
"""More machines than this are not drawn: one would see nothing."""
LABELLED_MAX = 24

Places = Mapping[str, tuple[float, float]]


def places(manifest: Manifest) -> Places:
    """Device to x, y in the unit square."""
    given = {
        device.name: (device.x, device.y)
        for device in manifest.devices
        if device.x is not None and device.y is not None
    }
    if len(given) == len(manifest.devices):
        return given
    import networkx

    graph: networkx.Graph[str] = networkx.Graph()
    graph.add_nodes_from(device.name for device in manifest.devices)
    graph.add_edges_from((link.a, link.b) for link in manifest.links)
    laid_out = networkx.spring_layout(graph, seed=1, iterations=200, method="force")
    return {name: ((float(x) + 1) / 2, (float(y) + 1) / 2) for name, (x, y) in laid_out.items()}


def carried(runs: Sequence[Summary]) -> dict[str, float]:
    """Bytes on air by link, both ways, mean over the runs; of a channel by sender, as `name/sender`."""
    total: defaultdict[str, float] = defaultdict(float)
    for run in runs:
        for row in run.links:
            name = f"{row.link}/{row.source}" if row.target == "*" else row.link
            total[name] += row.bytes_on_air / len(runs)
    return dict(total)


def topology(
    manifest: Manifest, runs: Sequence[Summary], most_bytes: float, palette: Palette, *, name: str
) -> str:
    """One architecture's traffic on the physical graph; `most_bytes` is the widest line."""
    canvas = Canvas(340, 340, left=20, right=20, top=18, bottom=18)
    canvas.bare()
    axes = canvas.axes
    at = places(manifest)
    colour = palette[manifest.architecture]
    bytes_by_link = carried(runs)
    for link in manifest.links:
        (x1, y1), (x2, y2) = at[link.a], at[link.b]
        axes.plot([x1, x2], [y1, y2], color=GRID, linewidth=1, zorder=1)
        share = bytes_by_link.get(link.name, 0.0) / most_bytes if most_bytes else 0.0
        if share:
            width = 0.8 + 8.0 * sqrt(share)
            axes.plot(
                [x1, x2],
                [y1, y2],
                color=colour,
                linewidth=width,
                alpha=0.85,
                solid_capstyle="round",
                zorder=2,
            )
    labels = short_names(manifest.birdhouses)
    roles = {device.name: device.role for device in manifest.devices}
    crashed = {outage.subject for run in runs for outage in run.outages if outage.kind == "crash"}
    small = len(roles) > LABELLED_MAX
    peers: defaultdict[str, list[str]] = defaultdict(list)
    for link in manifest.links:
        peers[link.a].append(link.b)
        peers[link.b].append(link.a)
    senders = {key.partition("/")[2]: amount for key, amount in bytes_by_link.items() if "/" in key}
    for device, (x, y) in at.items():
        if senders.get(device):
            halo = 10 + 22 * sqrt(senders[device] / most_bytes)
            axes.plot([x], [y], "o", color=colour, alpha=0.30, markersize=halo, markeredgewidth=0, zorder=2)
        above = sum(y - at[peer][1] for peer in peers[device]) > 0
        label = labels.get(device, device)
        _device(canvas, label, roles[device], x, y, crashed=device in crashed, small=small, above=above)
    axes.set_xlim(_range([x for x, _ in at.values()]))
    axes.set_ylim(_range([y for _, y in at.values()]))
    return canvas.svg(name, f"Bytes on each link, {manifest.architecture}", palette)


def _device(
    canvas: Canvas, label: str, role: str, x: float, y: float, *, crashed: bool, small: bool, above: bool
) -> None:
    axes = canvas.axes
    plain = role == "birdhouse"
    edge = ALERT if crashed else INK
    marker = "s" if role in ("sink", "storage") else "o"
    size = (5.0 if small else 8.0) if plain or role == "storage" else 12.0
    fill = INK if role == "sink" else PAPER
    axes.plot(
        [x], [y], marker, color=fill, markersize=size, markeredgecolor=edge, zorder=4,
        markeredgewidth=2.2 if crashed else 1.4,
    )  # fmt: skip
    if crashed:
        axes.plot([x], [y], "x", color=ALERT, markersize=size * 0.55, markeredgewidth=2, zorder=5)
    if plain and small and not crashed:
        return
    axes.annotate(
        label,
        (x, y),
        xytext=(0, (size * 0.5 + 4) * (1 if above else -1)),
        textcoords="offset points",
        ha="center",
        va="bottom" if above else "top",
        zorder=6,
        fontsize=SMALL_PX - 1.5 if plain else SMALL_PX,
        color=ALERT if crashed else MUTED if plain else INK,
        fontweight="normal" if plain else "bold",
        annotation_clip=False,
    )


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Numbered names in full once, and then their numbers: there is no room for more.

    >>> short_names(["cam1", "cam2", "barn", "cam3"])
    {'cam1': 'cam1', 'cam2': '2', 'barn': 'barn', 'cam3': '3'}
    """
    seen: set[str] = set()
    shortened = {}
    for name in names:
        prefix = name.rstrip("0123456789")
        shortened[name] = name[len(prefix) :] if prefix in seen and prefix != name else name
        seen.add(prefix)
    return shortened


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.5
    return low - margin, high + margin
