"""DINO and DINOv2 feature networks, in the two published layouts.

Each reproduces its published use: image similarity with transformers' layout and the folder's preprocessing;
the Fréchet distance with the authors' layout (Stein, arXiv:2306.04675) at 224 x 224.
"""

import importlib
from functools import cache, lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import interpolate

from fovea.eval import Unavailable
from fovea.eval.caches import remembered, unchanged
from fovea.eval.encoder import Encoder, Parts, as_picture, of_picture
from fovea.eval.hub import WEIGHTS, digests, files, folder, prepared, read, settings
from fovea.eval.network import Device, place
from fovea.eval.weights import digest, located

SIDE, PATCH = 224, 14
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NAMES = {"small": "vits14", "base": "vitb14", "large": "vitl14"}  # in the authors' file names


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DINOv2:
    """Which DINOv2 model to use, and where its weights are.

    size: papers use `large`.
    weights: the authors' .pth or timm's .safetensors; null searches torch's hub cache, then the hub cache of
        timm's weights.
    batch: images per call.
    """

    size: Literal["small", "base", "large"] = "large"
    weights: Path | None = None
    device: Device = "auto"
    batch: Annotated[int, Field(ge=1)] = 32

    @property
    def architecture(self) -> str:
        return f"vit_{self.size}_patch14_dinov2"

    def file(self) -> Path:
        """Return the weight file. Raises Unavailable if there is none on this machine."""
        for file in [located(self.weights)] if self.weights else self.cached():
            if file.is_file():
                return file
        name = f"dinov2_{NAMES[self.size]}_pretrain.pth"
        what = f"there is no file {self.weights}" if self.weights else f"the weights {name} are missing"
        raise Unavailable(
            what, f"put {name} into torch's hub cache, or give `metric.NAME.backbone.weights=FILE`"
        )

    def cached(self) -> list[Path]:
        from huggingface_hub import try_to_load_from_cache

        own = Path(torch.hub.get_dir()) / "checkpoints" / f"dinov2_{NAMES[self.size]}_pretrain.pth"
        timms = try_to_load_from_cache(f"timm/{self.architecture}.lvd142m", "model.safetensors")
        return [own, *([Path(timms)] if isinstance(timms, str) else [])]

    def load(self) -> Encoder:
        """Load the encoder, with feature `class`, the class token (n, d). Raises Unavailable."""
        return of_authors(self)


@lru_cache(maxsize=1)
def of_authors(model: DINOv2) -> Encoder:
    file, device = model.file(), place(model.device)
    identity = {"network": model.architecture, "weights": digest(file), "resize": "bicubic-224"}
    opened = cache(partial(network_of_authors, model.architecture, file, device))
    remembered(
        [repr(model), version("timm"), unchanged([file])], lambda: bool(opened())
    )  # check once that the file holds the model
    return Encoder(
        lambda: Parts(partial(class_token, opened()), prepare), identity, device, model.batch, __name__
    )


def network_of_authors(architecture: str, file: Path, device: str) -> Any:
    timm: Any = importlib.import_module("timm")
    with torch.device("meta"):  # skips initialisation
        network = timm.create_model(architecture, pretrained=False, img_size=SIDE, num_classes=0)
    try:
        state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
        state = {key: value for key, value in state.items() if key != "mask_token"}
        state["pos_embed"] = at_224(state["pos_embed"])
        network.load_state_dict(state, strict=True, assign=True)
    except Exception as e:  # invalid files fail in torch, safetensors or timm
        raise Unavailable(f"{file} does not hold {architecture} ({e})", "give another file") from e
    return network.to(device).eval().requires_grad_(False)


def class_token(network: Any, x: Tensor) -> dict[str, Tensor]:
    return {"class": network(x)}


def prepare(image: Tensor) -> Tensor:
    """Preprocess like the metric's authors: Pillow's 8-bit bicubic to 224 x 224, ImageNet mean and deviation.

    uint8 (3, H, W) -> (3, 224, 224).
    """
    x = np.array(as_picture(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)
    pixels = torch.from_numpy(x).permute(2, 0, 1) / 255
    mean, deviation = (pixels.new_tensor(v)[:, None, None] for v in (MEAN, STD))
    return (pixels - mean) / deviation


def at_224(embedding: Tensor) -> Tensor:
    """Interpolate position embeddings (1, 1 + 37 * 37, d) to 16 x 16 patches like DINOv2's own code.

    That code passes a scale factor with 0.1 patches added and does not antialias. timm and transformers
    differ, which moves features by half a per cent.
    """
    n, grid = SIDE // PATCH, round((embedding.shape[1] - 1) ** 0.5)
    if n == grid:
        return embedding
    token, places = embedding[:, :1], embedding[:, 1:].unflatten(1, (grid, grid)).movedim(-1, 1)
    scale = (n + 0.1) / grid
    places = interpolate(places.float(), scale_factor=(scale, scale), mode="bicubic")  # (1, d, 16, 16)
    return torch.cat([token, places.flatten(2).mT], 1)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DINO:
    """A vision transformer in transformers' layout, with the first token as feature.

    model: a folder, or `owner/name` in the hub cache: facebook/dinov2-base, or facebook/dino-vits16, which
        DreamBooth (arXiv:2208.12242) uses to compare images.
    name: the last part of `model` by default.
    batch: images per call.

    Images are resized with PIL according to the folder's preprocessing config.
    """

    model: str = "facebook/dinov2-base"
    name: str | None = None
    device: Device = "auto"
    batch: Annotated[int, Field(ge=1)] = 16

    @property
    def label(self) -> str:
        return self.name or Path(self.model).name

    def weights(self) -> Path:
        """Return the folder of the weights. Raises Unavailable if it is not on this machine."""
        folder(self.model, ("preprocessor_config.json",), "backbone.model")
        return folder(self.model, WEIGHTS, "backbone.model")

    def load(self) -> Encoder:
        """Load the encoder. Raises Unavailable if the weights are missing or invalid."""
        return of_transformers(self)


@lru_cache(maxsize=1)
def of_transformers(backbone: DINO) -> Encoder:
    weights, device = backbone.weights(), place(backbone.device)
    opened = cache(partial(in_transformers, weights, device))

    def identity() -> dict[str, Any]:
        network, picture = opened()
        return {
            "weights": digests(weights),
            "architecture": network.config.to_json_string(),
            "resize": settings(picture),
        }

    def parts() -> Parts:
        network, picture = opened()
        return Parts(partial(first_token, network), of_picture(partial(prepared, picture)))

    of = [repr(backbone), version("transformers"), unchanged(files(weights))]
    return Encoder(parts, remembered(of, identity), device, backbone.batch, __name__)


def in_transformers(weights: Path, device: str) -> tuple[Any, Any]:
    """Load the network and its image processor."""
    from transformers import AutoImageProcessor, AutoModel

    network = read(AutoModel, weights, dtype=torch.float32)
    picture = read(AutoImageProcessor, weights, backend="pil")
    return network.eval().to(device), picture


def first_token(network: Any, pixels: Tensor) -> dict[str, Tensor]:
    return {"features": network(pixel_values=pixels).last_hidden_state[:, 0]}
