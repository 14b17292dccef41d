"""Measure the constants that caches and RAS need for a model; print lines for conf/model/NAME.yaml.

python -m scripts.calibrate model=sd3 [n=8 seeds=[0] prompts=FILE.csv model.steps=28 ...]   # as for run.py

Generates the images of the first n prompts with the dense baseline and measures:

- teacache (arXiv:2411.19108, section 3.3): the least-squares polynomial of degree 4, over all pairs of
  consecutive steps of all images, from the relative L1 change of the first block's modulated input to that of
  the transformer's output. Both include the two halves of guidance, as TeaCache sees them.
- magcache (arXiv:2506.09045): the norm of the blocks' residual on the image tokens, relative to that of the
  previous step, averaged over tokens, halves of guidance and images. The first step has no previous one; its
  ratio is 1.
- forecast: the weights of basis=fitted (arXiv:2604.26365), and the half and the quarter of the steps that
  schedule=dp runs (arXiv:2601.19961); see scripts/forecasts.py.
- multistep: the weights of method=multistep at these steps; see scripts/multistep.py.
- ras (arXiv:2502.10389): which end of the ranking should run. RAS with its other default settings runs with
  either end, from the noise of the dense run. The paper's end, the lowest (high_ratio 1), is kept unless the
  other is nearer to the dense image by two standard errors.

The results hold for the number of steps, the guidance and the image size they were measured at. No file is
written.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from math import inf
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fovea.methods import RAS
from fovea.methods.tokens import euler_step
from fovea.models import Flow, Model, adapt, generator
from fovea.study.config.compose import load, whole
from fovea.study.config.errors import Refused
from fovea.study.config.prompts import Sample
from fovea.study.plan.cells import GENERATION
from scripts import forecasts, multistep
from scripts.measuring import (
    Entry,
    command_line,
    default_n,
    measured_by,
    model_and_samples,
    run_command,
    to_yaml,
)

DEGREE = 4


class Measured(NamedTuple):
    """Measurements on b dense images.

    changes: relative changes of (input, output), one pair per image and step after the first.
    ratios: MagCache's ratios (steps - 1, b).
    gram: inner products of the velocities (steps, steps), summed over images.
    levels: noise levels (steps + 1,).
    flows: one per batch.
    runs: the states of each batch, from the noise to the final one.
    """

    changes: list[tuple[float, float]]
    ratios: Tensor
    gram: Tensor
    levels: list[float]
    flows: list[Flow]
    runs: list[list[Tensor]]


@torch.no_grad()
def observe(flow: Flow) -> Measured:
    """Run the dense baseline and measure it."""
    noise, sigmas, before = flow.noise(), flow.sigmas(), None
    run = [noise]
    changes: list[tuple[float, float]] = []
    ratios: list[Tensor] = []
    velocities: list[Tensor] = []
    for s, s_next in pairwise(sigmas):
        e = flow.prepare(run[-1], s)
        h = e.run(e.hidden)
        out = e.readout(h)
        now = e.modulated(), out, (h - e.hidden).image  # (b', n, ...) each
        if before is not None:
            changes += zip(
                *(e.relative_change(a, b) for a, b in zip(now[:2], before[:2], strict=True)), strict=True
            )
            ratios.append(magnitude(now[2], before[2], len(flow.generators)))
        velocities.append(flow.transformer.guide(out, flow.cond, flow.encodings()))
        run.append(euler_step(run[-1], velocities[-1], s_next - s))
        before = now
    known = torch.stack(ratios) if ratios else torch.empty(0, len(flow.generators))
    flat = torch.stack(velocities).flatten(1).double().cpu()
    return Measured(changes, known, flat @ flat.T, sigmas.tolist(), [flow], [run])


@torch.no_grad()
def lowest_advantage(flow: Flow, run: Sequence[Tensor]) -> Tensor:
    """Return how many dB nearer to the dense image RAS is when the lowest of its ranking run than when the
    highest do. run: the dense run's states (b, n, c). Returns (b,), NaN if RAS has no sparse step."""
    noise, image = run[0], run[-1]
    if len(run) - 1 <= RAS().start:
        return torch.full((len(image),), torch.nan)
    low, high = (RAS(high_ratio=end).sample(flow, noise, flow.sigmas()) for end in (1.0, 0.0))
    missed = [(x.float() - image.float()).square().mean((1, 2)) for x in (low, high)]
    return 10 * (missed[1] / missed[0]).log10().cpu()


def magnitude(now: Tensor, before: Tensor, b: int) -> Tensor:
    """Return the ratio of norms, averaged over tokens and halves of guidance: (b', n, d) each -> (b,)."""
    ratio = now.float().norm(dim=-1) / before.float().norm(dim=-1)
    return ratio.unflatten(0, (-1, b)).mean((0, 2)).cpu()


