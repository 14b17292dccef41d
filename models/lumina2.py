"""Lumina-Image 2.0 (arXiv:2503.21758): one stream of text and image after separate refiners."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, cat
from torch.nn import functional as F

from fovea.models.attention import (
    Processor,
    apply_complex_rotary,
    apply_norm,
    rotary_angles,
    update_cache,
)
from fovea.models.block_runs import Modules
from fovea.models.components import GEMMA2_2B, vae
from fovea.models.family import Architecture, Family, Size
from fovea.models.forward import ensure_on_device
from fovea.models.hidden import Context, Hidden
from fovea.models.kv import flat_rows
from fovea.models.pipeline import Pipeline
from fovea.models.settings import check_guided_to_the_end
from fovea.models.text_limits import TextLimit
from fovea.models.tokens import (
    Conditioning,
    Encodings,
    Grid,
    channels_first,
    channels_last,
    conditioning_in_passes,
    gather_tokens,
    pack,
    unpack,
)
from fovea.models.transformer import BlockInputs, Transformer, macs_per_token

GUIDANCE = 1_000_000  # key of the velocities in `KV`, beyond every attention layer


@dataclass(eq=False)
class Lumina2Attention(Processor):
    """Grouped-query attention over the stream, or over the image or text alone in their refiners.

    The rotations come alone or, in a batch of texts of several lengths, with the order of keys and values in
    which the padding is last, as in the stock stream.
    """

    replaces: ClassVar = ("Lumina2AttnProcessor2_0",)
    masked: ClassVar = True

    image_only: bool = False

    def __call__(
        self,
        attn,
        hidden_states,
        encoder_hidden_states,
        attention_mask=None,
        image_rotary_emb: Any = None,
        base_sequence_length=None,
    ):
        rope, order = (image_rotary_emb, None) if isinstance(image_rotary_emb, Tensor) else image_rotary_emb
        q = attn.to_q(hidden_states).unflatten(-1, (attn.heads, -1))
        k, v = (to(hidden_states).unflatten(-1, (-1, q.shape[-1])) for to in (attn.to_k, attn.to_v))
        q, k = (
            apply_complex_rotary(apply_norm(norm, t), rope)
            for norm, t in ((attn.norm_q, q), (attn.norm_k, k))
        )
        k, v = self.call_eager(update_cache, self, k, v, "image" if self.image_only else "joint")
        if order is not None:
            k, v = gather_tokens(k, order), gather_tokens(v, order)
        k, v = (t.repeat_interleave(attn.heads // t.shape[2], 2) for t in (k, v))
        mask = None if attention_mask is None else attention_mask[:, None, None].bool()
        out = self.attend(q, k, v, attn_mask=mask, scale=attn.scale).flatten(2)
        return attn.to_out[1](attn.to_out[0](out))


class Lumina2Transformer(Transformer):
    """Lumina2Transformer2DModel. Its time is 1 - sigma, so the output is negated.

    The guidance halves are two passes, (with, without) the prompt. The text is constant over a trajectory
    until the blocks, so its refiner runs once; the noise refiner runs with the embedding, before the first
    block.
    """

    text_first: ClassVar = True

    def __init__(self, pipe: Any, *args: Any) -> None:
        super().__init__(pipe, *args)
        self.max_side = min(self.dit.config.axes_lens[1:])
        for block in self.dit.noise_refiner:
            block.attn.processor.image_only = True

    def condition(self, forward_kwargs, guided, guidance):
        ensure_on_device(self.dit)
        embeds, mask = forward_kwargs["encoder_hidden_states"], forward_kwargs["encoder_attention_mask"]
        lengths = mask.sum(1, keepdim=True).cpu()
        longest = int(lengths.max())
        embeds = self.dit.time_caption_embed.caption_embedder(embeds)
        first = self.rotations(0, torch.arange(embeds.shape[1]))
        still = first.new_ones(len(first), sum(self.dit.config.axes_dim_rope[1:]) // 2)
        text = cat([first, still], 1)[None]
        for block in self.dit.context_refiner:
            embeds = block(embeds, mask, (text, None))
        valid = mask[:, :longest].bool()
        embeds = torch.where(valid[..., None], embeds[:, :longest], 0)
        alike = int(lengths.min()) == longest
        tables = self.rotations(0, lengths), text[:, :longest]
        return Conditioning(
            embeds, (), guided, guidance, forward_kwargs, None if alike else valid, tables=tables
        )

    def rotations(self, axis: int, at: Tensor) -> Tensor:
        """Return complex rotations (..., d / 2) of one axis in double precision."""
        rope = self.dit.rope_embedder
        angles = rotary_angles(at, rope.axes_dim[axis], rope.theta)
        return torch.polar(torch.ones_like(angles), angles).to(self.device)

    def encodings(self, grid: Grid, positions: Tensor | None = None) -> Encodings:
        """Return rotations by row and column. The first position axis of the image is its text's length."""
        at = grid.positions()[None] if positions is None else positions
        table = cat([self.rotations(axis, at[..., axis - 1]) for axis in (1, 2)], -1)
        return Encodings(grid, (table,), positions)

    def time(self, sigma: Tensor, b: int) -> Tensor:
        return (1 - sigma * 1000 / 1000).expand(b)

    def list_blocks(self):
        return [*self.dit.layers]

    @torch.no_grad()
    def prepare(self, x, sigma, cond, encodings, rows=None, keep_text=False) -> BlockInputs:
        """Append the order of all keys and which are valid, if texts are padded."""
        if cond.mask is not None:
            valid = F.pad(cond.mask, (0, x.shape[1]), value=True)
            order = valid.int().argsort(dim=1, descending=True, stable=True)
            cond = replace(cond, tables=(*cond.tables, order, valid.gather(1, order)))
        return super().prepare(x, sigma, cond, encodings, rows, keep_text)

    def without_text(self, cond: Conditioning) -> Conditioning:
        first, text, *order = cond.tables
        return replace(super().without_text(cond), tables=(first, text[:, :0], *order))

    def embed(self, x: Tensor, sigma: Tensor, cond: Conditioning, tables: tuple[Tensor, ...]) -> BlockInputs:
        (table,), (first, text, *order), (b, k, _) = tables, cond.tables, x.shape
        vector = self.modulation(self.dit.time_caption_embed, self.time(sigma, b), cond)
        image = cat([first.expand(b, k, -1), table.expand(b, -1, -1)], -1)
        x = self.dit.x_embedder(channels_last(x, self.patch))
        for block in self.dit.noise_refiner:
            x = block(x, None, (image, None), vector)
        rope = cat([text.expand(b, -1, -1), image], 1)
        return Hidden(x, cond.embeds), Context(vector, (rope, *order), mask=cond.mask)

    def run_block(self, block: Any, hidden: Hidden, context: Context) -> Hidden:
        rope, *order = context.tables
        order, valid = order or (None, None)
        x = block(self.stream(hidden), valid, (rope, order), context.vector)
        text = x.shape[1] - hidden.image.shape[1]
        return Hidden(x[:, text:], x[:, :text])

    def stream(self, hidden: Hidden) -> Tensor:
        return hidden.image if hidden.text is None else cat([hidden.text, hidden.image], 1)

    def readout(self, hidden: Hidden, context: Context) -> Tensor:
        x = self.dit.norm_out(self.stream(hidden), context.vector)[:, -hidden.image.shape[1] :]
        return -channels_first(x, self.patch, self.channels)

    def compared(self, hidden: Hidden, context: Context) -> Tensor:
        """Return the whole stream, which is the state that cache-dit's and diffusers' caches compare."""
        if context.mask is None or hidden.text is None:
            return self.stream(hidden)
        return self.stream(replace(hidden, text=hidden.text * context.mask[..., None]))

    def modulated(self, hidden: Hidden, context: Context) -> Tensor:
        return self.blocks[0].norm1(hidden.image, context.vector)[0]

    def sites(self, modules: Modules):
        names = ("attn",) if modules == "attention" else ("attn", "feed_forward")
        return [getattr(block, name) for block in self.blocks for name in names], []

    def stock_forward(self, x: Tensor, sigma: Tensor, cond: Conditioning, encodings: Encodings) -> Tensor:
        latents, time = unpack(x, encodings.grid, self.patch), self.time(sigma, len(x))
        return -pack(self.dit(latents, time, **cond.forward_kwargs, return_dict=False)[0], self.patch)

    def guide(self, v, cond, encodings, kv=None, rows=None):
        """Classifier-free guidance; each row of latent pixels is rescaled to the prompted velocity's norm.

        Tokens that a sparse call leaves out count as `kv` last saw them; without one, they do not count.
        """
        if not cond.guided:
            return v
        v_cond, v_uncond = cond.split(v)
        guided = v_uncond + cond.guidance * (v_cond - v_uncond)
        if not cond.normalised:
            return guided
        if kv is not None and kv.size is not None:
            slots = None if rows is None else flat_rows(rows, kv.size[1])
            v_cond, all_guided = kv.update(0, GUIDANCE, v_cond[:, :, None], guided[:, :, None], slots)
            ratio = self.norm_ratio(v_cond.squeeze(2), all_guided.squeeze(2), encodings)
        else:
            ratio = self.norm_ratio(v_cond, guided, encodings)
        return guided * (ratio if rows is None else gather_tokens(ratio, rows))

    def norm_ratio(self, v_cond: Tensor, guided: Tensor, encodings: Encodings) -> Tensor:
        """Return |v_cond| / |guided| (b, n, c) over the row of latent pixels that each pixel lies in.

        Tokens at given positions share the rows of the cell that they lie in. Their sums are in double
        precision, so that they do not depend on the order of the tokens.
        """
        grid, p = encodings.grid, self.patch
        if encodings.positions is None:
            norms = (unpack(t, grid, p).norm(dim=-1, keepdim=True) for t in (v_cond, guided))
            return pack(torch.div(*norms).expand(-1, -1, -1, p * grid.columns), p)
        squares = torch.stack([v_cond, guided]).double().unflatten(-1, (-1, p, p)).square().sum(-1)
        cell = encodings.positions[..., 0].floor().long().clamp(0, grid.rows - 1).to(v_cond.device)
        index = cell[..., None, None].expand_as(squares)  # (2, b, n, channels, p)
        sums = torch.zeros_like(squares[:, :, :1]).repeat(1, 1, grid.rows, 1, 1)
        norms = sums.scatter_add(2, index, squares).gather(2, index).sqrt()
        return torch.div(*norms).to(v_cond.dtype).repeat_interleave(p, -1).flatten(2)

    def outer_macs(self, k: int, n: int, text: int, kept_text: bool = False) -> int:
        dit, stream = self.dit, k + (0 if kept_text else text)
        outer = k * macs_per_token(dit.x_embedder) + stream * macs_per_token(dit.norm_out.linear_2)
        outer += macs_per_token(dit.time_caption_embed.timestep_embedder, dit.norm_out.linear_1)
        return outer + sum(sum(self.block_macs(block, k, n, 0).values()) for block in dit.noise_refiner)

    def block_macs(self, block: Any, k: int, n: int, text: int, kept_text: bool = False) -> dict[str, int]:
        stream = k + (0 if kept_text else text)
        return {
            "modulation": macs_per_token(block.norm1),
            "attention": stream * (macs_per_token(block.attn) + 2 * block.attn.inner_dim * (n + text)),
            "mlp": stream * macs_per_token(block.feed_forward),
        }


