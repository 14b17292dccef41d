"""Measure the share of the oracle's gain over random tokens that each selection rule finds.

    for m in lumina sd3 flux; do
        python run.py sweep=selections model=${m}_tiny metric=[psnr] cost=flops \\
            results=results/embedded name=selections-$m
    done
    python -m scripts.selections results/embedded selections

Reads FOLDER/NAME-*/samples.parquet; writes FOLDER/NAME/table.md. Differences are paired by prompt and seed;
each rule (methods/selection.py) is compared with random tokens that use the same `stale` setting.
"""

from pathlib import Path

import pandas as pd

from fovea.eval.interval import Interval
from fovea.eval.statistics import paired_difference
from fovea.study.files import write
from scripts.studies import folder_and_name

Found = dict[str, dict[str, tuple[Interval, float]]]  # rule -> model -> (difference, share of the oracle's)


def rule(label: str) -> str:
    """Return the part of a label that names the rule: ras ratio=0.25 selection=age -> selection=age."""
    kept = [
        part for part in label.split() if part.split("=")[0] in ("selection", "high_ratio", "ageing", "stale")
    ]
    return " ".join(kept)


def differences(folder: Path, name: str) -> Found:
    """Return each rule's difference to random tokens, for every model, and its share of the oracle's."""
    found: Found = {}
    for file in sorted(folder.glob(f"{name}-*/samples.parquet")):
        model = file.parent.name.removeprefix(f"{name}-")
        table = pd.read_parquet(file).pivot(index="key", columns="label", values="psnr")
        rules = {rule(str(label)): str(label) for label in table.columns if str(label).startswith("ras ")}
        for text, label in rules.items():
            stale = " stale=taylor" if "stale=taylor" in text else ""
            random, oracle = (rules[f"selection={control}{stale}"] for control in ("random", "oracle"))
            if label != random:
                own, best = (
                    paired_difference(
                        table[one].to_numpy(), table[random].to_numpy(), pool="decibel", worse=None
                    )
                    for one in (label, oracle)
                )
                found.setdefault(text, {})[model] = own, own.value / best.value
    if not found:
        raise SystemExit(f"no {name}-*/samples.parquet in {folder}: run the studies first, see --help")
    return found


def markdown(found: Found) -> str:
    models = sorted({model for row in found.values() for model in row})
    lines = [
        "PSNR to the dense image, dB, less that of random tokens, in pairs [95 %], and its share of the "
        "oracle's:",
        "",
        f"| rule | {' | '.join(models)} |",
        f"| :-- |{' --: |' * len(models)}",
    ]
    for text, row in found.items():
        cells = [gain_text(*row[model]) if model in row else "–" for model in models]
        lines.append(f"| {text} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def gain_text(gain: Interval, share: float) -> str:
    return f"{gain.value:+.2f} [{gain.low:.2f}, {gain.high:.2f}], {share:.0%}".replace("-", "−")


def main() -> None:
    folder, name = folder_and_name(__doc__, "selections")
    write(folder / name / "table.md", markdown(differences(folder, name)))


if __name__ == "__main__":
    main()
