"""The painted scenes that generators are trained on: the first n of a size, made once, in a file.

python -m scripts.scenes --folder data --scale 5     # five times as many, on all processors
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

COUNTS = {64: 16000, 128: 8000, 256: 400}  # px: how many, times --scale


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """One process at a time; another waits until what it wants is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def painted(folder: Path, size: int, n: int, workers: int = 1) -> tuple[np.ndarray, list[str]]:
    """The first n scenes, uint8 (n, size, size, 3) on disk, and their captions; painted if missing."""
    path, captions = folder / f"scenes{size}.npy", folder / f"captions{size}.json"
    with alone(folder / f"scenes{size}.lock"):
        said = json.loads(captions.read_text()) if captions.exists() else []
        if len(said) < n:
            beside = path.with_suffix(".partial.npy")
            said = _paint(folder, beside, size, n, workers)
            beside.rename(path)
            write(captions, json.dumps(said))  # last: where they are, the scenes are
    return np.load(path, mmap_mode="r")[:n], said[:n]


def _paint(folder: Path, path: Path, size: int, n: int, workers: int) -> list[str]:
    """Every worker paints into the file and tells the captions; forked, so that nothing is sent to it. Not by
    `loop.ahead`: on a rented GPU it would wait for torch to be imported."""
    pictures, context = drawings.load(folder), get_context("fork")
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (n, size, size, 3))

    def share(first: int, end: Connection) -> None:
        said = []
        for i in range(first, n, workers):
            scene = emoji.scene("train", size, i)
            images[i] = emoji.paint(scene, pictures, size)
            said.append(scene.caption)
        end.send(said)

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
