"""Find the settings at which methods need a half and a quarter of a model's dense FLOPs, for sweep=matrix.

python -m scripts.budgets model=lumina_tiny [methods=ras,jit] [n=8 model.steps=20 ...]   # as for run.py

Where the cost does not depend on the images, it is counted without evaluating the model: first the number of
steps nearest to the budget, then, for methods that run a share of the tokens, that share by bisection. Cache
thresholds depend on the images and are measured (scripts/thresholds.py), which takes minutes. methods=
restricts the search to some methods. Prints lines for conf/model/NAME.yaml, one per method, each with the
savings it reaches as a comment.
"""

import sys
from bisect import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import fields, replace
from functools import partial
from typing import Any, NamedTuple

import torch
import yaml

from fovea.methods import Baseline
from fovea.models import Flow, Model, adapt, generator
from fovea.models.pipeline import Pipeline
from fovea.models.tokens import gather_tokens
from fovea.models.transformer import Transformer
from fovea.study.config.compose import load, whole
from fovea.study.config.errors import Refused
from fovea.study.config.instantiate import instantiate
from fovea.study.config.prompts import Sample
from fovea.study.plan.cells import GENERATION
from scripts import thresholds
from scripts.measuring import Entry, model_and_samples, run_command
from scripts.thresholds import TARGETS

# Caches with a threshold, and their other settings in sweep=matrix, of DiCache in sweep=freqca_dicache.
CACHES: dict[str, Sequence[str]] = {
    "teacache": (),
    "seacache": (),
    "easycache": (),
    "dicache": ("method.cache.retention=0.1",),
    "magcache": ("method.cache.max_skips=9", "method.cache.retention=0.1"),
    "fbcache": (),
    "dbcache": ("method.cache.warmup=2",),
}
FEWEST = 8  # dense steps, of which a quarter is to be spent
NEAR = 0.01  # relative distance from the target at which the search stops
Settings = dict[str, Any]


class Search(NamedTuple):
    """How to search for a method's settings.

    files: the method as overrides, given the target (times fewer FLOPs). choices: candidate settings in order
    of preference, given the number of dense steps and the target; None tries every number of steps. longest:
    the limit of that, as a multiple of the dense steps. share: settings for a share in (0, 1), whose cost
    rises with it.
    """

    files: Callable[[float], Sequence[str]]
    choices: Callable[[int, float], Iterable[Settings]] | None = None
    share: Callable[[float], Settings] | None = None
    longest: int = 3


def ratio(share: float) -> Settings:
    return {"ratio": share}


def ras_steps(steps: int, times: float) -> Iterable[Settings]:
    """Choices of RAS: all steps at two times fewer FLOPs, two fifths of them at four times."""
    return [{}] if times < 3 else [{"steps": round(0.4 * steps), "start": 2}]


def mrflow_steps(steps: int, times: float) -> Iterable[Settings]:
    """Choices of MrFlow: few steps at full resolution first, and at half the paper's 12 to 20, else fewer."""
    lows = [*range(12, 21), *range(11, 3, -1)]
    return ({"steps": low + high, "low": low} for high in range(1, steps) for low in lows)


def selflift_steps(steps: int, times: float) -> Iterable[Settings]:
    """Choices of SelfLift: about three quarters of the steps at half resolution, as in the paper."""
    pairs = [(n, low) for n in range(4, 2 * steps) for low in range(n) if 2 / 3 <= low / n <= 4 / 5]
    return ({"steps": n, "low": low} for n, low in sorted(pairs, key=lambda p: abs(p[1] / p[0] - 0.75)))


def ras_caching(times: float) -> Sequence[str]:
    if times < 3:
        return ["method=ras_caching", "method.cache.interval=2"]
    return ["method=ras_caching", "method.cache.interval=3"]


def delta_dit(times: float) -> Sequence[str]:
    share = [] if times < 3 else ["method.cache.share=0.9"]
    return ["method=caching", "cache=delta_dit", *share]


