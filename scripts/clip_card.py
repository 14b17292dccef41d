"""Write the card of clip_emoji: README.md and errors.png (the first pictures it names wrongly).

python -m scripts.clip_card --hardware "2 cores of an Intel Xeon with AMX"

Measured on scenes that it was not trained on (split "clip", another seed), through open_clip's own calls.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from scripts import drawings, emoji, loop, words
from scripts.card import sheet
from scripts.judge import Judge, best_two, both
from scripts.train_clip import DRAWN, NAMES, SIZE, held_out, shares, turned

KINDS = ("pair-held-out", "concept-held-out", "composition")
SHOWN, COLUMNS = 24, 8  # pictures in errors.png


def groups(scenes: list[emoji.Scene]) -> dict[str, list[int]]:
    """Return the indices of the scenes of each style and of each kind."""
    found: dict[str, list[int]] = {name: [] for name in (*emoji.STYLES, "plain", *KINDS)}
    for i, scene in enumerate(scenes):
        found[scene.style].append(i)
        found[scene.kind].append(i)
    return {name: rows for name, rows in found.items() if rows}


def singles(judge: Judge, scenes: list[emoji.Scene]) -> dict[str, Any]:
    """Measure how often a single drawing is named correctly, overall and by group, and list every error."""
    names, drawn = judge.read(NAMES), judge.read(DRAWN)
    concept, both = (share.argmax(1) for share in shares(scenes))

    def right(found: torch.Tensor) -> torch.Tensor:
        """Return (n, 2): is the concept correct, and are concept and style?"""
        correct = [(found @ names.T).argmax(1) == concept, (found @ drawn.T).argmax(1) == both]
        return torch.stack(correct, 1).float()

    found = judge.see(scenes)
    whole, small = right(found), right(judge.see(scenes, SIZE // 2))
    rows = {"all": whole, f"all, at {SIZE // 2} px": small}
    rows |= {name: whole[where] for name, where in groups(scenes).items()}
    captions = sorted({s.caption for s in scenes})
    own = torch.tensor([captions.index(s.caption) for s in scenes])
    predicted = (found @ names.T).argmax(1)
    wrong = (predicted != concept).nonzero().flatten().tolist()
    return {
        "table": "\n".join(
            f"| {name} | {len(row):,} | " + " | ".join(f"{x:.1%}" for x in row.mean(0)) + " |"
            for name, row in rows.items()
        ),
        "concept": whole[:, 0].mean().item(),
        "both": whole[:, 1].mean().item(),
        "captions": len(captions),
        "caption": (found @ judge.read(captions).T).argmax(1).eq(own).float().mean().item(),
        "wrong": [(i, NAMES[concept[i]], NAMES[predicted[i]]) for i in wrong],
    }


def couples(judge: Judge, scenes: list[emoji.Scene]) -> dict[str, float]:
    """Measure how often the two best names are those of a scene's two drawings, from the whole picture and
    from its windows, and how often the caption fits better than with its relation reversed."""
    found = judge.see(scenes)
    related = [i for i, s in enumerate(scenes) if turned(s.caption) != s.caption]
    own, other = (judge.read([f(scenes[i].caption) for i in related]) for f in (str, turned))
    return {
        "two": best_two(found @ judge.read(NAMES).T, scenes).float().mean().item(),
        "windows": both(judge, [judge.paint(scene) for scene in scenes], scenes).float().mean().item(),
        "relation": ((found[related] * (own - other)).sum(1) > 0).float().mean().item(),
        "related": len(related),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hardware", required=True, help="the hardware it was trained on, in words")
    parser.add_argument("--story", default="From random weights.", help="a sentence about this training run")
    parser.add_argument("--n", type=int, default=2000, help="scenes of one drawing; half as many of two")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("assets/clip_emoji"))
    return parser.parse_args()


def main() -> None:
    args = arguments()
    judge = Judge.load(args.out, drawings.load(args.data))
    settings = json.loads((args.data / "clip" / "settings.json").read_text())
    last = loop.read_log(args.data / "clip")[-1]
    scenes = held_out(1, args.n)
    facts = singles(judge, scenes)
    facts |= couples(judge, held_out(2, args.n // 2)) | settings | vars(args)
    wrong = facts.pop("wrong")
    shown = wrong[:SHOWN]
    images = [judge.paint(scenes[i]) for i, _, _ in shown]
    images += [Image.new("RGB", (SIZE, SIZE), "white")] * (-len(images) % COLUMNS)
    sheet(images, COLUMNS).save(args.out / "errors.png", optimize=True)
    counts = Counter((drawn, predicted) for _, drawn, predicted in wrong).most_common()
    facts |= {
        "vocabulary": len(words.vocabulary()),
        "parameters": sum(p.numel() for p in judge.model.parameters()) / 1e6,
        "images": last["images"],
        "minutes": last["seconds"] / 60,
        "small": round(settings["first"] * settings["steps"]),
        "couples": args.n // 2,
        "errors": len(wrong),
        "confusions": "; ".join(
            f"{drawn} → {predicted}" + f" ({n})" * (n > 1) for (drawn, predicted), n in counts
        ),
        "shown": len(shown),
        "list": "; ".join(f"{drawn}, {scenes[i].style} → {predicted}" for i, drawn, predicted in shown),
    }
    (args.out / "README.md").write_text(Path(__file__).with_suffix(".md").read_text().format(**facts))
    print({k: facts[k] for k in ("concept", "both", "caption", "two", "relation", "minutes", "images")})


if __name__ == "__main__":
    main()
