"""HPS v2: human preference for an image given its prompt (Wu et al. 2023, arXiv:2306.09341)."""

import os
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from fovea.eval.backbone import Backbone
from fovea.eval.encoder import Parts, TextEncoder, cosines, two_towers
from fovea.eval.facts import Facts
from fovea.eval.hub import single
from fovea.eval.network import CENTRE, SPREAD, Device
from fovea.eval.per_image import Judged
from fovea.eval.samples import Batch

ARCHITECTURE, REPOSITORY = "ViT-H-14", "xswu/HPSv2"
FILES = {"v2.0": "HPS_v2_compressed.pt", "v2.1": "HPS_v2.1_compressed.pt"}
CACHES = (Path(os.environ.get("HPS_ROOT", "~/.cache/hpsv2")),)


def pixels(image, side: int, antialias: bool) -> Tensor:
    """Return (3, side, side): longer side resized as a tensor in [0, 1], shorter padded with black."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as F

    x = F.to_tensor(image.convert("RGB"))
    scale = side / max(x.shape[1:])
    height, width = (round(scale * length) for length in x.shape[1:])
    if scale != 1:
        x = F.resize(x, [height, width], InterpolationMode.BICUBIC, antialias=antialias)
    top, left = (side - height) // 2, (side - width) // 2
    x = F.pad(x, [left, top, side - width - left, side - height - top])
    return F.normalize(x, [*CENTRE], [*SPREAD])


@lru_cache(maxsize=1)
def load(weights: Path, antialias: bool, device: Device, batch: int) -> TextEncoder:
    tuned = Backbone(ARCHITECTURE, str(weights), device=device, batch=batch).load()
    identity = {**tuned.identity, "resize": f"longest side, antialias={antialias}"}

    def parts() -> Parts:
        towers, tokenizer = tuned.parts.towers, tuned.parts.tokenizer
        return two_towers(
            towers, partial(pixels, side=towers.visual.image_size[0], antialias=antialias), tokenizer
        )

    return TextEncoder(parts, identity, tuned.device, batch, __name__)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class HPSv2(Judged):
    """100 cos of image and prompt in a fine-tuned open_clip ViT-H-14, averaged over images: `hpsv2[v2.1]`.

    The scale is the papers'; the hpsv2 package returns a hundredth of it. The package computes in half
    precision on a GPU, this in single.

    weights: a path; by default the published file of `version` in the hub cache or the package's.
    antialias: antialias when resizing. The package leaves this to torchvision, which antialiases tensors
        since version 0.17; `false`, named `hpsv2[v2.1,aliased]`, reproduces earlier published numbers.
    difference: to the dense images of the same keys, by paired bootstrap.
    """

    version: Literal["v2.0", "v2.1"] = "v2.1"
    weights: Path | None = None
    antialias: bool = True
    device: Device = "auto"
    batch: Annotated[int, Field(ge=1)] = 16
    seed: int = 0

    facts: ClassVar[Facts] = Facts("HPS v2", "higher", "preference", low=-100, high=100)

    @property
    def name(self) -> str:
        return f"hpsv2[{self.version}{'' if self.antialias else ',aliased'}]"

    def file(self) -> Path:
        return single(self.weights or FILES[self.version], REPOSITORY, CACHES, "weights")

    def check(self) -> None:
        self.file()

    def encoder(self) -> TextEncoder:
        return load(self.file(), self.antialias, self.device, self.batch)

    @property
    def identity(self) -> dict[str, Any]:
        return self.encoder().identity

    def figures(self, batch: Batch) -> tuple[float, ...]:
        return tuple((100 * cosines(self.encoder(), batch)).tolist())
