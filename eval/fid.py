"""FID: the Fréchet distance in Inception-v3 features (Heusel, arXiv:1706.08500)."""

from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from fovea.eval.distance import InceptionDistance
from fovea.eval.facts import Facts
from fovea.eval.frechet import Frechet


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class FID(Frechet, InceptionDistance):
    """FID in the 2048 pooled features, named after the resize mode: `fid[clean]`, `fid[adm]`.

    `fid[legacy_pytorch]` equals pytorch-fid's number. The reference set is treated as exact, without an error
    of its own. Below some thousands of images most of the value is bias: it then only compares methods at the
    same n.

    per_image: contribution of each image, see `frechet.contributions`.
    difference: to the dense images of the same keys.
    """

    facts: ClassVar[Facts] = Facts("FID", "lower", "distance", biased=True, low=0)

    @property
    def name(self) -> str:
        return f"fid[{self.inception.resize}]"
