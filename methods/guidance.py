"""Limited guidance: guide some of the steps; the others evaluate the model with the prompt alone."""

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from fovea.methods.tokens import euler_step

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config={"extra": "forbid"})
class LimitedGuidance:
    """Classifier-free guidance in a limited interval (arXiv:2404.07724), and not at every step of it.

    A guided step evaluates the model with and without the prompt, any other step with the prompt alone.

    start, stop: shares of the steps at which guidance starts and stops, as in diffusers' guiders. The paper
        gives the interval in noise levels.
    every: of the steps in between, the first and then every so many are guided.
    rest: velocity of the other steps: "prompted", by the prompt alone; "reuse" adds to it what guidance added
        at the image's last guided step, which is the cache of FasterCache (arXiv:2410.19355, CFG-Cache)
        without its weights by frequency.
    similarity: guidance of an image ends for good when the cosine similarity of its velocities with and
        without the prompt exceeds this (Adaptive Guidance, arXiv:2312.12487, sec. 4; there of the predicted
        noise, which flow matching has the same for both at sigma = 1). None for never.
    """

    steps: Annotated[int, Field(ge=1, le=10_000)] | None = None
    start: Share = 0.0
    stop: Share = 0.5
    every: Annotated[int, Field(ge=1)] = 1
    rest: Literal["prompted", "reuse"] = "prompted"
    similarity: Annotated[float, Field(ge=-1, le=1)] | None = None

    off: ClassVar[dict[str, Any]] = {"start": 0.0, "stop": 1.0, "every": 1, "similarity": None}
    needs_guidance: ClassVar[bool] = True

    def __post_init__(self):
        if self.start > self.stop:
            raise ValueError(f"start={self.start}, stop={self.stop}: guidance cannot stop before it starts")

    def guided_steps(self, steps: int) -> range:
        """Return which of `steps` steps are guided, unless `similarity` ends it before."""
        start, stop = (int(share * steps + 1e-9) for share in (self.start, self.stop))
        return range(start, stop, self.every)

    def saves(self, steps: int) -> bool:
        """True if some step may go without guidance. steps: the model's default."""
        steps = steps if self.steps is None else self.steps
        return self.similarity is not None or len(self.guided_steps(steps)) < steps

    @torch.no_grad()
    def __call__(self, flow, on_step=None):
        x, sigmas = flow.noise(), flow.sigmas(self.steps)
        guided_steps, open_images = self.guided_steps(len(sigmas) - 1), [*range(len(x))]
        added = [*torch.zeros_like(x)]  # per image: what its last guided step added to the prompted velocity
        for i, (s, s_next) in enumerate(pairwise(sigmas)):
            guided = open_images if i in guided_steps else []
            others = [j for j in range(len(x)) if j not in guided]
            parts = []
            if guided:
                with_prompt, without = flow.halves(x, s, guided if others else None)
                parts.append(flow.guide(with_prompt, without))
                if self.rest == "reuse":
                    for j, difference in zip(guided, parts[0] - with_prompt, strict=True):
                        added[j] = difference
                if self.similarity is not None:
                    open_images = self.still_open(guided, with_prompt, without)
            if others:
                v = flow.velocity(x, s, images=others if guided else None, guided=False)
                parts.append(v + torch.stack([added[j] for j in others]) if self.rest == "reuse" else v)
            v = parts[0] if len(parts) == 1 else in_order(guided + others, torch.cat(parts))
            x = euler_step(x, v, s_next - s)
            if on_step:
                on_step(i=i, sigma=s, x=x, v=v, rows=None)
        return x

    def still_open(self, images: list[int], with_prompt: Tensor, without: Tensor) -> list[int]:
        """Return the images whose guidance goes on. Synchronises with the device once."""
        alike = F.cosine_similarity(with_prompt.float().flatten(1), without.float().flatten(1))
        return [j for j, value in zip(images, alike.tolist(), strict=True) if value <= self.similarity]


def in_order(images: list[int], v: Tensor) -> Tensor:
    """Return v (b, n, c), given for `images` in this order, in the order of the batch."""
    return v[sorted(range(len(images)), key=images.__getitem__)]
