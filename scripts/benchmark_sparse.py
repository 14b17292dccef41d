"""What a sparse step costs, as a share of a dense one, for each family on this CPU.

    python -m scripts.benchmark_sparse --family sd3 --batch 4 --threads 1

1,024 image tokens, width 384, depth 8, random weights, classifier-free guidance for SD3 and Lumina. Dense and
sparse steps take turns; the ratio is that of the fastest of each, and the median over the rounds of the ratio
within a round. bound: (active + text tokens) / (all tokens), what a step would cost if every token cost the
same.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from fovea.models import adapt, generator
from tests.pipelines import PIPELINES

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
RATIOS = (1.0, 0.75, 0.5, 0.25, 0.125)
PROMPT = "a red fox asleep in the snow under a birch, seen from above."  # 60 characters, a token each
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


def seconds(clock: Callable[[], float], step: Callable[[], Any]) -> float:
    start = clock()
    step()
    return clock() - start


def measure(family: str, batch: int, rounds: int, clock: Callable[[], float]) -> None:
    pipe = PIPELINES[family](**SIZES[family])
    limits: dict[str, Any] = {} if family == "lumina" else {"max_sequence_length": 64}
    with adapt(pipe) as model:
        generators = [generator(PROMPT, seed) for seed in range(batch)]
        flow = model.flow([PROMPT] * batch, generators=generators, height=512, width=512, **limits)
        x, kv, sigma, n, text = flow.noise(), flow.new_kv(), flow.sigmas()[0], flow.grid.n, flow.cond.text
        rows = {r: torch.rand(batch, n).argsort(1)[:, : round(r * n)] for r in RATIOS}
        dense: list[float] = []
        times: dict[float, list[float]] = {r: [] for r in RATIOS}
        flow.velocity(x, sigma, kv=kv)
        for _ in range(rounds):
            dense.append(seconds(clock, lambda: flow.velocity(x, sigma, kv=kv)))
            for ratio, taken in times.items():
                taken.append(seconds(clock, lambda r=ratio: flow.velocity(x, sigma, kv=kv, rows=rows[r])))
    print(f"{family}, batch {batch}, {text} text tokens: dense {1000 * min(dense):.0f} ms", flush=True)
    print("  ratio    bound   of the fastest   median   above the bound")
    for ratio, taken in times.items():
        bound = (round(ratio * n) + text) / (n + text)
        fastest = min(taken) / min(dense)
        median = statistics.median(s / d for s, d in zip(taken, dense, strict=True))
        print(f"  {ratio:<7}  {bound:.3f}   {fastest:.3f}            {median:.3f}    {fastest - bound:+.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", choices=list(SIZES), nargs="+", default=list(SIZES))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: for a busy machine")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for family in arguments.family:
        for batch in arguments.batch:
            measure(family, batch, arguments.rounds, CLOCKS[arguments.clock])


if __name__ == "__main__":
    main()
