"""Compute the features of reference images once and save them with their provenance.

python -m scripts.reference_stats fid --images FOLDER --out val2014.safetensors
python -m scripts.reference_stats sfid --images val2014 --annotations captions_val2014.json \\
    --count 10000 --side 256 --out coco.safetensors inception.batch=64

The first argument names the metric that will use them, conf/metric/NAME.yaml; KEY=VALUE arguments at the end
change its keys. Use the file with `metric.NAME.reference.path=FILE`.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from fovea.eval.features import computed, save
from fovea.eval.pictures import folder
from fovea.eval.weights import digest

CONF = Path(__file__).parents[1] / "conf" / "metric"


def annotated(annotations: Path, images: Path) -> list[Path]:
    """Return the images listed in a COCO annotation file (captions or instances, 2014 or 2017), by ascending
    id.

    Raises FileNotFoundError if one is missing.
    """
    listed = sorted(json.loads(annotations.read_text("utf-8"))["images"], key=lambda image: image["id"])
    files = [images / image["file_name"] for image in listed]
    if missing := [file for file in files if not file.is_file()]:
        raise FileNotFoundError(f"{len(missing)} of {len(files)} images are not there, such as {missing[0]}")
    return files


def chosen(files: list[Path], count: int | None, seed: int) -> list[Path]:
    """Draw `count` files without replacement, in their order. Raises ValueError if there are fewer."""
    if count is None:
        return files
    if count > len(files):
        raise ValueError(f"--count {count} of {len(files)} images")
    return [files[i] for i in sorted(np.random.default_rng(seed).permutation(len(files))[:count])]


def squared(picture: Image.Image, side: int) -> Image.Image:
    """Crop the central square of an image and resize it to side x side with Pillow's bicubic filter."""
    width, height = picture.size
    edge = min(width, height)
    left, top = (width - edge) // 2, (height - edge) // 2
    square = picture.crop((left, top, left + edge, top + edge))
    return square.resize((side, side), Image.Resampling.BICUBIC)


def source(metric: str, changes: list[str]) -> Any:
    """Return the feature extractor of conf/metric/NAME.yaml."""
    node = OmegaConf.merge(OmegaConf.load(CONF / f"{metric}.yaml"), OmegaConf.from_dotlist(changes))
    return instantiate(node).source()


def main(words: list[str] | None = None) -> None:
    metrics = sorted(file.stem for file in CONF.glob("*.yaml") if "reference" in OmegaConf.load(file))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("metric", choices=metrics)
    parser.add_argument("--images", type=Path, required=True, help="folder, searched recursively")
    parser.add_argument("--out", type=Path, required=True, help="output file, .safetensors")
    parser.add_argument("--annotations", type=Path, help="COCO annotation file: use only its images")
    parser.add_argument("--count", type=int, help="number of images to draw with --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", type=int, help="crop the central square and resize it to this many pixels")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE", help="keys of the metric")
    args = parser.parse_intermixed_args(words)
    if args.annotations:
        found = annotated(args.annotations, args.images)
    else:
        found = [*(listed := folder(args.images)).pictures]
        if listed.note:
            print(listed.note, file=sys.stderr)
    files = chosen(found, args.count, args.seed)
    provenance = {
        "source": args.images.name,
        "annotations": digest(args.annotations) if args.annotations else None,
        "drawn": {"of": len(found), "seed": args.seed} if args.count else None,
        "side": args.side,
    }
    cropped = partial(squared, side=args.side) if args.side else None
    known = computed(source(args.metric, args.changes), files, cropped, provenance)
    save(known, args.out)
    print(json.dumps(known.made_from, indent=2))


if __name__ == "__main__":
    main()
