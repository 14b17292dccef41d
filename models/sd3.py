"""Stable Diffusion 3 and 3.5 (arXiv:2403.03206): joint attention over image and text, absolute positions."""

from typing import Any, ClassVar

import torch
from torch import Tensor, cat

from fovea.models.attention import Processor, heads, normed, remembered
from fovea.models.block_runs import Modules
from fovea.models.components import CLIP_TOKENIZER, T5_TOKENIZER, T5_XXL, clip, vae
from fovea.models.family import Architecture, Family, Size
from fovea.models.forward import resident
from fovea.models.hidden import Context, Hidden
from fovea.models.pipeline import Pipeline
from fovea.models.text_limits import Reader
from fovea.models.tokens import Conditioning, Encodings, Grid, channels_first, pack, unpack
from fovea.models.transformer import Entered, Transformer, weights


class SD3Attention(Processor):
    """Joint attention, image before text; over the image alone in the second attention of SD3.5's blocks."""

    stands_for: ClassVar = ("JointAttnProcessor2_0",)

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
        x, e = hidden_states, encoder_hidden_states
        q, k, v = heads(x, attn.heads, attn.to_q, attn.to_k, attn.to_v)
        q, k = normed(attn.norm_q, q), normed(attn.norm_k, k)
        if e is None:
            k, v = self.outside(remembered, self, k, v, "image")
            return attn.to_out[1](attn.to_out[0](self.attend(q, k, v).flatten(2)))
        eq, ek, ev = heads(e, attn.heads, attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
        eq, ek = normed(attn.norm_added_q, eq), normed(attn.norm_added_k, ek)
        k, v = self.outside(remembered, self, cat([k, ek], 1), cat([v, ev], 1), "joint")
        out = self.attend(cat([q, eq], 1), k, v).flatten(2)  # (b, k + text, width)
        x, e = out[:, : x.shape[1]], out[:, x.shape[1] :]
        return attn.to_out[1](attn.to_out[0](x)), e if attn.context_pre_only else attn.to_add_out(e)


class SD3Transformer(Transformer):
    """SD3Transformer2DModel. Its time is 1000 sigma."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.largest = self.dit.pos_embed.pos_embed_max_size

    def condition(self, stock, guided, guidance):
        resident(self.dit)
        embeds = self.dit.context_embedder(stock["encoder_hidden_states"])
        constants = (self.dit.time_text_embed.text_embedder(stock["pooled_projections"]),)
        return Conditioning(embeds, constants, guided, guidance, stock)

    def encodings(self, grid: Grid, positions: Tensor | None = None) -> Encodings:
        """Return the model's own table, centred on the grid; its formula at fractional positions."""
        from diffusers.models.embeddings import get_1d_sincos_pos_embed_from_grid

        resident(self.dit)
        embed = self.dit.pos_embed
        side = embed.pos_embed_max_size
        table = embed.pos_embed[0]  # (side * side, d)
        whole = positions is None
        positions = grid.positions(self.device)[None] if positions is None else positions
        at = positions + positions.new_tensor([(side - size) // 2 for size in grid])
        cell = at.round().long().clamp(0, side - 1)
        tabled = table[cell[..., 0] * side + cell[..., 1]]
        if whole:
            return Encodings(grid, (tabled,), whole)
        scaled = at / (side / embed.base_size) / embed.interpolation_scale
        column, row = (
            get_1d_sincos_pos_embed_from_grid(table.shape[1] // 2, scaled[..., axis].flatten())
            for axis in (1, 0)
        )
        formula = cat([column, row], -1).to(table.dtype).view_as(tabled)
        return Encodings(grid, (torch.where((at == cell).all(-1, keepdim=True), tabled, formula),), whole)

    def stack(self):
        return [*self.dit.transformer_blocks]

    def embed(self, x: Tensor, sigma: Tensor, cond: Conditioning, tables: tuple[Tensor, ...]) -> Entered:
        dit, (table,) = self.dit, tables
        vector = self.modulation(dit.time_text_embed, (sigma * 1000).expand(len(x)), cond)
        strip = unpack(x, Grid(1, x.shape[1]), self.patch)  # a convolution, to match the stock model's bits
        x = dit.pos_embed.proj(strip).flatten(2).transpose(1, 2).contiguous()  # else blocks get a strided x
        return Hidden((x + table).to(self.dtype), cond.embeds), Context(vector, ())

    def step(self, block: Any, hidden: Hidden, context: Context) -> Hidden:
        text, x = block(hidden_states=hidden.image, encoder_hidden_states=hidden.text, temb=context.vector)
        return Hidden(x, text)

    def leave(self, hidden: Hidden, context: Context) -> Tensor:
        x = self.dit.proj_out(self.dit.norm_out(hidden.image, context.vector))
        return channels_first(x, self.patch, self.channels)

    def modulated(self, hidden: Hidden, context: Context) -> Tensor:
        return self.blocks[0].norm1(hidden.image, emb=context.vector)[0]

    def sites(self, modules: Modules):
        names = ("attn", "attn2") if modules == "attention" else ("attn", "attn2", "ff", "ff_context")
        found = (getattr(block, name) for block in self.blocks for name in names)
        return [module for module in found if module is not None], []

    def stock(self, x: Tensor, sigma: Tensor, cond: Conditioning, encodings: Encodings) -> Tensor:
        latents = unpack(x, encodings.grid, self.patch)
        timestep = (sigma * 1000).expand(len(x))
        return pack(self.dit(latents, timestep=timestep, **cond.stock, return_dict=False)[0], self.patch)

    def outer_macs(self, k: int, n: int, text: int, kept_text: bool = False) -> int:
        dit = self.dit
        return k * weights(dit.pos_embed.proj, dit.proj_out) + weights(
            dit.time_text_embed.timestep_embedder, dit.norm_out
        )

    def block_macs(self, block: Any, k: int, n: int, text: int, kept_text: bool = False) -> dict[str, int]:
        a, again = block.attn, block.attn2
        ran = 0 if kept_text else text
        pairs = (k + ran) * (n + text) + (k * n if again is not None else 0)
        attention = k * weights(a.to_q, a.to_k, a.to_v, a.to_out, again) + 2 * a.inner_dim * pairs
        attention += ran * weights(a.add_q_proj, a.add_k_proj, a.add_v_proj, a.to_add_out)
        return {
            "modulation": weights(block.norm1, block.norm1_context),
            "attention": attention,
            "mlp": k * weights(block.ff) + ran * weights(block.ff_context),
        }


class SD3Pipeline(Pipeline):
    """StableDiffusion3Pipeline. The guidance halves are (without, with) the prompt."""

    max_shift = 1.16  # the pipeline's own default

    @torch.no_grad()
    def encode(self, prompts, negative=None, guidance=None, *, max_sequence_length=None) -> Conditioning:
        guidance = self.default("guidance_scale") if guidance is None else guidance
        guided = guidance > 1
        given, without, pooled, pooled_without = self.pipe.encode_prompt(
            [*prompts],
            None,
            None,
            negative_prompt=negative,
            do_classifier_free_guidance=guided,
            max_sequence_length=256 if max_sequence_length is None else max_sequence_length,
        )
        dtype = self.transformer.dtype
        embeds = (cat([without, given]) if guided else given).to(dtype)
        pooled = (cat([pooled_without, pooled]) if guided else pooled).to(dtype)
        stock = {"encoder_hidden_states": embeds, "pooled_projections": pooled}
        return self.transformer.condition(stock, guided, guidance)

    def readers(self, max_sequence_length=None):
        pipe, limit = self.pipe, 256 if max_sequence_length is None else max_sequence_length
        clip = [
            Reader(tokenizer, pipe.tokenizer_max_length) for tokenizer in (pipe.tokenizer, pipe.tokenizer_2)
        ]
        return clip if pipe.tokenizer_3 is None else [*clip, Reader(pipe.tokenizer_3, limit)]


SD3_TRANSFORMER = {
    "sample_size": 128,
    "num_layers": 24,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
}
MEDIUM: Architecture = {
    "pipeline": ("StableDiffusion3Pipeline", {}),
    "transformer": ("SD3Transformer2DModel", SD3_TRANSFORMER),
    "vae": vae(16, 1.5305, 0.0609, False),
    "scheduler": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    "text_encoder": clip("CLIPTextModelWithProjection", 768, 12),
    "text_encoder_2": clip("CLIPTextModelWithProjection", 1280, 20),
    "text_encoder_3": T5_XXL,
    "tokenizer": CLIP_TOKENIZER,
    "tokenizer_2": CLIP_TOKENIZER,
    "tokenizer_3": T5_TOKENIZER,
}
SD35_TRANSFORMER = SD3_TRANSFORMER | {
    "pos_embed_max_size": 384,
    "qk_norm": "rms_norm",
    "dual_attention_layers": tuple(range(13)),
}
SD35_LARGE_TRANSFORMER = SD3_TRANSFORMER | {
    "num_layers": 38,
    "num_attention_heads": 38,
    "caption_projection_dim": 2432,
    "qk_norm": "rms_norm",
}
FAMILY = Family(
    name="sd3",
    pipelines=("StableDiffusion3Pipeline",),
    parts=("transformer", "vae", "scheduler", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"),
    transformer=SD3Transformer,
    pipeline=SD3Pipeline,
    processor=SD3Attention,
    sizes={
        "sd3": Size(MEDIUM, (7.7, 2.6)),
        "sd35": Size(MEDIUM | {"transformer": ("SD3Transformer2DModel", SD35_TRANSFORMER)}, (7.9, 2.8)),
        "sd35_large": Size(
            MEDIUM | {"transformer": ("SD3Transformer2DModel", SD35_LARGE_TRANSFORMER)}, (13.7, 8.6)
        ),
    },
)
