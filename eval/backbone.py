"""The CLIP model that features and scores come from: any of open_clip's, loaded once per process."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from fovea.eval import Unavailable
from fovea.eval.network import Device, place
from fovea.eval.weights import as_trained, digest, in_folder, located, of_tag, quick_gelu

FOLDER = "local-dir:"  # open_clip's scheme
KEPT = (
    4  # sets of images whose features are remembered: a method's and the dense model's, for several metrics
)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Backbone:
    """Which model, and what its scores are called by.

    model: `local-dir:PATH`, a folder with open_clip_config.json and weights, or an architecture such as
    ViT-B-32. pretrained: an architecture's weights, a file or an open_clip tag. name: `model/pretrained`
    unless given. quick_gelu: the activation that a file of weights was trained with, where neither the file
    nor the architecture's name tells. batch: images or texts per call.
    """

    model: str = "local-dir:assets/clip_emoji"
    pretrained: str | None = None
    name: str | None = None
    device: Device = "auto"
    quick_gelu: bool | None = None
    batch: Annotated[int, Field(ge=1)] = 32

    def __post_init__(self):
        if self.model.startswith("hf-hub:"):
            raise ValueError(f"model={self.model}: download it and give its folder, {FOLDER}PATH")
        if self.model.startswith(FOLDER) and self.pretrained:
            raise ValueError(
                f"model={self.model} has its own weights: leave out pretrained={self.pretrained}"
            )
        if not self.model.startswith(FOLDER) and not self.pretrained:
            raise ValueError(
                f"model={self.model} needs `pretrained`: a file, or an open_clip tag such as openai"
            )

    @property
    def label(self) -> str:
        own = Path(self.model.removeprefix(FOLDER)).name
        return self.name or (f"{own}/{Path(self.pretrained).stem}" if self.pretrained else own)

    def weights(self) -> Path:
        """The file the weights are in. Raises Unavailable if it is not on this machine."""
        if not self.pretrained:
            return in_folder(located(self.model.removeprefix(FOLDER)))
        file = located(self.pretrained)
        if not file.is_file():
            return of_tag(self.model, self.pretrained)
        quick_gelu(self.model, self.pretrained, file, self.quick_gelu)
        return file

    def load(self) -> "Encoder":
        """Raises Unavailable if the weights are missing or are not what they should be."""
        return load(self)


EMOJI = Backbone(name="emoji")  # trained on other drawings of the embedded data set than the embedded models


class Encoder:
    """A loaded model: images and texts to features, float32 on the CPU, not normalised."""

    def __init__(self, network: Any, preprocess: Callable, tokenizer: Any, identity: dict, batch: int):
        self.network, self.preprocess, self.tokenizer, self.batch = network, preprocess, tokenizer, batch
        self.identity = identity  # all that the features depend on, besides the images
        self.device = next(network.parameters()).device
        self.seen: dict[str, Tensor] = {}

    def images(self, images: Tensor) -> Tensor:
        """uint8 (n, 3, H, W) -> (n, d). Remembers the last few sets by their content."""
        pixels = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy(force=True))  # (n, H, W, 3)
        key = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
        if key not in self.seen:
            self.seen = dict([*self.seen.items()][1 - KEPT :])
            self.seen[key] = self.pictures([Image.fromarray(p) for p in pixels])
        return self.seen[key]

    def pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """n pictures of any size -> (n, d)."""
        steps = range(0, len(pictures), self.batch)
        batches = (torch.stack([self.preprocess(p) for p in pictures[i : i + self.batch]]) for i in steps)
        return self.run(self.network.encode_image, batches)

    def texts(self, prompts: Sequence[str]) -> Tensor:
        """n texts -> (n, d). What exceeds the model's context is cut off, as its tokenizer does."""
        return self.run(self.network.encode_text, self.tokenizer(list(prompts)).split(self.batch))

    @torch.inference_mode()
    def run(self, encode: Callable[[Tensor], Tensor], batches: Iterable[Tensor]) -> Tensor:
        # cuDNN's TF32 is on by default, and moves the third digit
        with torch.backends.flags(fp32_precision="ieee"):
            return torch.cat([encode(x.to(self.device)).float().cpu() for x in batches])


@lru_cache(maxsize=2)
def load(backbone: Backbone) -> Encoder:
    # imported here: seconds that a run without such metrics need not pay
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    weights = backbone.weights()
    if backbone.pretrained:
        name, how = (
            backbone.model,
            as_trained(backbone.model, backbone.pretrained, weights, backbone.quick_gelu),
        )
        architecture = f"{name}, quick_gelu={how['force_quick_gelu']}"
    else:
        name, how = f"{FOLDER}{weights.parent}", {}
        architecture = digest(weights.parent / "open_clip_config.json")
    device = place(backbone.device)
    try:
        network: Any = open_clip.create_model(name, device=device, **how).eval()
        tokenizer = open_clip.get_tokenizer(name)
    except (
        Exception
    ) as e:  # files that are not what they should be fail in open_clip, safetensors, pickle or torch
        raise Unavailable(
            f"open_clip cannot load {weights} ({e})", "check, fetch or train the file again"
        ) from e
    resize: dict[str, Any] = dict(network.visual.preprocess_cfg)
    identity = {"weights": digest(weights), "architecture": architecture, "resize": sorted(resize.items())}
    preprocess: Any = image_transform_v2(PreprocessCfg(**resize), is_train=False)
    return Encoder(network, preprocess, tokenizer, identity, backbone.batch)
