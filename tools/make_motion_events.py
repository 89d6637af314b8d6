"""Makes edge/data/motion-events.csv by frame differencing of vtest.avi, a street clip of Debian's opencv-doc.

    apt-get download opencv-doc
    dpkg-deb --fsys-tarfile opencv-doc_*.deb | tar xf - ./usr/share/doc/opencv-doc
    python tools/make_motion_events.py usr/share/doc/opencv-doc        # needs ffmpeg, or --ffmpeg PATH

The method is that of common motion cameras: compare each frame with the one before, count what changed in
each zone of the picture, and call a run of frames with enough change one event, over when its zone has been
quiet for a while. The clip itself is not shipped: only these measurements of it are.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

TARGET = Path(__file__).parent.parent / "edge" / "data" / "motion-events.csv"
CLIP = "examples/data/vtest.avi"
CLIP_SHA256 = "45cddc9490be69345cbdab64ca583be65987e864ca408038e648db99e10516cf"
COPYRIGHT_LINES = ("Files: *", "License: Apache-2.0 AND BSD-3-Clause")

WIDTH_PX, HEIGHT_PX, FRAME_MS = 768, 576, 100
CELL_PX = 4  # frames are averaged over 4 x 4 pixels first, which takes the sensor's noise out
LEVELS_MIN = 15  # a cell has changed if its brightness (0 to 255) moved by more than this
ZONE_ROWS, ZONE_COLUMNS = 3, 4
ZONE_PERMILLE_MIN = 10  # a zone moves while more than this share of its cells has changed
HOLD_FRAMES = 5
EVENT_FRAMES_MIN = 3  # shorter ones are flicker

HEADER = f"""\
# Motion events in a real street scene. Clip: vtest.avi (768 x 576, 10 frames/s, {{clip_ms}} ms) of Debian's
# opencv-doc 4.6.0+dfsg-12, declared Apache-2.0 AND BSD-3-Clause there; see LICENCES.md.
# Clip sha256 {CLIP_SHA256}
# Made by tools/make_motion_events.py from cells of {CELL_PX} x {CELL_PX} pixels, changed by more than
# {LEVELS_MIN} of 255 levels between two frames; {ZONE_ROWS} x {ZONE_COLUMNS} zones, moving while over
# {ZONE_PERMILLE_MIN} permille of their cells change; hold {HOLD_FRAMES} frames, shortest {EVENT_FRAMES_MIN}.
# t_ms: first frame, since the clip's start. area: largest share of the picture that changed in one frame.
# Box: what changed during the event, within its zone.
"""


class Event(NamedTuple):
    """One row of the table; the box is in thousandths of the picture, the area in millionths."""

    t_ms: int
    duration_ms: int
    area_ppm: int
    left_permille: int
    top_permille: int
    width_permille: int
    height_permille: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", type=Path, help="the unpacked usr/share/doc/opencv-doc")
    parser.add_argument("--ffmpeg", default="ffmpeg", help="the ffmpeg program that decodes the clip")
    arguments = parser.parse_args()
    check_source(arguments.package)
    frames = decode(arguments.package / CLIP, arguments.ffmpeg)
    events = find_events(changed_cells(frames))
    rows = "".join(",".join(map(str, event)) + "\n" for event in events)
    header = HEADER.format(clip_ms=len(frames) * FRAME_MS)
    TARGET.write_text(f"{header}{','.join(Event._fields)}\n{rows}", encoding="ascii")
    print(f"{TARGET.name}: {len(frames)} frames, {len(events)} events, {TARGET.stat().st_size} bytes")


def check_source(package: Path) -> None:
    """Exits unless clip and declared licence are the recorded ones."""
    copyright_lines = (package / "copyright").read_text(encoding="utf-8").splitlines()
    for line in COPYRIGHT_LINES:
        if line not in copyright_lines:
            raise SystemExit(f"{package}/copyright does not say {line!r}")
    if hashlib.sha256((package / CLIP).read_bytes()).hexdigest() != CLIP_SHA256:
        raise SystemExit(f"{package / CLIP} is not the recorded clip")


def decode(clip: Path, ffmpeg: str) -> NDArray[np.uint8]:
    """The brightness of every frame exactly as decoded, shape (frames, height, width)."""
    command = [ffmpeg, "-v", "error", "-i", str(clip), "-vf", "extractplanes=y"]
    command += ["-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "gray", "-"]
    raw = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, HEIGHT_PX, WIDTH_PX)


def changed_cells(frames: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which cells changed from each frame to the next, shape (frames - 1, rows, columns); exact integers."""
    rows, columns = HEIGHT_PX // CELL_PX, WIDTH_PX // CELL_PX
    blocks = frames.reshape(-1, rows, CELL_PX, columns, CELL_PX)
    brightness = blocks.sum(axis=(2, 4), dtype=np.int32)
    return np.asarray(np.abs(np.diff(brightness, axis=0)) > LEVELS_MIN * CELL_PX**2)


def find_events(changed: NDArray[np.bool_]) -> list[Event]:
    """The events of all zones, in order of start, then of place."""
    _, rows, columns = changed.shape
    zone_rows, zone_columns = rows // ZONE_ROWS, columns // ZONE_COLUMNS
    events = []
    for top in range(0, rows, zone_rows):
        for left in range(0, columns, zone_columns):
            zone = np.zeros_like(changed)
            window = np.s_[:, top : top + zone_rows, left : left + zone_columns]
            zone[window] = changed[window]
            cells = zone.sum(axis=(1, 2))
            for first, last in runs(
                np.flatnonzero(cells * 1000 > ZONE_PERMILLE_MIN * zone_rows * zone_columns)
            ):
                if last - first + 1 >= EVENT_FRAMES_MIN:
                    events.append(measure(zone[first : last + 1], first))
    return sorted(events)


def runs(frames: NDArray[np.intp]) -> list[tuple[int, int]]:
    """First and last frame of each run; a pause of up to the hold time does not end one."""
    if frames.size == 0:
        return []
    parts = np.split(frames, np.flatnonzero(np.diff(frames) > HOLD_FRAMES) + 1)
    return [(int(part[0]), int(part[-1])) for part in parts]


def measure(run: NDArray[np.bool_], first: int) -> Event:
    """The event of one run of frames; difference number n is what moved between frame n and frame n + 1."""
    frames, rows, columns = run.shape
    touched = np.logical_or.reduce(run)
    height_cells = np.flatnonzero(np.logical_or.reduce(touched, axis=1))
    width_cells = np.flatnonzero(np.logical_or.reduce(touched, axis=0))
    top, bottom = int(height_cells[0]), int(height_cells[-1]) + 1
    left, right = int(width_cells[0]), int(width_cells[-1]) + 1
    return Event(
        t_ms=(first + 1) * FRAME_MS,
        duration_ms=frames * FRAME_MS,
        area_ppm=int(run.sum(axis=(1, 2)).max()) * 1_000_000 // (rows * columns),
        left_permille=left * 1000 // columns,
        top_permille=top * 1000 // rows,
        width_permille=(right - left) * 1000 // columns,
        height_permille=(bottom - top) * 1000 // rows,
    )


if __name__ == "__main__":
    main()
