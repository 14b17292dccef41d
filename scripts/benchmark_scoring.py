"""Memory and time of scoring as images become more: psnr, ssim, fid and clip_score over made-up images.

    python -m scripts.benchmark_scoring                             10,000 images of 1024 px a cell: hours
    python -m scripts.benchmark_scoring --images 100 400            what the memory does between the two
    python -m scripts.benchmark_scoring --images 100 --side 256 --metrics psnr fid

Two cells, dense and a method, are stored as a study stores them and scored as it scores them, each number of
images in a process of its own, twice: the second time nothing is left to compute. Of several numbers the last
line says what an image more takes and what is expected of 10,000, by the slope between the first and the
last; it is no measurement.

Memory is the process's own, the highest that was seen in looking twenty times a second, and all that was
resident, with the files that are mapped into it: features lie on the disk, and the system drops what it has
read of them where memory is short. What grows with the images of the own is their keys, prompts and scores,
some KiB of each. Of fewer than 128 images few are read ahead of others: nothing is expected by them."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
from PIL import Image

PAPER = 10_000
METRICS = ("psnr", "ssim", "fid", "clip_score_emoji")
LEAST = 128  # images of which full batches are read ahead of others
KINDS = 8  # different images of a cell: what is found is known by image and prompt, and all prompts differ


def made_up(side: int, seed: int) -> np.ndarray:
    """uint8 (side, side, 3): soft colours with grain."""
    draw = np.random.default_rng(seed)
    small = Image.fromarray(draw.integers(0, 256, (16, 16, 3), np.uint8))
    soft = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC), np.float64)
    return (soft + draw.normal(0, 3, soft.shape)).clip(0, 255).astype(np.uint8)


def stored(folder: Path, cell: str, n: int, side: int, seed: int) -> Any:
    """A cell of n images, and its samples as a study scores them."""
    from fovea.eval import Samples
    from fovea.study.analysis.cache import StoredImages
    from fovea.study.picture import png
    from fovea.study.records import BatchRecord, ImageRecord
    from fovea.study.store import Store

    store, kinds = Store(folder), [png(made_up(side, seed + i), False) for i in range(KINDS)]
    keys = [f"{i:012x}" for i in range(n)]
    if not len(store.samples(cell)):
        files = store.write_images(cell, {key: kinds[i % KINDS] for i, key in enumerate(keys)})
        of = {"prompt_id": "0", "seed": 0, "noise": "0" * 16, "tokens": 1.0, "blocks": 1.0, "flops": 1}
        images = tuple(ImageRecord(key=k, prompt=f"picture {k}", **of, **files[k]) for k in keys)
        store.append(
            BatchRecord(
                **{"cell": cell, "id": "0" * 12, "size": n, "images": images, "random_weights": False},
                **{"seconds": 1.0, "encode_seconds": 0.0, "decode_seconds": 0.0},
                **{"memory": None, "memory_process": None, "memory_since_start": False},
                **{"session": store.session, "device": "none", "time": "", "state": {}},
            )
        )
    records = store.samples(cell).only(keys)
    return Samples(StoredImages(store, cell, records), [f"picture {key}" for key in keys], keys)


@contextmanager
def highest_own() -> Iterator[Callable[[], int]]:
    """Gives a function that says how much memory of its own the process had at most, in bytes."""
    seen, end = [0], Event()

    def look() -> None:
        while not end.wait(0.05):
            lines = Path("/proc/self/status").read_text().splitlines()
            seen[0] = max(seen[0], *(int(line.split()[1]) << 10 for line in lines if "RssAnon" in line))

    thread = Thread(target=look)
    thread.start()
    try:
        yield lambda: seen[0]
    finally:
        end.set()
        thread.join()


def score(folder: Path, n: int, side: int, names: Sequence[str]) -> dict[str, Any]:
    """Scores both cells. Gives seconds and memory in bytes."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from fovea.eval.memory import peak
    from fovea.eval.selftest import needed, scored

    conf = Path(__file__).resolve().parents[1] / "conf" / "metric"
    nodes = [OmegaConf.load(conf / f"{name}.yaml") for name in names]
    for node in nodes:
        if OmegaConf.is_config(OmegaConf.select(node, "reference")):
            OmegaConf.update(node, "reference.path", str(folder / "reference"))
    metrics = [instantiate(node) for node in nodes]
    with peak("cpu") as resident, highest_own() as own:
        dense = stored(folder, "dense", n, side, 0)
        samples = stored(folder, "method", n, side, 1).against(dense)
        begin, wanted = time.perf_counter(), needed(metrics)
        dense.compute([what for what in wanted if not what.paired])
        samples.compute(wanted)
        found = [s for metric in metrics for s in scored(metric, samples)]
        seconds = time.perf_counter() - begin
        return {
            "n": n,
            "seconds": round(seconds, 1),
            "memory": own(),
            "resident": resident().process,
            "scores": {s.name: s.value if s.unavailable is None else s.unavailable for s in found},
        }


def measured(folder: Path, n: int, side: int, names: Sequence[str]) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "scripts.benchmark_scoring", "--in", str(folder)]
    sizes = ["--images", str(n), "--side", str(side), "--metrics", *names]
    run = subprocess.run([*command, *sizes], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(run.stdout.splitlines()[-1])


def told(run: dict[str, Any]) -> str:
    own, resident = (run[key] / 2**30 for key in ("memory", "resident"))
    return f"{run['seconds']:.0f} s, {own:.2f} GiB of its own, {resident:.2f} GiB resident"


def main(words: Sequence[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs="+", default=[PAPER], help="in a cell; one run for each")
    parser.add_argument("--side", type=int, default=1024, help="of an image, in pixels")
    parser.add_argument("--metrics", nargs="+", default=METRICS, help="files of conf/metric")
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    if args.folder:
        print(json.dumps(score(args.folder, args.images[0], args.side, args.metrics)))
        return []
    found = []
    for n in args.images:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            (folder / "reference").mkdir()
            for i in range(KINDS):
                Image.fromarray(made_up(args.side, 100 + i)).save(folder / "reference" / f"{i}.png")
            first, again = (measured(folder, n, args.side, args.metrics) for _ in range(2))
        found.append(first)
        print(
            f"{n} images of {args.side} px a cell: {told(first)}; again: {told(again)}; "
            f"the same scores: {first['scores'] == again['scores']}"
        )
    large = [run for run in found if run["n"] >= LEAST]
    if len(large) > 1 and PAPER not in args.images:
        a, b = large[0], large[-1]
        slope = {key: (b[key] - a[key]) / (b["n"] - a["n"]) for key in ("seconds", "memory")}
        hours, memory = (b[key] + slope[key] * (PAPER - b["n"]) for key in ("seconds", "memory"))
        print(
            f"an image more: {slope['seconds']:.2f} s, {slope['memory'] / 2**10:.0f} KiB; "
            f"expected of {PAPER:,}, by that slope: {hours / 3600:.1f} h, {memory / 2**30:.2f} GiB"
        )
    return found


if __name__ == "__main__":
    main()
