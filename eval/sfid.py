"""sFID: the Fréchet distance in spatial Inception-v3 features (Nash, arXiv:2103.03841)."""

from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from fovea.eval.distance import InceptionDistance
from fovea.eval.facts import Facts
from fovea.eval.frechet import Frechet
from fovea.eval.inception import Inception

NAMES = {"adm": "sfid[adm]", "legacy_pytorch": "sfid[mixed_6e]"}


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SpatialFID(Frechet, InceptionDistance):
    """sFID in 7 channels x 17 x 17 positions, sensitive to layout.

    There are two definitions, which are not comparable; the resize mode selects one:

    sfid[adm]: resize=adm; ADM's evaluator (arXiv:2105.05233), which most papers use: the first channels of
    TensorFlow's node mixed_6/conv, here Mixed_6d.
    sfid[mixed_6e]: resize=legacy_pytorch; pytorch-fid-with-sfid, which RAS (arXiv:2502.10389) used: the first
    channels of the following block.
    """

    inception: Inception = Inception(resize="adm")

    features: ClassVar[str] = "spatial"
    facts: ClassVar[Facts] = Facts("sFID", "lower", "distance", biased=True, low=0)

    def __post_init__(self):
        if self.inception.resize not in NAMES:
            allowed = " or ".join(NAMES)
            raise ValueError(f"inception.resize={self.inception.resize}: sFID is defined with {allowed} only")

    @property
    def name(self) -> str:
        return NAMES[self.inception.resize]