class Lumina2Pipeline(Pipeline):
    """diffusers' Lumina2Pipeline, whose `system_prompt` precedes every prompt but the negative.

    cfg_normalization: rescale the guided velocity to the norm of the prompted one.
    cfg_trunc_ratio: only 1, the pipeline's own default.
    """

    encode_options = ("max_sequence_length", "cfg_normalization", "cfg_trunc_ratio")
    max_text_tokens = 299  # positions of the public checkpoint, less one for the image

    @torch.no_grad()
    def encode(
        self,
        prompts,
        negative=None,
        guidance=None,
        *,
        max_sequence_length=None,
        cfg_normalization=None,
        cfg_trunc_ratio=None,
    ) -> Conditioning:
        check_guided_to_the_end("cfg_trunc_ratio", cfg_trunc_ratio)
        guidance = self.default("guidance_scale") if guidance is None else guidance
        guided = self.guided(guidance)
        encoded = self.pipe.encode_prompt(
            [*prompts],
            guided,
            negative_prompt=negative,
            max_sequence_length=self.limit(max_sequence_length),
        )
        cond, *uncond = (
            self.transformer.condition(
                {"encoder_hidden_states": embeds, "encoder_attention_mask": mask}, False, guidance
            )
            for embeds, mask in zip(encoded[::2], encoded[1::2], strict=True)
            if embeds is not None
        )
        if not uncond:
            return cond
        passes = conditioning_in_passes(cond, uncond[0], guidance)
        return replace(passes, normalised=cfg_normalization is not False)

    def text_limits(self, max_sequence_length=None):
        start = f"{self.pipe.system_prompt} <Prompt Start> "
        return [TextLimit(self.pipe.tokenizer, self.limit(max_sequence_length), start.__add__)]

    def schedule(self, steps: int, grid: Grid) -> dict:
        """A dynamic shift does not depend on the grid: as in the pipeline, channels count as tokens."""
        channels = Grid(1, self.transformer.channels)
        return super().schedule(steps, channels) | {"sigmas": np.linspace(1.0, 1 / steps, steps)}


# words of the system prompt that the tokenizer built here takes for one token each
SYSTEM = (
    " are an assistant designed to generate superior images with the degree of image-text alignment based on "
    "textual prompts or user prompts. <Prompt Start>"
)
IMAGE: Architecture = {
    "pipeline": ("Lumina2Pipeline", {}),
    "transformer": ("Lumina2Transformer2DModel", {"cap_feat_dim": 2304}),  # else the class's defaults
    "vae": vae(16, 0.3611, 0.1159, False),
    "scheduler": ("FlowMatchEulerDiscreteScheduler", {"shift": 6.0}),
    "text_encoder": GEMMA2_2B,
    "tokenizer": ("GemmaTokenizer", {"words": SYSTEM.replace(" ", "| ").split("|")[1:]}),
}
FAMILY = Family(
    name="lumina2",
    pipelines=("Lumina2Pipeline", "Lumina2Text2ImgPipeline"),
    components=("transformer", "vae", "scheduler", "text_encoder", "tokenizer"),
    transformer=Lumina2Transformer,
    pipeline=Lumina2Pipeline,
    processor=Lumina2Attention,
    sizes={"lumina2": Size(IMAGE, (5.3, 2.9), 2610)},
)
