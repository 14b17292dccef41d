"""What caches and RAS have to know of a model, measured on it: lines for conf/model/NAME.yaml.

python -m scripts.calibrate model=sd3 [n=8 seeds=[0] prompts=FILE.csv model.steps=28 ...]   # as for run.py

It makes the images of the first n prompts with the dense baseline and looks on:

- teacache (arXiv:2411.19108, section 3.3): the polynomial of degree 4 that least squares put through all
  pairs of consecutive steps of all images, from the relative L1 change of the first block's modulated input
  to that of the transformer's output. Both hold the two halves of guidance, as what TeaCache sees does.
- magcache (arXiv:2506.09045): what the blocks add to the image tokens, its norm over that of the step before,
  averaged over tokens, halves of guidance and images. The first step has none before it and is given as 1.
- forecast: the weights of basis=fitted (arXiv:2604.26365), and the half and the quarter of the steps that
  schedule=dp runs (arXiv:2601.19961), see scripts/forecasts.py.
- multistep: at these steps, the weights of method=multistep, see scripts/multistep.py.
- ras (arXiv:2502.10389): which end of the ranking should run. RAS, by default but for the end, chooses tokens
  of the recorded velocities of the dense run; what those left out miss adds up to an error of the image. The
  paper's end, the lowest (high_ratio 1), stands unless the other is nearer to dense by two standard errors.

All hold for the number of steps, the guidance and the size they were measured at. Nothing is written.
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
from fovea.methods.tokens import euler
from fovea.models import Flow, Model, adapt, generator
from fovea.models.tokens import take
from fovea.study.config.compose import load, whole
from fovea.study.config.errors import Refused
from fovea.study.config.prompts import Sample
from fovea.study.plan.cells import GENERATION
from scripts import forecasts, multistep
from scripts.measuring import Entry, chosen, command, few, program, source, written

DEGREE = 4


class Seen(NamedTuple):
    """changes: of input and output, a pair per image and step after the first. ratios: (steps - 1, b).
    nearer: (b,), see `nearer`. gram: inner products of the velocities (steps, steps), summed over images.
    levels: noise levels (steps + 1,). flows, runs: of each batch, and its states from the noise on."""

    changes: list[tuple[float, float]]
    ratios: Tensor
    nearer: Tensor
    gram: Tensor
    levels: list[float]
    flows: list[Flow]
    runs: list[list[Tensor]]


@torch.no_grad()
def observe(flow: Flow) -> Seen:
    """The dense baseline."""
    noise, sigmas, before = flow.noise(), flow.sigmas(), None
    run = [noise]
    changes: list[tuple[float, float]] = []
    ratios: list[Tensor] = []
    velocities: list[Tensor] = []
    for s, s_next in pairwise(sigmas):
        e = flow.open(run[-1], s)
        h = e.run(e.hidden)
        out = e.readout(h)
        now = e.modulated(), out, (h - e.hidden).image  # (b', n, ...) each
        if before is not None:
            changes += zip(*(e.change(a, b) for a, b in zip(now[:2], before[:2], strict=True)), strict=True)
            ratios.append(magnitude(now[2], before[2], len(flow.generators)))
        velocities.append(flow.transformer.guide(out, flow.cond))
        run.append(euler(run[-1], velocities[-1], s_next - s))
        before = now
    known = torch.stack(ratios) if ratios else torch.empty(0, len(flow.generators))
    flat = torch.stack(velocities).flatten(1).double().cpu()
    near = nearer(Recorded(flow, velocities), noise, run[-1])
    return Seen(changes, known, near, flat @ flat.T, sigmas.tolist(), [flow], [run])


class Recorded:
    """A flow that points where the dense run of `flow` did, wherever it is asked: (b, n, c) at each step."""

    def __init__(self, flow: Flow, velocities: Sequence[Tensor]):
        self.pixels, self.sigmas, self.velocities = flow.pixels, flow.sigmas(), velocities

    def new_kv(self) -> None:
        """Nothing is evaluated."""

    def velocity(self, x: Tensor, sigma: Tensor, kv: None = None, rows: Tensor | None = None) -> Tensor:
        v = self.velocities[int((self.sigmas - sigma).abs().argmin())]
        return v if rows is None else take(v, rows)


def nearer(flow: Recorded, noise: Tensor, image: Tensor) -> Tensor:
    """By how many decibels RAS is nearer to the dense image where the lowest of its ranking run than where
    the highest do: (b, n, c) each -> (b,). NaN where it has no sparse step."""
    if len(flow.velocities) <= RAS().start:
        return torch.full((len(image),), torch.nan)
    low, high = (RAS(high_ratio=end).sample(flow, noise, flow.sigmas) for end in (1.0, 0.0))
    missed = [(x.float() - image.float()).square().mean((1, 2)) for x in (low, high)]
    return 10 * (missed[1] / missed[0]).log10().cpu()


def magnitude(now: Tensor, before: Tensor, b: int) -> Tensor:
    """Mean over tokens, and halves of guidance, of the ratio of their norms: (b', n, d) each -> (b,)."""
    ratio = now.float().norm(dim=-1) / before.float().norm(dim=-1)
    return ratio.unflatten(0, (-1, b)).mean((0, 2)).cpu()


def fit(changes: Sequence[tuple[float, float]]) -> tuple[list[float], float]:
    """Coefficients, the highest power first, and the share of the variance they explain."""
    x, y = np.array(changes, dtype=np.float64).T
    coefficients = np.polyfit(x, y, DEGREE)
    missed = np.square(y - np.polyval(coefficients, x)).sum() / np.square(y - y.mean()).sum()
    return [float(f"{c:.9g}") for c in coefficients], float(1 - missed)


def measure(model: Model, node: Mapping[str, Any], drawn: Sequence[Sample], batch: int) -> Seen:
    """All samples, with the settings of the model's config node."""
    options = {key: node[key] for key in GENERATION if node[key] is not None}
    seen = []
    for first in range(0, len(drawn), batch):
        part = drawn[first : first + batch]
        generators = [generator(s.prompt.text, s.seed) for s in part]
        flow = model.flow([s.prompt.text for s in part], generators=generators, **options)
        seen.append(observe(flow))
        print(f"{first + len(part)} of {len(drawn)} images", file=sys.stderr)
    changes = [pair for s in seen for pair in s.changes]
    ratios, near = torch.cat([s.ratios for s in seen], 1), torch.cat([s.nearer for s in seen])
    gram, flows, runs = (
        torch.stack([s.gram for s in seen]).sum(0),
        [flow for s in seen for flow in s.flows],
        [run for s in seen for run in s.runs],
    )
    return Seen(changes, ratios, near, gram, seen[0].levels, flows, runs)


def entries(seen: Seen) -> dict[str, Entry]:
    """Of the model's file."""
    coefficients, explained = fit(seen.changes)
    ratios = [1.0, *(round(r, 5) for r in seen.ratios.mean(1).tolist())]
    remark = f"{explained:.0%} of the variance of {len(seen.changes)} changes"
    found = {
        "teacache": Entry({"coefficients": coefficients}, remark),
        "magcache": Entry({"ratios": ratios}),
        "forecast": forecast(seen),
        "multistep": solver(seen),
        "ras": focus(seen.nearer),
    }
    return {name: entry for name, entry in found.items() if entry}


def forecast(seen: Seen) -> Entry | None:
    """Steps to run and weights of forecasts; nothing where there is no quarter of the steps."""
    gram, steps = seen.gram.numpy(), len(seen.gram)
    if steps < 8:
        return None
    half, quarter = (forecasts.cheapest(gram, seen.levels, steps // part) for part in (2, 4))
    rows = [[round(w, 3) for w in row] for row in forecasts.table(gram)]
    return Entry(
        {"of": steps, "twofold": half, "fourfold": quarter, "table": rows},
        "the steps of schedule=dp, and the weights of basis=fitted",
    )


def solver(seen: Seen) -> Entry | None:
    """Nodes and weights of `methods.multistep`; None if there is no quarter of the steps."""
    gram, steps = seen.gram.numpy(), len(seen.gram)
    if steps < 8:
        return None
    found: dict[str, Any] = {"of": steps}
    for budget, part in (("twofold", 2), ("fourfold", 4)):
        nodes = forecasts.cheapest(gram, seen.levels, steps // part)
        found[budget] = {"nodes": nodes, "weights": multistep.weights(seen.flows, seen.runs, nodes)}
    return Entry(found, "nodes as for schedule=dp")


def focus(nearer: Tensor) -> Entry | None:
    """RAS's end of the ranking; nothing where it has no sparse step."""
    if nearer.isnan().any():
        return None
    mean = nearer.mean().item()
    error = nearer.std().item() / len(nearer) ** 0.5 if len(nearer) > 1 else inf
    return Entry(
        {"high_ratio": int(mean > -2 * error)},
        f"{mean:+.1f} dB nearer to dense where the lowest run, standard error {error:.1f}",
    )


def calibrate(arguments: Sequence[str]) -> str:
    """The fragment for a command line. Raises Refused before anything is loaded."""
    config = whole(load([*few(arguments), *arguments]))
    node, drawn, checkpoint = chosen(config)
    if len(drawn) * (checkpoint.steps - 1) <= DEGREE:
        raise Refused(f"n={config['n']}: too few images for a polynomial of degree {DEGREE}; raise n")
    with adapt(checkpoint.load()) as model:
        found = entries(measure(model, node, drawn, config["batch"]))
    return source(command("calibrate", arguments, config), drawn, checkpoint.steps) + written(found)


main = partial(program, calibrate)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