def fit(changes: Sequence[tuple[float, float]]) -> tuple[list[float], float]:
    """Return the coefficients, highest power first, and the share of the variance they explain."""
    x, y = np.array(changes, dtype=np.float64).T
    coefficients = np.polyfit(x, y, DEGREE)
    missed = np.square(y - np.polyval(coefficients, x)).sum() / np.square(y - y.mean()).sum()
    return [float(f"{c:.9g}") for c in coefficients], float(1 - missed)


def measure(model: Model, node: Mapping[str, Any], drawn: Sequence[Sample], batch: int) -> Measured:
    """Measure all samples in batches, with the generation settings of the model's config node."""
    options = {key: node[key] for key in GENERATION if node[key] is not None}
    found = []
    for first in range(0, len(drawn), batch):
        part = drawn[first : first + batch]
        generators = [generator(s.prompt.text, s.seed) for s in part]
        flow = model.flow([s.prompt.text for s in part], generators=generators, **options)
        found.append(observe(flow))
        print(f"{first + len(part)} of {len(drawn)} images", file=sys.stderr)
    changes = [pair for s in found for pair in s.changes]
    ratios = torch.cat([s.ratios for s in found], 1)
    gram = torch.stack([s.gram for s in found]).sum(0)
    flows, runs = [flow for s in found for flow in s.flows], [run for s in found for run in s.runs]
    return Measured(changes, ratios, gram, found[0].levels, flows, runs)


def entries(measured: Measured) -> dict[str, Entry]:
    """Return the entries for the model's file, by method."""
    coefficients, explained = fit(measured.changes)
    ratios = [1.0, *(round(r, 5) for r in measured.ratios.mean(1).tolist())]
    remark = f"{explained:.0%} of the variance of {len(measured.changes)} changes"
    found = {"teacache": Entry({"coefficients": coefficients}, remark), "magcache": Entry({"ratios": ratios})}
    if len(measured.gram) >= 8:  # there is a quarter of the steps to choose
        nodes = cheapest_steps(measured)
        found |= {"forecast": forecast(measured, nodes), "multistep": solver(measured, nodes)}
    advantage = torch.cat([*map(lowest_advantage, measured.flows, measured.runs)])
    if end := ras_end(advantage):
        found["ras"] = end
    return found


def cheapest_steps(measured: Measured) -> dict[str, list[int]]:
    """Return the half and the quarter of the steps that schedule=dp and method=multistep run."""
    gram, levels = measured.gram.numpy(), measured.levels
    parts = {"twofold": 2, "fourfold": 4}
    return {key: forecasts.cheapest(gram, levels, len(gram) // part) for key, part in parts.items()}


def forecast(measured: Measured, nodes: Mapping[str, list[int]]) -> Entry:
    """Return the steps to run and the weights of forecasts."""
    rows = [[round(w, 3) for w in row] for row in forecasts.table(measured.gram.numpy())]
    return Entry(
        {"of": len(measured.gram), **nodes, "table": rows},
        "the steps of schedule=dp, and the weights of basis=fitted",
    )


def solver(measured: Measured, nodes: Mapping[str, list[int]]) -> Entry:
    """Return the nodes and weights of method=multistep."""
    fitted = {
        key: {"nodes": own, "weights": multistep.weights(measured.flows, measured.runs, own)}
        for key, own in nodes.items()
    }
    return Entry({"of": len(measured.gram), **fitted}, "nodes as for schedule=dp")


def ras_end(advantage: Tensor) -> Entry | None:
    """Return the end of RAS's ranking that should run; None if RAS has no sparse step."""
    if advantage.isnan().any():
        return None
    mean = advantage.mean().item()
    error = advantage.std().item() / len(advantage) ** 0.5 if len(advantage) > 1 else inf
    return Entry(
        {"high_ratio": int(mean > -2 * error)},
        f"{mean:+.1f} dB nearer to dense where the lowest run, standard error {error:.1f}",
    )


def calibrate(arguments: Sequence[str]) -> str:
    """Return the YAML for these arguments. Raises Refused before anything is loaded."""
    config = whole(load([*default_n(arguments), *arguments]))
    node, drawn, checkpoint = model_and_samples(config)
    if len(drawn) * (checkpoint.steps - 1) <= DEGREE:
        raise Refused(
            f"n={config['n']}, {checkpoint.steps} steps: too few changes between steps for a polynomial of "
            f"degree {DEGREE}; raise {'n or ' if checkpoint.steps > 1 else ''}model.steps"
        )
    with adapt(checkpoint.load()) as model:
        found = entries(measure(model, node, drawn, config["batch"]))
    return measured_by(command_line("calibrate", arguments, config), drawn, checkpoint.steps) + to_yaml(found)


main = partial(run_command, calibrate)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
