"""sFID: the Fréchet distance in spatial features of the Inception-v3 (Nash, arXiv:2103.03841)."""

from functools import partial

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from eval import Better, Samples, Score, quality
from eval.extractor import Extractor
from eval.frechet import contributions, gaussian
from eval.inception import Inception
from eval.reference import Reference, distance_score

NAMES = {"adm": "sfid[adm]", "legacy_pytorch": "sfid[mixed_6e]"}


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SpatialFID:
    """In 7 channels x 17 x 17 places, so that it sees where things are. Two codes define it, by their resize:

    `sfid[adm]`, resize=adm: ADM's evaluator (arXiv:2105.05233), which most papers mean, the first channels of
    TensorFlow's node mixed_6/conv, Mixed_6d here. `sfid[mixed_6e]`, resize=legacy_pytorch:
    pytorch-fid-with-sfid, which RAS (arXiv:2502.10389) used, the first channels of the block after it. They
    do not compare.
    """

    inception: Inception = Inception(resize="adm")
    reference: Reference = Reference()

    def __post_init__(self):
        if self.inception.resize not in NAMES:
            allowed = " or ".join(NAMES)
            raise ValueError(f"inception.resize={self.inception.resize}: sFID is defined with {allowed} only")

    @property
    def name(self) -> str:
        return NAMES[self.inception.resize]

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
        adds = partial(contributions, reference=gaussian(known, "spatial"))
        mine = extractor.images(samples.images)["spatial"]
        dense = None if samples.dense is None else extractor.images(samples.dense)["spatial"]
        return [distance_score(self.name, adds, mine, dense, biased=True)]
