"""Write the held-out prompts and reference pictures of assets/emoji, from the split "test".

python -m scripts.reference
"""

import argparse
import csv
from itertools import chain, count
from pathlib import Path

from PIL import Image

from scripts import drawings, emoji

PROMPTS = {"pair-held-out": 90, "composition": 90, "concept-held-out": 20}
REFERENCES = {"pair-held-out": 160, "composition": 160}
SIZE = 128  # px
SEED = {"prompts": 2, "references": 3}


def held_out(seed: int, numbers: dict[str, int], distinct: bool) -> list[emoji.Scene]:
    """Return `numbers` scenes of each kind, with one or two drawings, whose captions name the style and the
    ground.

    Pairs (single drawings first) alternate with compositions; held-out concepts come last.
    """
    found: dict[str, list[emoji.Scene]] = {kind: [] for kind in numbers}
    seen: set[str] = set()
    for index in count():
        if all(len(found[kind]) == n for kind, n in numbers.items()):
            break
        scene = emoji.scene("test", seed, index)
        complete = scene.style in scene.caption and "ground" in scene.caption and "small" not in scene.caption
        room = len(found.get(scene.kind, ())) < numbers.get(scene.kind, 0)
        if complete and room and len(scene.items) < 3 and not (distinct and scene.caption in seen):
            seen.add(scene.caption)
            found[scene.kind].append(scene)
    pairs = sorted(found["pair-held-out"], key=lambda scene: len(scene.items))
    turns = chain.from_iterable(zip(pairs, found["composition"], strict=True))
    return [*turns, *found.get("concept-held-out", ())]


def write(path: Path, header: list[str], rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("assets/emoji"))
    args = parser.parse_args()
    pictures = drawings.load(args.data)
    (args.out / "reference").mkdir(parents=True, exist_ok=True)
    prompts = [
        [
            f"e{i:03d}",
            s.caption,
            s.kind,
            s.style,
            " + ".join(emoji.CONCEPTS[item.concept] for item in s.items),
        ]
        for i, s in enumerate(held_out(SEED["prompts"], PROMPTS, distinct=True))
    ]
    write(args.out / "prompts.csv", ["id", "prompt", "kind", "style", "concepts"], prompts)
    rows = []
    for i, scene in enumerate(held_out(SEED["references"], REFERENCES, distinct=False)):
        name = f"reference/{i:03d}.png"
        Image.fromarray(emoji.paint(scene, pictures, SIZE)).save(args.out / name, optimize=True)
        rows.append([name, scene.caption, scene.kind])
    write(args.out / "reference.csv", ["file", "prompt", "kind"], rows)


if __name__ == "__main__":
    main()
