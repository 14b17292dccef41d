"""FID: the Fréchet distance in the features of the Inception-v3 (Heusel, arXiv:1706.08500)."""

from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from fovea.eval.distance import InceptionDistance
from fovea.eval.facts import Facts
from fovea.eval.frechet import Frechet


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class FID(Frechet, InceptionDistance):
    """In the 2048 pooled features, named after how images are resized: `fid[clean]`, `fid[adm]`.

    `fid[legacy_pytorch]` is pytorch-fid's number. The reference set counts as given, without an error of its
    own. per_image: what each image adds, see `frechet.contributions`. difference: to the dense images of
    the same keys. Below some thousands of images most of the figure is bias: it compares methods at the same
    n only.
    """

    facts: ClassVar[Facts] = Facts("FID", "lower", "distance", biased=True, low=0)

    @property
    def name(self) -> str:
        return f"fid[{self.inception.resize}]"
