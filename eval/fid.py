"""FID: the Fréchet distance in the features of the Inception-v3 (Heusel, arXiv:1706.08500)."""

from functools import partial

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from eval import Better, Samples, Score, quality
from eval.extractor import Extractor
from eval.frechet import contributions, gaussian
from eval.inception import Inception
from eval.reference import Reference, distance_score


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class FID:
    """In the 2048 pooled features, named after how images are resized: `fid[clean]`, `fid[adm]`.

    `fid[legacy_pytorch]` is pytorch-fid's number. The reference set counts as given, without an error of its
    own. per_image: what each image adds, see `eval.frechet.contributions`. difference: to the dense images of
    the same keys. Below some thousands of images most of the figure is bias: it compares methods at the same
    n only.
    """

    inception: Inception = Inception()
    reference: Reference = Reference()

    @property
    def name(self) -> str:
        return f"fid[{self.inception.resize}]"

    @property
    def better(self) -> dict[str, Better]:
        return {self.name: "lower"}

    def check(self) -> None:
        self.source()
        self.reference.check(self.source)

    def source(self) -> Extractor:
        return self.inception.load()

    @quality
    def __call__(self, samples: Samples) -> list[Score]:
        extractor = self.source()
        known = self.reference.known(extractor, samples.images)
        adds = partial(contributions, reference=gaussian(known, "pool"))
        mine = extractor.images(samples.images)["pool"]
        dense = None if samples.dense is None else extractor.images(samples.dense)["pool"]
        return [distance_score(self.name, adds, mine, dense, biased=True)]
