"""Measure how memory and time of scoring grow with the number of images: psnr, ssim, fid, clip_score.

    python -m scripts.benchmark_scoring                             10,000 images of 1024 px per cell: hours
    python -m scripts.benchmark_scoring --folder F                  continued in F if it was stopped: 35 GB
    python -m scripts.benchmark_scoring --images 100 400            how memory grows
    python -m scripts.benchmark_scoring --images 100 --side 256 --metrics psnr fid

Two cells of synthetic images, dense and a method, are stored and scored as in a study. Each number of images
runs in its own process, twice: the second time nothing is left to compute. With several numbers, the last
line gives the cost of one more image and an extrapolation to 10,000 from the slope between the first and the
last; this is not a measurement.

Two peaks of memory are printed: anonymous memory, sampled twenty times a second, and resident memory
including mapped files. Features are memory-mapped, and the system drops their pages when memory is short. Of
the anonymous memory, keys, prompts and scores grow with the images, by some KiB per image. Runs of fewer than
128 images do not read full batches ahead and are left out of the extrapolation."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
from PIL import Image

PAPER = 10_000
METRICS = ("psnr", "ssim", "fid", "clip_score_emoji")
LEAST = 128  # images, from which on full batches are read ahead
KINDS = 8  # distinct images per cell; results are cached by image and prompt, and all prompts differ


def synthetic(side: int, seed: int) -> np.ndarray:
    """Return uint8 (side, side, 3): soft colours with grain."""
    draw = np.random.default_rng(seed)
    small = Image.fromarray(draw.integers(0, 256, (16, 16, 3), np.uint8))
    soft = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC), np.float64)
    return (soft + draw.normal(0, 3, soft.shape)).clip(0, 255).astype(np.uint8)


def stored(folder: Path, cell: str, n: int, side: int, seed: int) -> Any:
    """Store a cell of n images, if it is missing, and return its samples as a study scores them."""
    from fovea.eval import Samples
    from fovea.study.analysis.cache import StoredImages
    from fovea.study.picture import png
    from fovea.study.records import BatchRecord, ImageRecord
    from fovea.study.store import Store

    store, kinds = Store(folder), [png(synthetic(side, seed + i), False) for i in range(KINDS)]
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
def peak_anonymous() -> Iterator[Callable[[], int]]:
    """Yield a function that returns the peak anonymous memory of this process so far, in bytes."""
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
    """Score both cells; return the scores, seconds, and memory in bytes."""
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
    with peak("cpu") as resident, peak_anonymous() as own:
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


def score_in_process(folder: Path, n: int, side: int, names: Sequence[str]) -> dict[str, Any]:
    """Run `score` in a new process."""
    command = [sys.executable, "-m", "scripts.benchmark_scoring", "--in", str(folder)]
    sizes = ["--images", str(n), "--side", str(side), "--metrics", *names]
    run = subprocess.run([*command, *sizes], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(run.stdout.splitlines()[-1])


def summary(run: dict[str, Any]) -> str:
    own, resident = (run[key] / 2**30 for key in ("memory", "resident"))
    return f"{run['seconds']:.0f} s, {own:.2f} GiB of its own, {resident:.2f} GiB resident"


def main(words: Sequence[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images", type=int, nargs="+", default=[PAPER], help="images per cell; several: a run each"
    )
    parser.add_argument("--side", type=int, default=1024, help="side of an image, in pixels")
    parser.add_argument("--metrics", nargs="+", default=METRICS, help="files of conf/metric")
    parser.add_argument("--folder", type=Path, help="where images and scores are kept; otherwise, deleted")
    parser.add_argument("--in", dest="inside", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    if args.inside:
        print(json.dumps(score(args.inside, args.images[0], args.side, args.metrics)))
        return []
    found = []
    for n in args.images:
        with nullcontext(args.folder) if args.folder else tempfile.TemporaryDirectory() as place:
            folder = Path(place) / f"{n}x{args.side}"
            (folder / "reference").mkdir(parents=True, exist_ok=True)
            for i in range(KINDS):
                Image.fromarray(synthetic(args.side, 100 + i)).save(folder / "reference" / f"{i}.png")
            first, again = (score_in_process(folder, n, args.side, args.metrics) for _ in range(2))
        found.append(first)
        print(
            f"{n} images of {args.side} px a cell: {summary(first)}; again: {summary(again)}; "
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
