"""What a choice of tokens is worth: both ends of RAS's ranking, and the oracle, against random tokens.

    for m in lumina flux sd3; do
        python run.py sweep=ras_ends model=${m}_tiny metric=[psnr,ssim] cost=flops \\
            results=results/embedded name=ras-ends-$m
    done
    python -m scripts.ras_ends results/embedded ras-ends

Reads FOLDER/NAME-*/samples.parquet; writes FOLDER/NAME/table.md. Images of the same prompt and seed are
compared, with Holm's correction for all differences; beside each, its share of the oracle's.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from fovea.eval.decisions import differs, holm
from fovea.eval.interval import Interval
from fovea.eval.statistics import Pool, paired_difference
from fovea.study.files import write
from scripts.studies import folder_and_name

RANDOM, ORACLE = "random ratio=0.25", "ras ratio=0.25 selection=oracle (diagnosis)"
CELLS = {
    "the lowest run, the paper's end (`high_ratio=1`)": "ras ratio=0.25 high_ratio=1",
    "the highest run (`high_ratio=0`)": "ras ratio=0.25 high_ratio=0",
    "oracle (diagnosis)": ORACLE,
}
SCORES: dict[str, tuple[str, Pool, int]] = {"psnr": ("PSNR, dB", "decibel", 2), "ssim": ("SSIM", "mean", 4)}
Key = tuple[str, str, str]  # score, model, label


def differences(folder: Path, name: str) -> dict[Key, Interval]:
    """Of each row to random tokens, on every model."""
    found: dict[Key, Interval] = {}
    for file in sorted(folder.glob(f"{name}-*/samples.parquet")):
        model = file.parent.name.removeprefix(f"{name}-")
        samples = pd.read_parquet(file)
        for score, (_, pool, _) in SCORES.items():
            table = samples.pivot(index="key", columns="label", values=score)
            for label in CELLS.values():
                pair = table[label].to_numpy(), table[RANDOM].to_numpy()
                found[score, model, label] = paired_difference(*pair, pool=pool, worse=None)
    if not found:
        raise SystemExit(f"no {name}-*/samples.parquet in {folder}: run the studies first, see --help")
    return found


def markdown(found: Mapping[Key, Interval]) -> str:
    p = holm({key: interval.p for key, interval in found.items() if interval.p is not None})
    lines = [
        "A quarter of the tokens, likeness to the dense image minus that of random tokens, in pairs [95 %] "
        "(+ is better, bold: other than 0 after Holm's correction for the whole table), and its share of "
        "the oracle's:",
        "",
        f"| | {' | '.join(CELLS)} |",
        f"| :-- |{' --: |' * len(CELLS)}",
    ]
    for score, model in dict.fromkeys((score, model) for score, model, _ in found):
        title, _, places = SCORES[score]
        best = found[score, model, ORACLE].value
        texts = []
        for label in CELLS.values():
            one = found[score, model, label]
            text = f"{one.value:+.{places}f} [{one.low:.{places}f}, {one.high:.{places}f}]"
            text = f"**{text}**" if differs(one, p.get((score, model, label))) else text
            texts.append(text if label == ORACLE else f"{text}, {one.value / best:.0%}")
        lines.append(f"| {title}, {model}_tiny | {' | '.join(texts)} |".replace("-", "−"))
    return "\n".join(lines) + "\n"


def main() -> None:
    folder, name = folder_and_name(__doc__, "ras-ends")
    write(folder / name / "table.md", markdown(differences(folder, name)))


if __name__ == "__main__":
    main()
