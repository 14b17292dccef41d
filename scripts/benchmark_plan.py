"""Time the planning of a sweep with many points: composing, checking, naming and fingerprinting its cells.

python -m scripts.benchmark_plan --points 10000
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Sequence

from fovea.study.plan.plan import make


def overrides(points: int) -> list[str]:
    """Return overrides for a grid of about `points` points over three keys of one method."""
    side = max(2, round(points ** (1 / 3)))
    shares = ",".join(f"{i / side:.4f}" for i in range(1, side + 1))
    return [
        *("model=lumina_tiny", "method=ras", "sweep=none", "eval=none", "n=1"),
        f"method.ratio={shares}",
        f"method.high_ratio={shares}",
        f"method.starvation={shares}",
    ]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=10_000)
    command = overrides(parser.parse_args(arguments).points)
    make(command[:5])  # not timed: importing torch and hashing the weights, needed once per process
    start, cpu = time.perf_counter(), time.process_time()
    cells = make(command).cells
    found = {
        "cells": len(cells),
        "seconds": round(time.perf_counter() - start, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
