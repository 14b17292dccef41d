"""Velocities of a pipeline's transformer, called as the pipeline calls it, with captions tokenized in
advance.

With tokenized captions (`reading`), a call never synchronises with the GPU, so it can be part of a CUDA
graph.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina
from transformers import BatchEncoding

from scripts import words

Velocity = Callable[[torch.Tensor, torch.Tensor, list[str]], torch.Tensor]


class Read:
    """A tokenizer that tokenizes all captions once; whatever the prompts, a call returns the ids of `rows`.

    The ids are on the device, padded to the longest caption. The last row is the empty prompt.
    """

    def __init__(self, tokenizer: Any, captions: list[str], where: torch.device):
        self.tokenizer, self.captions, self.where = tokenizer, [*captions, ""], where
        self.tables: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self.rows = torch.tensor([len(captions)], device=where)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def __call__(self, prompts: list[str], **how: Any) -> BatchEncoding:
        if how["padding"] == "longest":  # the pipeline checks for truncation; there is none
            return BatchEncoding({"input_ids": torch.empty(len(prompts), 0, device=self.where)})
        known = repr(sorted(how.items()))
        if known not in self.tables:
            found = self.tokenizer(self.captions, **how)
            self.tables[known] = found.input_ids.to(self.where), found.attention_mask.to(self.where)
        ids, mask = self.tables[known]
        return BatchEncoding({"input_ids": ids[self.rows], "attention_mask": mask[self.rows]})


def reading(pipe: Any, captions: list[str]) -> tuple[Any, list[Read]]:
    """Return a copy of the pipeline that shares its modules but has `Read` tokenizers, and these."""
    other = copy.copy(pipe)
    names = [name for name in pipe.components if name.startswith("tokenizer")]
    for name in names:
        setattr(other, name, Read(getattr(pipe, name), captions, pipe.transformer.device))
    return other, [getattr(other, name) for name in names]


def velocity(pipe: Any, family: str) -> Velocity:
    """Return v(x (b, c, h, w), sigma (b,), prompts), which calls the transformer as the pipeline does."""
    return {"lumina": _lumina, "sd3": _sd3, "flux": _flux}[family](pipe)


def _lumina(pipe) -> Velocity:
    def rope(h: int, w: int) -> torch.Tensor:
        scale = math.sqrt(h * w * 16) / pipe.default_image_size
        return get_2d_rotary_pos_embed_lumina(pipe.transformer.head_dim, 384, 384, linear_factor=scale)

    where = pipe.transformer.device
    ropes = {side: rope(side, side)[: side // 2, : side // 2].to(where) for side in (16, 32, 64)}
    base = {"base_sequence_length": (pipe.default_image_size // 16) ** 2}

    def v(x, sigma, prompts):
        text, mask, _, _ = pipe.encode_prompt(prompts, do_classifier_free_guidance=False)
        out = pipe.transformer(x, 1 - sigma, text, mask, ropes[x.shape[-1]], base, return_dict=False)[0]
        return -out.chunk(2, dim=1)[0]

    return v


def _sd3(pipe) -> Velocity:
    def v(x, sigma, prompts):
        text, _, pooled, _ = pipe.encode_prompt(
            prompts, None, None, do_classifier_free_guidance=False, max_sequence_length=words.LENGTH
        )
        return pipe.transformer(x, text, pooled, 1000 * sigma, return_dict=False)[0]

    return v


def _flux(pipe) -> Velocity:
    where = pipe.transformer.device
    places = {n: pipe._prepare_latent_image_ids(1, n, n, where, torch.float32) for n in (8, 16, 32)}
    none = torch.zeros(words.LENGTH, 3, device=where)

    def v(x, sigma, prompts):
        b, c, h, w = x.shape
        # as encode_prompt, which would also copy the text's position ids to the device every time
        pooled = pipe._get_clip_prompt_embeds(prompts)
        text = pipe._get_t5_prompt_embeds(prompts, max_sequence_length=words.LENGTH)
        tokens = pipe._pack_latents(x, b, c, h, w)
        out = pipe.transformer(tokens, text, pooled, sigma, places[h // 2], none, return_dict=False)[0]
        return pipe._unpack_latents(out, 4 * h, 4 * w, pipe.vae_scale_factor)

    return v
