"""ImageReward's network, loaded from its public file into transformers' BLIP modules.

A vision transformer encodes the image, a BERT with cross-attention reads the prompt, and five linear layers
without activations map its first token to a number. The published package does not import with current
transformers; its weights map one to one onto these modules, and all sizes except the head size are inferred
from them.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fovea.eval import Unavailable

HEAD = 64  # channels per attention head in all published BLIP models
MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of raw rewards; published with the weights
RENAMED = {  # names in ImageReward.pt -> names here; others are unchanged
    r"^blip\.visual_encoder\.cls_token$": "vision.embeddings.class_embedding",
    r"^blip\.visual_encoder\.pos_embed$": "vision.embeddings.position_embedding",
    r"^blip\.visual_encoder\.patch_embed\.proj\.": "vision.embeddings.patch_embedding.",
    r"^blip\.visual_encoder\.norm\.": "vision.post_layernorm.",
    r"^blip\.visual_encoder\.blocks\.(\d+)\.norm(\d)\.": r"vision.encoder.layers.\1.layer_norm\2.",
    r"^blip\.visual_encoder\.blocks\.(\d+)\.attn\.qkv\.": r"vision.encoder.layers.\1.self_attn.qkv.",
    r"^blip\.visual_encoder\.blocks\.(\d+)\.attn\.proj\.": r"vision.encoder.layers.\1.self_attn.projection.",
    r"^blip\.visual_encoder\.blocks\.(\d+)\.mlp\.": r"vision.encoder.layers.\1.mlp.",
    r"^blip\.text_encoder\.": "text.",
    r"^mlp\.layers\.": "head.",
}
UNUSED = re.compile(r"^blip\.((vision|text)_proj\.|text_encoder\.embeddings\.position_ids$)")


def renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, tensor in weights.items():
        if not UNUSED.search(name):
            pattern = next((p for p in RENAMED if re.search(p, name)), "$^")
            found[re.sub(pattern, RENAMED.get(pattern, ""), name)] = tensor
    return found


def depth(weights: Mapping[str, Tensor], prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in weights if name.startswith(prefix)})


def vision(weights: Mapping[str, Tensor]) -> Any:
    from transformers import BlipVisionConfig, BlipVisionModel

    width, _, patch, _ = weights["vision.embeddings.patch_embedding.weight"].shape
    patches = weights["vision.embeddings.position_embedding"].shape[1] - 1
    return BlipVisionModel(
        BlipVisionConfig(
            hidden_size=width,
            intermediate_size=len(weights["vision.encoder.layers.0.mlp.fc1.bias"]),
            num_hidden_layers=depth(weights, "vision.encoder.layers."),
            num_attention_heads=width // HEAD,
            image_size=patch * round(patches**0.5),
            patch_size=patch,
            layer_norm_eps=1e-6,  # transformers' own default is 1e-5
        )
    )


def text(weights: Mapping[str, Tensor], encoder_width: int) -> Any:
    from transformers import BlipTextConfig
    from transformers.models.blip.modeling_blip_text import BlipTextModel

    words, width = weights["text.embeddings.word_embeddings.weight"].shape
    config = BlipTextConfig(
        vocab_size=words,
        hidden_size=width,
        encoder_hidden_size=encoder_width,
        intermediate_size=len(weights["text.encoder.layer.0.intermediate.dense.bias"]),
        num_hidden_layers=depth(weights, "text.encoder.layer."),
        num_attention_heads=width // HEAD,
        max_position_embeddings=len(weights["text.embeddings.position_embeddings.weight"]),
        layer_norm_eps=1e-12,
        is_decoder=True,  # creates the cross-attention; calls pass is_decoder=False
    )
    return BlipTextModel(config, add_pooling_layer=False)


class RewardNetwork(nn.Module):
    """The network, from the contents of ImageReward.pt. Raises Unavailable for any other weights."""

    def __init__(self, weights: Mapping[str, Tensor]):
        super().__init__()
        weights = renamed(weights)
        try:
            self.vision = vision(weights)
            self.text = text(weights, self.vision.config.hidden_size)
            sizes = [weights[f"head.{i}.weight"].shape for i in (0, 2, 4, 6, 7)]
            linear = [nn.Linear(width, out) for out, width in sizes]
            # Identity in place of dropout, so that layer indices match
            a, b, c, d, e = linear
            self.head = nn.Sequential(a, nn.Identity(), b, nn.Identity(), c, nn.Identity(), d, e)
            self.load_state_dict(weights)
        except (KeyError, RuntimeError, ValueError, AttributeError) as e:
            raise Unavailable(
                f"these are not ImageReward's weights ({e})", "fetch ImageReward.pt again"
            ) from e
        self.eval()

    @property
    def side(self) -> int:
        """Side of the input images in pixels."""
        return self.vision.config.image_size

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Map (b, 3, side, side), (b, tokens) and (b, tokens) to rewards (b,)."""
        seen = self.vision(pixel_values=pixels).last_hidden_state  # (b, patches + 1, width)
        everywhere = torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device)
        read = self.text(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=seen,
            encoder_attention_mask=everywhere,
            is_decoder=False,
        )
        return (self.head(read.last_hidden_state[:, 0])[:, 0] - MEAN) / STD
