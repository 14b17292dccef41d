"""Measure the share of the oracle's gain over random tokens that each selection rule finds.

    for m in lumina sd3 flux; do
        python run.py sweep=selections model=${m}_tiny metric=[psnr] cost=flops \\
            results=results/embedded name=selections-$m
    done
    python -m scripts.selections results/embedded selections

Reads FOLDER/NAME-*/samples.parquet; writes FOLDER/NAME/table.md. Differences are paired by prompt and seed;
each rule (methods/selection.py) is compared with random tokens that use the same `stale` setting.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from fovea.eval.decisions import differs, holm
from fovea.eval.interval import Interval
from fovea.eval.statistics import paired_difference
from fovea.study.files import write
from scripts.studies import folder_and_name

SETTINGS = ("selection", "high_ratio", "ageing", "stale")  # what a rule consists of
Found = dict[tuple[str, str], Interval]  # PSNR minus that of random tokens, by rule and model


def rule(label: str) -> str:
    """Return the part of a label that names the rule: `ras ratio=0.25 selection=age` -> `selection=age`."""
    return " ".join(part for part in label.split() if part.split("=")[0] in SETTINGS)


def control(name: str, rule: str) -> str:
    """Return the rule `name`, random or oracle, with the same `stale` setting as `rule`."""
    return f"selection={name}" + (" stale=taylor" if "stale=taylor" in rule else "")


def differences(folder: Path, name: str) -> Found:
    """Return each rule's PSNR minus that of random tokens, on every model."""
    found: Found = {}
    for file in sorted(folder.glob(f"{name}-*/samples.parquet")):
        model = file.parent.name.removeprefix(f"{name}-")
        table = pd.read_parquet(file).pivot(index="key", columns="label", values="psnr")
        table = table.filter(regex="^ras ").rename(columns=lambda label: rule(str(label)))
        for each in table:
            random = control("random", str(each))
            if each != random:
                pair = table[each].to_numpy(), table[random].to_numpy()
                found[str(each), model] = paired_difference(*pair, pool="decibel", worse=None)
    if not found:
        raise SystemExit(f"no {name}-*/samples.parquet in {folder}: run the studies first, see --help")
    return found


def share(found: Found, rule: str, model: str) -> float:
    """Return the share of the oracle's gain that a rule finds."""
    return found[rule, model].value / found[control("oracle", rule), model].value


def markdown(found: Found) -> str:
    p = holm({key: interval.p for key, interval in found.items() if interval.p is not None})
    models = sorted({model for _, model in found})
    lines = [
        "PSNR to the dense image, dB, minus that of random tokens, in pairs [95 %], and the share of the "
        "oracle's gain (bold: other than 0 after Holm's correction for the whole table):",
        "",
        f"| rule | {' | '.join(models)} |",
        f"| :-- |{' --: |' * len(models)}",
    ]
    for each in dict.fromkeys(rule for rule, _ in found):
        texts = [entry(found, each, model, p) if (each, model) in found else "–" for model in models]
        lines.append(f"| {each} | {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def entry(found: Found, rule: str, model: str, p: Mapping[tuple[str, str], float]) -> str:
    gain = found[rule, model]
    text = f"{gain.value:+.2f} [{gain.low:.2f}, {gain.high:.2f}]"
    text = f"**{text}**" if differs(gain, p.get((rule, model))) else text
    return f"{text}, {share(found, rule, model):.0%}".replace("-", "−")


def main() -> None:
    folder, name = folder_and_name(__doc__, "selections")
    write(folder / name / "table.md", markdown(differences(folder, name)))


if __name__ == "__main__":
    main()
