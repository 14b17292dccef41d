"""Measure what compiling a model's repeated blocks gains for the dense model and for sparse steps.

    python -m scripts.compiled model=flux model.weights=random --out results/compiled-flux.json

Prints for each run, with and without compilation, the seconds of the first call and of the fastest call after
it, and the number of graphs that torch compiled. A step on another number of tokens should need one more
graph per kind of block, not per block.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fovea.eval.device import describe
from fovea.eval.speed import graphs, timed
from fovea.methods import RAS, Baseline
from fovea.models import adapt, generator
from fovea.study.config.compose import load, whole
from fovea.study.plan.cells import GENERATION
from fovea.study.plan.nodes import full_model
from fovea.study.run.provenance import git

PROMPT = "a red fox asleep in the snow under a birch"
REPETITIONS = 3


def runs(model: Any, of: dict[str, Any], steps: int) -> dict[str, dict[str, Any]]:
    """Return by method the seconds of the first and of the fastest later call, and the graphs compiled."""
    options = {key: of[key] for key in GENERATION if of[key] is not None} | {"steps": steps}
    methods: dict[str, Any] = {"dense": Baseline(steps=steps)}
    sparse = {f"ras {r}": RAS(ratio=r, start=1, resets=(), steps=steps) for r in (0.5, 0.25)}
    found = {}
    for name, method in (methods | sparse).items():
        before, taken = graphs(), []
        for _ in range(1 + REPETITIONS):
            flow = model.flow([PROMPT], generators=[generator(PROMPT, 0)], **options)
            taken.append(timed(lambda ready=flow, run=method: run(ready), model.device).seconds)
        found[name] = {"first": taken[0], "seconds": min(taken[1:]), "graphs": graphs() - before}
    return found


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("overrides", nargs="+", help="as for run.py: model=NAME, model.KEY=VALUE")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--backend", default="inductor", help="backend of torch.compile")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    of, checkpoint = full_model(whole(load(args.overrides))["model"])
    checkpoint.check()
    pipe = checkpoint.load()
    with adapt(pipe) as model:
        plain = runs(model, of, args.steps)
        for block in model.blocks:  # Lumina-Next has no compile_repeated_blocks()
            block.compile(backend=args.backend)
    with adapt(pipe) as model:
        compiled = runs(model, of, args.steps)
        device = describe(str(model.device))
    found = {"plain": plain, "compiled": compiled, "machine": device, **git(), "overrides": args.overrides}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, indent=1))
    for name in plain:
        before, after = plain[name]["seconds"], compiled[name]["seconds"]
        print(f"{name}: {before:.4g} s, compiled {after:.4g} s, {compiled[name]['graphs']} graphs")
    return found


if __name__ == "__main__":
    main()
