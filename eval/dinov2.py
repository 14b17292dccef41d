"""The Fréchet distance in DINOv2 features, which agrees better with human judgement than Inception's.

Stein, arXiv:2306.04675.
"""

from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from fovea.eval.dino import DINOv2
from fovea.eval.encoder import Encoder
from fovea.eval.facts import Facts
from fovea.eval.frechet import Frechet
from fovea.eval.reference import Reference


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DINOv2Distance(Frechet):
    """`fd[dinov2]` with the large model, `fd[dinov2-base]` etc. with others. Otherwise like `fid.FID`."""

    backbone: DINOv2 = DINOv2()
    reference: Reference = Reference()

    features: ClassVar[str] = "class"
    facts: ClassVar[Facts] = Facts("Fréchet distance", "lower", "distance", biased=True, low=0)

    @property
    def name(self) -> str:
        return "fd[dinov2]" if self.backbone.size == "large" else f"fd[dinov2-{self.backbone.size}]"

    def check(self) -> None:
        self.backbone.file()
        self.reference.check(self.source, self.features)

    def source(self) -> Encoder:
        return self.backbone.load()
