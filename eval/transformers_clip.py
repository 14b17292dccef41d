"""A CLIP model in transformers' layout as backbone, as an alternative to open_clip's."""

from functools import cache, lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from fovea.eval.caches import remembered, unchanged
from fovea.eval.encoder import Parts, TextEncoder, two_towers
from fovea.eval.hub import WEIGHTS, digests, files, folder, prepared, read, settings
from fovea.eval.network import Device, place


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TransformersCLIP:
    """Which CLIP model to use, and its name in scores.

    model: a folder, or `owner/name` on the hub, such as openai/clip-vit-base-patch32.
    processor: source of tokenizer and preprocessing, if not with the weights.
    name: `transformers/` and the last part of `model` by default.
    batch: images or texts per call.

    Images are resized with PIL, as in the CLIP release and open_clip; transformers' default, on tensors,
    changes features by about a thousandth. A prompt that is too long is truncated but keeps its end token,
    whose feature is used, as in open_clip; torchmetrics truncates the end token too, and uses the first
    token's feature.
    """

    model: str
    processor: str | None = None
    name: str | None = None
    device: Device = "auto"
    batch: Annotated[int, Field(ge=1)] = 32

    @property
    def label(self) -> str:
        return self.name or f"transformers/{Path(self.model).name}"

    def weights(self) -> Path:
        """Return the weights' folder. Raises Unavailable if it or its tokenizer is not on this machine."""
        folder(self.processor or self.model, ("tokenizer.json", "vocab.json"), "backbone.processor")
        return folder(self.model, WEIGHTS, "backbone.model")

    def load(self) -> TextEncoder:
        """Load the encoder. Raises Unavailable if the weights are missing or invalid."""
        return load(self)


class Towers(torch.nn.Module):
    """transformers' CLIP with open_clip's names for the two towers; features are not normalised."""

    def __init__(self, clip: Any):
        super().__init__()
        self.clip = clip

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) -> (b, d)"""
        return self.clip.visual_projection(self.clip.vision_model(pixel_values=pixels).pooler_output)

    def encode_text(self, ids: Tensor) -> Tensor:
        """(b, tokens) -> (b, d). Needs no mask: attention is causal, and padding follows the end token."""
        return self.clip.text_projection(self.clip.text_model(input_ids=ids).pooler_output)


@lru_cache(maxsize=1)
def load(backbone: TransformersCLIP) -> TextEncoder:
    weights, device = backbone.weights(), place(backbone.device)
    words = folder(
        backbone.processor or backbone.model, ("tokenizer.json", "vocab.json"), "backbone.processor"
    )
    opened = cache(partial(parts, weights, words, device))

    def identity() -> dict[str, Any]:
        return {
            "weights": digests(weights),
            "architecture": opened().towers.clip.config.to_json_string(),
            "resize": settings(processor(words)),
        }

    of = [repr(backbone), version("transformers"), unchanged(files(weights)), unchanged(files(words))]
    return TextEncoder(opened, remembered(of, identity), device, backbone.batch, __name__)


def parts(weights: Path, words: Path, device: str) -> Parts:
    from transformers import CLIPModel, CLIPTokenizer

    clip = read(CLIPModel, weights, dtype=torch.float32)
    tokenizer, picture = read(CLIPTokenizer, words), processor(words)

    def tokens(prompts: list[str]) -> Tensor:
        context = clip.config.text_config.max_position_embeddings
        how: Any = {"padding": "max_length", "truncation": True, "max_length": context}
        return tokenizer(prompts, return_tensors="pt", **how).input_ids

    return two_towers(Towers(clip).eval().to(device), partial(prepared, picture), tokens)


def processor(words: Path) -> Any:
    from transformers import CLIPImageProcessorPil

    return read(CLIPImageProcessorPil, words)
