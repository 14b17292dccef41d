"""Picture files as people have them: read rightly, whatever their depth and colours, or refused by name.

Read are the kinds that pytorch-fid reads. A folder may hold other files, which are told and passed over, and
what other systems leave behind, which is not even told.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fovea.eval import Unavailable

READ = {".bmp", ".jpg", ".jpeg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
OTHERS = {".avif", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jxl", ".psd", ".svg", ".tga"}
LEFTOVERS = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini"}  # beside all with a leading dot
CONVERT = "convert it to PNG, or take it out of the folder"
NAMED = 3  # files that a message names before it counts them


@dataclass(frozen=True)
class Folder:
    """Its pictures by path, with all that is below it; and what is none of them and was passed over."""

    pictures: tuple[Path, ...]
    passed_over: tuple[Path, ...]

    @property
    def note(self) -> str:
        """What was passed over, in words; nothing if nothing was."""
        few = len(self.passed_over) == 1
        kind = "that is no picture was" if few else "that are no pictures were"
        found = f"{named([file.name for file in self.passed_over])} {kind} passed over"
        return f"of the reference, {found}" if self.passed_over else ""


def folder(place: Path) -> Folder:
    """Raises Unavailable if it is no folder, or holds pictures that are not read here, all of them named."""
    if not place.is_dir():
        what = f"{place} is a file" if place.is_file() else f"no such folder: {place}"
        raise Unavailable(what, "give a folder of images, or a file by `python -m scripts.reference_stats`")
    below = sorted(file for file in place.rglob("*") if not _is_left_over(file.relative_to(place)))
    files = [file for file in below if not file.is_dir() or file.is_symlink()]
    kinds = READ | OTHERS
    if dead := [file for file in files if not file.exists() and file.suffix.lower() in kinds]:
        raise Unavailable(f"{named(map(str, dead))}: a link to nothing", "mend the link or remove it")
    if unread := [file for file in files if file.suffix.lower() in OTHERS]:
        allowed = ", ".join(sorted(kind.removeprefix(".") for kind in READ))
        raise Unavailable(f"{named(map(str, unread))}: read are {allowed} only", CONVERT)
    pictures = [file for file in files if file.suffix.lower() in READ and file.is_file()]
    known = set(pictures)
    return Folder(tuple(pictures), tuple(file for file in files if file not in known))


def _is_left_over(inside: Path) -> bool:
    return any(part.startswith(".") or part.lower() in LEFTOVERS for part in inside.parts)


def named(names: Iterable[str]) -> str:
    """a; a, b and c; a, b, c and 4 more."""
    listed = list(names)
    last = f"{len(listed) - NAMED} more" if len(listed) > NAMED else listed.pop() if listed else ""
    return f"{', '.join(listed[:NAMED])} and {last}" if listed else last


def picture(file: Path) -> Image.Image:
    """As RGB of 8 bits, upright. Raises Unavailable with its name if that cannot be, or not in one way."""
    try:
        with Image.open(file) as opened:
            opened.load()
            frames = getattr(opened, "n_frames", 1)
            if frames > 1 and opened.format != "MPO":
                raise ValueError(f"it holds {frames} pictures")
            return _rgb(ImageOps.exif_transpose(opened))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise Unavailable(f"{file} cannot be read ({_reason(error)})", CONVERT) from error


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is no picture"
    return str(error) or type(error).__name__


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        levels = np.asarray(image.convert("I"), np.float64) / 257  # of 65535 to those of 255
        return Image.fromarray(levels.round().astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"its levels have no known range: mode {image.mode}")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] != 255:
            raise ValueError("it is transparent in places, and has no colour there")
    return image.convert("RGB")


def read(files: Sequence[Path]) -> Iterator[Image.Image]:
    """Their pictures in order, decoded some ahead. Raises Unavailable."""
    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        ahead = [pool.submit(picture, file) for file in files[: 2 * workers]]
        for file in [*files[2 * workers :], *[None] * len(ahead)]:
            yield ahead.pop(0).result()
            if file is not None:
                ahead.append(pool.submit(picture, file))


def readable(files: Sequence[Path]) -> None:
    """Raises Unavailable with the names of those that cannot be read."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = [why for why in pool.map(_obstacle, files) if why is not None]
    if found:
        more = f"; {len(found) - 1} more: {named(str(f) for f, _ in found[1:])}" if len(found) > 1 else ""
        raise Unavailable(f"{found[0][1].reason}{more}", CONVERT)


def _obstacle(file: Path) -> tuple[Path, Unavailable] | None:
    try:
        picture(file)
    except Unavailable as why:
        return file, why
    return None
