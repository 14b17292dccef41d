"""What compiling a model's repeated blocks is worth to the dense model and to sparse steps.

    python -m scripts.compiled model=flux model.weights=random --out results/compiled-flux.json

Of each run: seconds of the first call and of the fastest after it, as the model is and compiled, and how many
graphs torch compiled for it: a step on another number of tokens should need one more for each kind of block,
not for each block.
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
from fovea.study.plan.cells import GENERATION, full_model
from fovea.study.run.provenance import git

PROMPT = "a red fox asleep in the snow under a birch"
REPETITIONS = 3


def runs(model: Any, of: dict[str, Any], steps: int) -> dict[str, dict[str, Any]]:
    """Seconds of the first call and of the fastest after it, and graphs compiled meanwhile, by method."""
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
    parser.add_argument("overrides", nargs="+", help="of run.py: model=NAME, model.KEY=VALUE")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--backend", default="inductor", help="torch.compile's")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    of, checkpoint = full_model(whole(load(args.overrides))["model"])
    checkpoint.check()
    pipe = checkpoint.load()
    with adapt(pipe) as model:
        plain = runs(model, of, args.steps)
        for block in model.blocks:  # not compile_repeated_blocks(), which Lumina-Next lacks
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
