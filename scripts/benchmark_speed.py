"""Measure the cost of a sparse step and of whole runs relative to dense ones, for each family on this CPU.

    python -m scripts.benchmark_speed --family flux --batch 1 4

1,024 image tokens, width 384, depth 8, random weights, classifier-free guidance for SD3 and Lumina.
Everything compared runs in alternation in one process; a ratio is the median over rounds of the ratio within
a round. The default clock is CPU time of one thread, which a busy machine hardly changes.

bound: (active + text tokens) / (all tokens), the relative cost of a step if every token cost the same.
efficiency: relative FLOPs of a run / its relative time.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch

from fovea.methods import RALU, RAS, Baseline
from fovea.models import adapt, generator
from fovea.models.families import FAMILIES
from fovea.models.flow import Flow
from fovea.models.kv import Call
from tests.pipelines import PIPELINES, stock_tokens

Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
RATIOS = (1.0, 0.75, 0.5, 0.25, 0.125)
PROMPT = "a red fox asleep in the snow under a birch, seen from above."  # 60 characters, a token each
SIDE = 512  # pixels: 32 x 32 tokens
SIZES: dict[str, dict[str, Any]] = {
    "sd3": {
        "num_layers": 8,
        "num_attention_heads": 6,
        "attention_head_dim": 64,
        "caption_projection_dim": 384,
        "pos_embed_max_size": 32,
    },
    "lumina": {
        "num_layers": 8,
        "hidden_size": 384,
        "num_attention_heads": 6,
        "num_kv_heads": 2,
        "multiple_of": 64,
    },
    "flux": {
        "num_layers": 3,
        "num_single_layers": 5,
        "num_attention_heads": 6,
        "attention_head_dim": 64,
        "axes_dims_rope": (16, 24, 24),
    },
}


class Bench:
    """One family at one batch size: an adapted pipeline, and a stock one with the same weights."""

    def __init__(self, family: str, batch: int, clock: Clock) -> None:
        self.family, self.batch, self.clock = family, batch, clock
        self.pipe, self.stock = (PIPELINES[family](**SIZES[family]) for _ in range(2))
        self.limits: dict[str, Any] = {} if family == "lumina" else {"max_sequence_length": 64}

    @property
    def generators(self) -> list[torch.Generator]:
        return [generator(PROMPT, seed) for seed in range(self.batch)]

    def flow(self, model: Any, steps: int) -> Flow:
        size = {"height": SIDE, "width": SIDE, "steps": steps}
        return model.flow([PROMPT] * self.batch, generators=self.generators, **size, **self.limits)

    def stock_run(self, steps: int) -> torch.Tensor:
        size = {"height": SIDE, "width": SIDE, "num_inference_steps": steps}
        return stock_tokens(
            self.stock, [PROMPT] * self.batch, generator=self.generators, **size, **self.limits
        )

    def in_turns(self, rounds: int, runs: Mapping[Any, Callable[[], Any]]) -> dict[Any, list[float]]:
        """Run each of `runs` once per round, in alternation; return its seconds per round."""
        times: dict[Any, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                start = self.clock()
                run()
                times[name].append(self.clock() - start)
        return times

    def steps(self, rounds: int) -> None:
        with adapt(self.pipe) as model:
            flow = self.flow(model, 28)
            x, kv, sigma, n, text = flow.noise(), flow.new_kv(), flow.sigmas()[0], flow.grid.n, flow.cond.text
            own = FAMILIES[self.family].transformer(self.stock, Call())

            def stock() -> torch.Tensor:
                with torch.no_grad():
                    repeated, encodings = x.repeat(flow.cond.halves, 1, 1), flow.encodings()
                    v = own.stock_forward(repeated, sigma, flow.cond, encodings)
                    return own.guide(v, flow.cond, encodings)

            assert torch.equal(stock(), flow.velocity(x, sigma, kv=kv))
            runs: dict[Any, Callable[[], Any]] = {
                "stock": stock,
                "dense": lambda: flow.velocity(x, sigma, kv=kv),
            }
            for ratio in RATIOS:
                rows = torch.rand(self.batch, n).argsort(1)[:, : round(ratio * n)]
                runs[ratio] = lambda rows=rows: flow.velocity(x, sigma, kv=kv, rows=rows)
            times = self.in_turns(rounds, runs)
        print(f"{self.family}, batch {self.batch}, {text} text tokens", flush=True)
        took, of_stock = 1000 * min(times["dense"]), 1 / share(times, "stock")
        print(f"  a dense step {took:.0f} ms, {of_stock:.3f} of the stock transformer's")
        print("  ratio    bound   step    above the bound")
        for ratio in RATIOS:
            bound, found = (round(ratio * n) + text) / (n + text), share(times, ratio)
            print(f"  {ratio:<7}  {bound:.3f}   {found:.3f}   {found - bound:+.3f}", flush=True)

    def runs(self, rounds: int, steps: int) -> None:
        presets = ("flux_5x", "flux_7x") if self.family == "flux" else ("sd3_2x", "sd3_3x")
        methods: dict[str, Any] = {"dense": Baseline()}
        methods |= {f"ras, ratio {ratio}": RAS(ratio=ratio) for ratio in RATIOS[2:]}
        methods |= {f"ralu, {preset}": RALU(preset=preset) for preset in presets}
        flows: dict[str, Flow] = {}
        with adapt(self.pipe) as model:

            def run(name: str) -> None:
                flows[name] = self.flow(model, steps)
                methods[name](flows[name])

            RALU(steps=3)(self.flow(model, 3))  # not timed: what RALU imports on its first run
            runs = {name: lambda name=name: run(name) for name in methods}
            times = self.in_turns(rounds, {"stock": lambda: self.stock_run(steps), **runs})
            flops = {name: flow.flops() for name, flow in flows.items()}
        took, of_stock = min(times["dense"]), 1 / share(times, "stock")
        print(f"  a dense run of {steps} steps {took:.1f} s, {of_stock:.3f} of the stock pipeline's")
        print("  method           FLOPs   time    efficiency")
        for name in [*methods][1:]:
            computed, took = flops[name] / flops["dense"], share(times, name)
            print(f"  {name:<15}  {computed:.3f}   {took:.3f}   {computed / took:.1%}", flush=True)


def share(times: Mapping[Any, list[float]], name: Any) -> float:
    """Return the median share of the dense time."""
    return median(a / b for a, b in zip(times[name], times["dense"], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", choices=list(SIZES), nargs="+", default=list(SIZES))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of single steps")
    parser.add_argument("--runs", type=int, default=1, help="rounds of whole runs; 0 for none")
    parser.add_argument("--steps", type=int, default=28, help="steps of a whole run")
    parser.add_argument("--clock", choices=list(CLOCKS), default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for family in given.family:
        for batch in given.batch:
            bench = Bench(family, batch, CLOCKS[given.clock])
            bench.steps(given.rounds)
            if given.runs:
                bench.runs(given.runs, given.steps)


if __name__ == "__main__":
    main()
