"""How alike the dense image and another are to a network: the cosine of their DINO or CLIP features."""

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn.functional import cosine_similarity

from fovea.eval import Unavailable
from fovea.eval.backbone import EMOJI, Backbone, Encoder
from fovea.eval.facts import Facts
from fovea.eval.hub import WEIGHTS, digests, folder
from fovea.eval.judged import Compared
from fovea.eval.network import Device, place
from fovea.eval.transformers_clip import TransformersCLIP


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DINO:
    """A vision transformer in transformers' layout whose first token is the feature.

    model: a folder, or `owner/name` in the hub's cache: facebook/dinov2-base, or facebook/dino-vits16, which
    DreamBooth (arXiv:2208.12242) compares images by. name: the last part of `model` unless given. Images are
    resized with PIL as the folder's preprocessing says. batch: images per call.
    """

    model: str = "facebook/dinov2-base"
    name: str | None = None
    device: Device = "auto"
    batch: Annotated[int, Field(ge=1)] = 16

    @property
    def label(self) -> str:
        return self.name or Path(self.model).name

    def weights(self) -> Path:
        """The folder the weights are in. Raises Unavailable if it is not on this machine."""
        folder(self.model, ("preprocessor_config.json",), "backbone.model")
        return folder(self.model, WEIGHTS, "backbone.model")

    def load(self) -> Encoder:
        """Raises Unavailable if the weights are missing or are not what they should be."""
        return load(self)


class FirstToken(torch.nn.Module):
    def __init__(self, network: Any):
        super().__init__()
        self.network = network

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) -> (b, d)"""
        return self.network(pixel_values=pixels).last_hidden_state[:, 0]


@lru_cache(maxsize=1)
def load(backbone: DINO) -> Encoder:
    from transformers import AutoImageProcessor, AutoModel

    weights = backbone.weights()
    try:
        network: Any = AutoModel.from_pretrained(weights, local_files_only=True, dtype=torch.float32)
        picture: Any = AutoImageProcessor.from_pretrained(weights, local_files_only=True, backend="pil")
    except Exception as e:  # files that are not what they should be fail in json, safetensors or torch
        raise Unavailable(
            f"transformers cannot load {weights} ({e})", "check or fetch the files again"
        ) from e

    def preprocess(image: Any) -> Tensor:
        return picture(images=image, return_tensors="pt").pixel_values[0]

    resize = sorted((k, str(v)) for k, v in picture.to_dict().items())
    identity = {
        "weights": digests(weights),
        "architecture": network.config.to_json_string(),
        "resize": resize,
    }
    eyes = FirstToken(network).eval().to(place(backbone.device))
    return Encoder(eyes, preprocess, None, identity, backbone.batch)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Similarity(Compared):
    """The cosine, at most 1, of the features of each image and its dense one, mean over images.

    Named after its backbone: `similarity[dinov2-base]`, `similarity[ViT-B-32/openai]`. Identical images give
    1; features share a common part, so that unrelated images are far from 0.
    """

    backbone: Backbone | TransformersCLIP | DINO = EMOJI

    facts: ClassVar[Facts] = Facts("cosine of features", "higher", "likeness", reference=1, low=-1, high=1)

    @property
    def name(self) -> str:
        return f"similarity[{self.backbone.label}]"

    def check(self) -> None:
        self.backbone.weights()

    def compare(self, images: Tensor, dense: Tensor) -> tuple[float, ...]:
        encoder = self.backbone.load()
        a, b = (encoder.images(x).double() for x in (images, dense))  # (n, d) each
        return tuple(cosine_similarity(a, b).tolist())
