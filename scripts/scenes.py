"""Paint the scenes that generators are trained on, once, into files by size.

python -m scripts.scenes --folder data --scale 5     # five times as many, on all CPU cores
"""

import argparse
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from fovea.study.files import write
from scripts import drawings, emoji

COUNTS = {64: 16000, 128: 8000, 256: 400}  # px: number of scenes, times --scale


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes; others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def painted(folder: Path, size: int, n: int, workers: int = 1) -> tuple[np.ndarray, list[str]]:
    """Return the first n scenes, mapped uint8 (n, size, size, 3), and captions; paint them if missing."""
    path, listing = folder / f"scenes{size}.npy", folder / f"captions{size}.json"
    with locked(folder / f"scenes{size}.lock"):
        captions = json.loads(listing.read_text()) if listing.exists() else []
        if len(captions) < n:
            beside = path.with_suffix(".partial.npy")
            captions = _paint(folder, beside, size, n, workers)
            beside.rename(path)
            write(listing, json.dumps(captions))  # last, so that captions imply scenes
    return np.load(path, mmap_mode="r")[:n], captions[:n]


def _paint(folder: Path, path: Path, size: int, n: int, workers: int) -> list[str]:
    """Paint n scenes into a file with forked workers; return the captions. Does not use `loop.prefetched`,
    which would have to import torch first."""
    pictures, context = drawings.load(folder), get_context("fork")
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (n, size, size, 3))

    def share(first: int, end: Connection) -> None:
        captions = []
        for i in range(first, n, workers):
            scene = emoji.scene("train", size, i)
            images[i] = emoji.paint(scene, pictures, size)
            captions.append(scene.caption)
        end.send(captions)

    ends = []
    for first in range(workers):
        here, there = context.Pipe(duplex=False)
        context.Process(target=share, args=(first, there), daemon=True).start()
        there.close()
        ends.append(here)
    captions = [""] * n
    for first, end in enumerate(ends):
        captions[first::workers] = end.recv()
    return captions


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("data"))
    parser.add_argument("--scale", type=float, default=1, help="factor on the number of scenes")
    args = parser.parse_args()
    for size, n in COUNTS.items():
        painted(args.folder, size, round(args.scale * n), len(os.sched_getaffinity(0)))
        print(f"{round(args.scale * n)} scenes of {size} px", flush=True)


if __name__ == "__main__":
    main()
