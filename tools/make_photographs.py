"""Makes edge/data/photographs/ from pictures in scikit-image's wheel: JPEGs of 5 to 60 kB, and their table.

    pip download --no-deps scikit-image==0.26.0
    python tools/make_photographs.py scikit_image-0.26.0-*.whl

Only pictures whose own documentation (`skimage/data/_fetchers.py`) says CC0 or public domain are used; that
wording is looked up in the wheel before a picture is written, and each source's checksum is recorded. Crops,
widths and qualities are chosen so that the sizes spread over the range, as they do with scene and light.
Another release of Pillow or libjpeg may compress to other bytes: then the table changes with the pictures.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import zipfile
from pathlib import Path
from typing import NamedTuple

from PIL import Image

TARGET = Path(__file__).parent.parent / "edge" / "data" / "photographs"
SIZE_BYTES_MIN, SIZE_BYTES_MAX = 5_000, 60_000


class Source(NamedTuple):
    """A picture in the wheel: its file, its licence, and the words of its documentation that grant it."""

    file: str
    licence: str
    grant: str


class Recipe(NamedTuple):
    """One shipped picture: `box` is left, top, right, bottom in source pixels."""

    name: str
    source: Source
    box: tuple[int, int, int, int]
    width_px: int
    quality: int


ASTRONAUT = Source(
    "astronaut.png",
    "public domain (NASA)",
    "No known copyright restrictions, released into the public domain.",
)
BRICK = Source("brick.png", "CC0 (CC0Textures)", "under the Creative Commons CC0 License.")
CAMERA = Source("camera.png", "CC0 (Lav Varshney)", "CC0 by the photographer (Lav Varshney).")
CAT = Source("chelsea.png", "CC0 (Stefan van der Walt)", "CC0 by the photographer (Stefan van der Walt).")
CLOCK = Source(
    "clock_motion.png",
    "public domain (Stefan van der Walt)",
    "Released into the public domain by the photographer (Stefan van der Walt).",
)
COFFEE = Source("coffee.png", "CC0 (Rachel Michetti)", "CC0 by the photographer (Rachel Michetti).")
GRASS = Source("grass.png", "CC0 (Linolafett)", "and licensed under the Creative Commons CC0 License.")
GRAVEL = Source("gravel.png", "CC0 (CC0Textures)", "licensed under the Creative Commons CC0 License.")
GALAXIES = Source("hubble_deep_field.jpg", "public domain (NASA)", "may be freely used in the public domain")
ROCKET = Source("rocket.jpg", "public domain (SpaceX)", "released in the public domain")

RECIPES = (
    Recipe("01-cat-eyes", CAT, (100, 30, 420, 180), 256, 70),
    Recipe("02-clock", CLOCK, (0, 0, 400, 300), 400, 92),
    Recipe("03-tripod", CAMERA, (220, 40, 460, 512), 180, 70),
    Recipe("04-rocket", ROCKET, (0, 0, 640, 427), 480, 75),
    Recipe("05-cat", CAT, (0, 0, 451, 300), 451, 75),
    Recipe("06-brick", BRICK, (0, 0, 512, 512), 450, 80),
    Recipe("07-coffee", COFFEE, (0, 0, 600, 400), 480, 80),
    Recipe("08-photographer", CAMERA, (0, 0, 512, 512), 512, 75),
    Recipe("09-astronaut", ASTRONAUT, (0, 0, 512, 512), 460, 80),
    Recipe("10-rocket-large", ROCKET, (0, 0, 640, 427), 640, 85),
    Recipe("11-galaxies", GALAXIES, (0, 0, 1000, 872), 500, 80),
    Recipe("12-gravel", GRAVEL, (0, 0, 512, 512), 400, 80),
    Recipe("13-coffee-cup", COFFEE, (60, 0, 560, 400), 500, 89),
    Recipe("14-grass", GRASS, (0, 0, 512, 512), 400, 80),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path, help="scikit_image-0.26.0-*.whl")
    with zipfile.ZipFile(parser.parse_args().wheel) as wheel:
        documentation = wheel.read("skimage/data/_fetchers.py").decode()
        table = [make(recipe, wheel, documentation) for recipe in RECIPES]
    with (TARGET / "photographs.csv").open("w", encoding="ascii", newline="") as out:
        writer = csv.DictWriter(out, fieldnames=list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    print(f"{len(table)} pictures, {sum(int(row['bytes']) for row in table)} bytes")


def make(recipe: Recipe, wheel: zipfile.ZipFile, documentation: str) -> dict[str, str]:
    """Writes one picture, returns its row of the table; exits if licence or size is not as promised."""
    if recipe.source.grant not in section_of(recipe.source.file, documentation):
        raise SystemExit(
            f"{recipe.source.file}: the wheel's documentation no longer grants {recipe.source.licence}"
        )
    original = wheel.read(f"skimage/data/{recipe.source.file}")
    jpeg, height_px = compress(original, recipe)
    if not SIZE_BYTES_MIN <= len(jpeg) <= SIZE_BYTES_MAX:
        raise SystemExit(f"{recipe.name}: {len(jpeg)} bytes is outside {SIZE_BYTES_MIN} to {SIZE_BYTES_MAX}")
    (TARGET / f"{recipe.name}.jpg").write_bytes(jpeg)
    return {
        "name": recipe.name,
        "bytes": str(len(jpeg)),
        "width_px": str(recipe.width_px),
        "height_px": str(height_px),
        "sha256": hashlib.sha256(jpeg).hexdigest(),
        "source": recipe.source.file,
        "source_sha256": hashlib.sha256(original).hexdigest(),
        "licence": recipe.source.licence,
    }


def section_of(file: str, documentation: str) -> str:
    """The function that documents and loads `file`: the grant must stand there, not just anywhere."""
    sections = [section for section in documentation.split("\ndef ") if f'load("data/{file}"' in section]
    if len(sections) != 1:
        raise SystemExit(f"{file}: documented {len(sections)} times in the wheel")
    return sections[0]


def compress(original: bytes, recipe: Recipe) -> tuple[bytes, int]:
    """Crops, scales and compresses, without the original's metadata. Returns the JPEG and its height."""
    left, top, right, bottom = recipe.box
    height_px = round(recipe.width_px * (bottom - top) / (right - left))
    with Image.open(io.BytesIO(original)) as image:
        picture = image.crop(recipe.box).resize((recipe.width_px, height_px), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=recipe.quality, optimize=True)
    return out.getvalue(), height_px


if __name__ == "__main__":
    main()