SEARCHES = {
    "ras": Search(lambda _: ["method=ras"], ras_steps, ratio),
    "ras_kept_text": Search(lambda _: ["method=ras_kept_text"], ras_steps, ratio),
    "ras_caching": Search(
        ras_caching,
        lambda steps, times: [{}] if times < 3 else [{"start": 2, "steps": round(0.9 * steps)}],
        ratio,
    ),
    "jit": Search(lambda _: ["method=jit"], None, lambda share: {"ratio": [share, max(share, 0.62)]}),
    "ralu": Search(lambda _: ["method=ralu"], None, ratio),
    "ralu_caching": Search(
        lambda _: ["method=ralu_caching", "cache=taylor_output", "method.carry=true"], None, ratio
    ),
    "ralu_ras": Search(lambda _: ["method=ralu_ras"], None, ratio),
    "delta_dit": Search(delta_dit, lambda steps, times: [{"interval": n} for n in range(2, steps // 2 + 1)]),
    "mrflow": Search(lambda _: ["method=mrflow"], mrflow_steps),
    "selflift": Search(lambda _: ["method=selflift"], selflift_steps),
}


class IdleTransformer(Transformer):
    """A transformer that counts its cost but computes none of its blocks."""

    def run_block(self, block, hidden, context):
        return hidden

    def velocity(self, x, sigma, cond, encodings, kv=None, rows=None, keep_text=False):
        return torch.zeros_like(x if rows is None else gather_tokens(x, rows))


class IdlePipeline(Pipeline):
    """A pipeline whose images are black and whose encoded tokens are zero."""

    def decode(self, x, grid):
        return x.new_zeros(len(x), 3, *(side * self.transformer.token_size for side in grid))

    decode_raw = decode

    def encode_raw(self, images):
        own = self.transformer
        return images.new_zeros(len(images), self.grid(*images.shape[2:]).n, own.channels * own.patch**2)


def idle(part: Any, kind: type) -> Any:
    """Copy a transformer or a pipeline, with the methods of the mixin `kind` in place of its own."""
    made = copy(part)
    made.__class__ = type(kind.__name__, (kind, type(part)), {})
    return made


def flops(flow: Flow, method: Any) -> int:
    """Return the closed-form FLOPs of a method on one image."""
    fresh = {
        "generators": [generator("", 0)],
        "block_runs": [],
        "decoded_grids": [],
        "encoded_grids": [],
        "extra_flops": [],
    }
    counted = replace(idle_flow(flow), **fresh)
    method(counted)
    return counted.flops()


def idle_flow(flow: Flow) -> Flow:
    """Return a copy of a flow that computes nothing."""
    if isinstance(flow.transformer, IdleTransformer):
        return flow
    parts = {
        "transformer": idle(flow.transformer, IdleTransformer),
        "pipeline": idle(flow.pipeline, IdlePipeline),
    }
    return replace(flow, **parts)


def nearest_settings(
    times: Callable[[Settings], float], search: Search, steps: int, target: float
) -> Settings:
    """Return the settings whose savings, `times(settings)` fewer FLOPs, come nearest to the target."""

    def missed(settings: Settings) -> float:
        return abs(times(settings) / target - 1)

    if search.choices is None:
        several = [{"steps": n} for n in range(4, search.longest * steps)]
        after = bisect(several, -target, key=lambda settings: -times(settings))
        best = min(several[max(after - 1, 0) : after + 1], key=missed)
    else:
        choices = [*search.choices(steps, target)]
        best = next((one for one in choices if missed(one) <= NEAR), None) or min(choices, key=missed)
    if search.share is None:
        return best
    low, high = 0.02, 1.0
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (middle, high) if times(best | search.share(middle)) > target else (low, middle)
    return min((best | search.share(round(end, 3)) for end in (low, high)), key=missed)


def with_settings(made: Any, settings: Settings) -> Any:
    """Copy a method with other settings. A setting that it does not have is its cache's."""
    own = {f.name: getattr(made, f.name) for f in fields(made)}
    of_cache = {key: value for key, value in settings.items() if key not in own}
    if of_cache:
        own["cache"] = with_settings(own["cache"], of_cache)
    return type(made)(**own | {key: value for key, value in settings.items() if key not in of_cache})


def line(name: str, flow: Flow, search: Search, arguments: Sequence[str]) -> str:
    """Return the YAML line of one method."""
    settings, remark = entry(flow, search, arguments)
    text = yaml.safe_dump({name: settings}, default_flow_style=True, width=1000, sort_keys=False)
    return f"{text.strip()[1:-1]}  # {remark}\n"


def entry(flow: Flow, search: Search, arguments: Sequence[str]) -> Entry:
    """Return the settings of one method for each target."""
    dense, settings, reached = flops(flow, Baseline()), {}, []
    for key, target in TARGETS.items():
        config = whole(load([*arguments, *search.files(target)]))
        made = instantiate(config["method"], "method", "fovea.methods")
        known: dict[str, float] = {}

        def times(chosen: Settings, made: Any = made, known: dict[str, float] = known) -> float:
            if str(chosen) not in known:
                known[str(chosen)] = dense / flops(flow, with_settings(made, chosen))
            return known[str(chosen)]

        settings[key] = nearest_settings(times, search, flow.steps, target)
        reached.append(f"{times(settings[key]):.2f}")
    return Entry(settings, f"{', '.join(reached)} times fewer FLOPs")


def budgets(arguments: Sequence[str]) -> str:
    """Return the lines for these arguments. Raises Refused before anything is loaded."""
    given = [a.removeprefix("methods=").split(",") for a in arguments if a.startswith("methods=")]
    rest = [a for a in arguments if not a.startswith("methods=")]
    names = given[-1] if given else [*SEARCHES, *CACHES]
    unknown = [name for name in names if name not in {*SEARCHES, *CACHES}]
    if unknown:
        raise Refused(f"methods={','.join(unknown)}: must be of {', '.join((*SEARCHES, *CACHES))}")
    lines = closed_form([name for name in names if name in SEARCHES], rest)
    return lines + "".join(
        thresholds.thresholds([*rest, f"cache={name}", *CACHES[name]]) for name in names if name in CACHES
    )


def closed_form(names: Sequence[str], arguments: Sequence[str]) -> str:
    """Return the lines of methods whose cost does not depend on the images."""
    if not names:
        return ""
    config = whole(load(arguments))
    node, drawn, checkpoint = model_and_samples(config)
    if checkpoint.steps < FEWEST:
        raise Refused(f"model.steps={checkpoint.steps}: too few to spend a quarter of; at least {FEWEST}")
    with adapt(checkpoint.load()) as model:
        flow = first_flow(model, node, drawn)
        return "".join(line(name, flow, SEARCHES[name], arguments) for name in names)


def first_flow(model: Model, node: Mapping[str, Any], drawn: Sequence[Sample]) -> Flow:
    """Return an idle flow of the first prompt, with the generation settings of the model's config node."""
    options = {key: node[key] for key in GENERATION if node[key] is not None}
    return idle_flow(model.flow([drawn[0].prompt.text], generators=[generator("", 0)], **options))


main = partial(run_command, budgets)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
