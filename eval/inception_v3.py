"""The FID Inception-v3 (Szegedy, arXiv:1512.00567, as released for TensorFlow on 2015-12-05).

Differences from torchvision's: batch norm has no gain and an eps of 1e-3; average pooling in the blocks
excludes the zero padding; the last block uses max pooling instead of average pooling. Layers are named as in
pytorch-fid, so that its state dict fits.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d, relu

CHANNELS = 7  # channels of a block used as spatial features, as in ADM's sFID (arXiv:2105.05233)


class Layer(NamedTuple):
    """A convolution with batch norm and ReLU."""

    name: str
    channels: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1
    padded: bool = True  # keeps the spatial size; ignored with stride 2


def average(x: Tensor) -> Tensor:
    return avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def maximum(x: Tensor) -> Tensor:
    return max_pool2d(x, 3, stride=1, padding=1)


def halved(x: Tensor) -> Tensor:
    return max_pool2d(x, 3, stride=2)


Step = Layer | Callable[[Tensor], Tensor] | tuple[Layer, Layer]  # a pair runs in parallel
ROW, COLUMN = (1, 7), (7, 1)


def mixed_35(pooled: int) -> list[list[Step]]:
    return [
        [Layer("branch1x1", 64)],
        [Layer("branch5x5_1", 48), Layer("branch5x5_2", 64, 5)],
        [Layer("branch3x3dbl_1", 64), Layer("branch3x3dbl_2", 96, 3), Layer("branch3x3dbl_3", 96, 3)],
        [average, Layer("branch_pool", pooled)],
    ]


def mixed_17(c: int) -> list[list[Step]]:
    across = [Layer("branch7x7_1", c), Layer("branch7x7_2", c, ROW), Layer("branch7x7_3", 192, COLUMN)]
    kernels = (1, COLUMN, ROW, COLUMN, ROW)
    doubled = [Layer(f"branch7x7dbl_{i}", 192 if i == 5 else c, k) for i, k in enumerate(kernels, 1)]
    return [[Layer("branch1x1", 192)], [*across], [*doubled], [average, Layer("branch_pool", 192)]]


def mixed_8(pool: Callable[[Tensor], Tensor]) -> list[list[Step]]:
    def forked(name: str) -> tuple[Layer, Layer]:
        return Layer(f"{name}a", 384, (1, 3)), Layer(f"{name}b", 384, (3, 1))

    return [
        [Layer("branch1x1", 320)],
        [Layer("branch3x3_1", 384), forked("branch3x3_2")],
        [Layer("branch3x3dbl_1", 448), Layer("branch3x3dbl_2", 384, 3), forked("branch3x3dbl_3")],
        [pool, Layer("branch_pool", 192)],
    ]


TO_17: list[list[Step]] = [
    [Layer("branch3x3", 384, 3, 2)],
    [Layer("branch3x3dbl_1", 64), Layer("branch3x3dbl_2", 96, 3), Layer("branch3x3dbl_3", 96, 3, 2)],
    [halved],
]
TO_8: list[list[Step]] = [
    [Layer("branch3x3_1", 192), Layer("branch3x3_2", 320, 3, 2)],
    [
        Layer("branch7x7x3_1", 192),
        Layer("branch7x7x3_2", 192, ROW),
        Layer("branch7x7x3_3", 192, COLUMN),
        Layer("branch7x7x3_4", 192, 3, 2),
    ],
    [halved],
]


GRAPH: dict[str, Layer | list[list[Step]]] = {
    "Conv2d_1a_3x3": Layer("Conv2d_1a_3x3", 32, 3, 2),
    "Conv2d_2a_3x3": Layer("Conv2d_2a_3x3", 32, 3, padded=False),
    "Conv2d_2b_3x3": Layer("Conv2d_2b_3x3", 64, 3),
    "pool_1": [[halved]],
    "Conv2d_3b_1x1": Layer("Conv2d_3b_1x1", 80),
    "Conv2d_4a_3x3": Layer("Conv2d_4a_3x3", 192, 3, padded=False),
    "pool_2": [[halved]],
    "Mixed_5b": mixed_35(32),
    "Mixed_5c": mixed_35(64),
    "Mixed_5d": mixed_35(64),
    "Mixed_6a": TO_17,
    "Mixed_6b": mixed_17(128),
    "Mixed_6c": mixed_17(160),
    "Mixed_6d": mixed_17(160),
    "Mixed_6e": mixed_17(192),
    "Mixed_7a": TO_8,
    "Mixed_7b": mixed_8(average),
    "Mixed_7c": mixed_8(maximum),
}


class Convolution(nn.Module):
    def __init__(self, n: int, layer: Layer):
        super().__init__()
        self.channels = layer.channels
        height, width = layer.kernel if isinstance(layer.kernel, tuple) else (layer.kernel, layer.kernel)
        padding = (height // 2, width // 2) if layer.padded and layer.stride == 1 else (0, 0)
        self.conv = nn.Conv2d(n, layer.channels, (height, width), layer.stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(layer.channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.bn(self.conv(x)))


class Block(nn.Module):
    """Parallel branches, each a sequence of steps; their outputs are concatenated along the channels."""

    def __init__(self, n: int, branches: Sequence[Sequence[Step]]):
        super().__init__()
        self.steps, self.channels = branches, 0
        for branch in branches:
            width = n
            for step in branch:
                layers = [] if callable(step) else [step] if isinstance(step, Layer) else step
                for layer in layers:
                    self.add_module(layer.name, Convolution(width, layer))
                width = sum(layer.channels for layer in layers) or width
            self.channels += width

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.along(branch, x) for branch in self.steps], 1)

    def along(self, branch: Sequence[Step], x: Tensor) -> Tensor:
        for step in branch:
            if callable(step):
                x = step(x)
            elif isinstance(step, Layer):
                x = self.get_submodule(step.name)(x)
            else:
                x = torch.cat([self.get_submodule(layer.name)(x) for layer in step], 1)
        return x


class InceptionV3(nn.Sequential):
    """Inception-v3 without classifier: (b, 3, 299, 299) in [-1, 1] -> `pool` (b, 2048).

    On request also `spatial` (b, 2023): the first 7 channels of a 17 x 17 block, which come from its 1 x 1
    convolution after ReLU.
    """

    def __init__(self):
        super().__init__()
        n = 3
        for name, part in GRAPH.items():
            module = Convolution(n, part) if isinstance(part, Layer) else Block(n, part)
            self.add_module(name, module)
            n = module.channels

    def forward(self, x: Tensor, spatial: str | None = None) -> dict[str, Tensor]:
        found = {}
        for name, layer in self.named_children():
            x = layer(x)
            if name == spatial:
                found["spatial"] = x[:, :CHANNELS].flatten(1)
        return found | {"pool": x.mean((2, 3))}
