"""Read image files of any bit depth and colour mode correctly, or reject them by name.

The formats are those of pytorch-fid. Other files in a folder are skipped and reported; hidden files and
operating system leftovers are skipped silently.
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
LEFTOVERS = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini"}  # in addition to dot files
CONVERT = "convert it to an opaque 8-bit PNG, or take it out of the folder"
TRANSPARENT = "it is transparent in places, and has no colour there"
NAMED = 3  # maximum number of files named in a message


@dataclass(frozen=True)
class Folder:
    """The images in a folder and its subfolders, and the other files, which were skipped."""

    pictures: tuple[Path, ...]
    passed_over: tuple[Path, ...]

    @property
    def note(self) -> str:
        """Describe the skipped files; empty if there are none."""
        few = len(self.passed_over) == 1
        kind = "that is no picture was" if few else "that are no pictures were"
        found = f"{named([file.name for file in self.passed_over])} {kind} passed over"
        return f"of the reference, {found}" if self.passed_over else ""


def folder(place: Path) -> Folder:
    """List a folder. Raises Unavailable if it is not one, or names all images in unsupported formats."""
    if not place.is_dir():
        what = f"{place} is a file" if place.is_file() else f"no such folder: {place}"
        raise Unavailable(what, "give a folder of images, or a file by `python -m scripts.reference_stats`")
    files = sorted(_files(place), key=lambda file: file.split(os.sep))
    kind = {file: os.path.splitext(file)[1].lower() for file in files}
    there = {file for file in files if os.path.isfile(file)}
    others = [file for file in files if kind[file] in READ | OTHERS and file not in there]
    if dead := [file for file in others if not os.path.exists(file)]:
        raise Unavailable(f"{named(dead)}: a link to nothing", "mend the link or remove it")
    if unread := [file for file in files if kind[file] in OTHERS]:
        allowed = ", ".join(sorted(kind.removeprefix(".") for kind in READ))
        raise Unavailable(f"{named(unread)}: read are {allowed} only", CONVERT)
    pictures = [file for file in files if kind[file] in READ and file in there]
    known = set(pictures)
    return Folder(tuple(map(Path, pictures)), tuple(Path(file) for file in files if file not in known))


def _files(place: Path) -> Iterator[str]:
    """Yield the files below a folder, and the links to folders, which are not followed. Raises Unavailable
    for a folder that cannot be listed."""
    for root, folders, files in os.walk(place, onerror=_unlisted):
        folders[:] = [name for name in folders if not _is_left_over(name)]
        names = [*files, *(name for name in folders if os.path.islink(os.path.join(root, name)))]
        yield from (os.path.join(root, name) for name in names if not _is_left_over(name))


def _unlisted(error: OSError) -> None:
    reason = f"{error.filename} cannot be listed ({error.strerror})"
    raise Unavailable(reason, "make it readable, or take it out of the folder") from error


def _is_left_over(name: str) -> bool:
    return name.startswith(".") or name.lower() in LEFTOVERS


def named(names: Iterable[str]) -> str:
    """List names: `a`; `a, b and c`; `a, b, c and 4 more`."""
    listed = list(names)
    last = f"{len(listed) - NAMED} more" if len(listed) > NAMED else listed.pop() if listed else ""
    return f"{', '.join(listed[:NAMED])} and {last}" if listed else last


def picture(file: Path) -> Image.Image:
    """Read an image upright as 8-bit RGB. Raises Unavailable if that is impossible or ambiguous."""
    try:
        with Image.open(file) as opened:
            opened.load()
            frames = getattr(opened, "n_frames", 1)
            if frames > 1 and opened.format != "MPO":
                raise ValueError(f"it holds {frames} pictures")
            return _rgb(ImageOps.exif_transpose(opened))
    except Exception as error:  # of a damaged file Pillow raises many kinds, TypeError and struct.error too
        raise Unavailable(f"{file} cannot be read ({_reason(error)})", CONVERT) from error


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is no picture"
    return str(error) or type(error).__name__


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        levels = np.asarray(image.convert("I"), np.float64)
        if (levels == image.info.get("transparency")).any():
            raise ValueError(TRANSPARENT)
        levels /= 257  # 65535 -> 255
        return Image.fromarray(levels.round().astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"its levels have no known range: mode {image.mode}")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] != 255:
            raise ValueError(TRANSPARENT)
    return image.convert("RGB")


def read(files: Sequence[Path]) -> Iterator[Image.Image]:
    """Yield the images in order, decoding ahead. Raises Unavailable."""
    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        ahead = [pool.submit(picture, file) for file in files[: 2 * workers]]
        for file in [*files[2 * workers :], *[None] * len(ahead)]:
            yield ahead.pop(0).result()
            if file is not None:
                ahead.append(pool.submit(picture, file))


def readable(files: Sequence[Path]) -> None:
    """Raise Unavailable naming the files that cannot be read."""
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
