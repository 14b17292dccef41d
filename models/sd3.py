"""Stable Diffusion 3 and 3.5 (arXiv:2403.03206): joint attention over image and text, absolute positions."""

from typing import Any, ClassVar

import torch
from torch import Tensor, cat

from fovea.models.attention import Processor, apply_norm, project_heads, update_cache
from fovea.models.block_runs import Modules
from fovea.models.components import CLIP_TOKENIZER, T5_TOKENIZER, T5_XXL, clip, vae
from fovea.models.family import Architecture, Family, Size
from fovea.models.forward import ensure_on_device
from fovea.models.hidden import Context, Hidden
from fovea.models.pipeline import Pipeline
from fovea.models.text_limits import TextLimit
from fovea.models.tokens import Conditioning, Encodings, Grid, channels_first, pack, unpack
from fovea.models.transformer import BlockInputs, Transformer, macs_per_token


class SD3Attention(Processor):
    """Joint attention, image before text; over the image alone in the second attention of SD3.5's blocks."""

    replaces: ClassVar = ("JointAttnProcessor2_0",)

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
        x, e = hidden_states, encoder_hidden_states
        q, k, v = project_heads(x, attn.heads, attn.to_q, attn.to_k, attn.to_v)
        q, k = apply_norm(attn.norm_q, q), apply_norm(attn.norm_k, k)
        if e is None:
            k, v = self.call_eager(update_cache, self, k, v, "image")
            return attn.to_out[1](attn.to_out[0](self.attend(q, k, v).flatten(2)))
        eq, ek, ev = project_heads(e, attn.heads, attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
        eq, ek = apply_norm(attn.norm_added_q, eq), apply_norm(attn.norm_added_k, ek)
        k, v = self.call_eager(update_cache, self, cat([k, ek], 1), cat([v, ev], 1), "joint")
        out = self.attend(cat([q, eq], 1), k, v).flatten(2)  # (b, k + text, width)
        x, e = out[:, : x.shape[1]], out[:, x.shape[1] :]
        return attn.to_out[1](attn.to_out[0](x)), e if attn.context_pre_only else attn.to_add_out(e)


class SD3Transformer(Transformer):
    """SD3Transformer2DModel. Its time is 1000 sigma."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.max_side = self.dit.pos_embed.pos_embed_max_size

    def condition(self, forward_kwargs, guided, guidance):
        ensure_on_device(self.dit)
        embeds = self.dit.context_embedder(forward_kwargs["encoder_hidden_states"])
        constants = (self.dit.time_text_embed.text_embedder(forward_kwargs["pooled_projections"]),)
        return Conditioning(embeds, constants, guided, guidance, forward_kwargs, prompted_half=1)

    def encodings(self, grid: Grid, positions: Tensor | None = None) -> Encodings:
        """Return the model's own table, centred on the grid; its formula at fractional positions."""
        from diffusers.models.embeddings import get_1d_sincos_pos_embed_from_grid

        ensure_on_device(self.dit)
        embed = self.dit.pos_embed
        side = embed.pos_embed_max_size
        table = embed.pos_embed[0]  # (side * side, d)
        at = grid.positions(self.device)[None] if positions is None else positions
        at = at + at.new_tensor([(side - size) // 2 for size in grid])
        cell = at.round().long().clamp(0, side - 1)
        tabled = table[cell[..., 0] * side + cell[..., 1]]
        if positions is None:
            return Encodings(grid, (tabled,), None)
        scaled = at / (side / embed.base_size) / embed.interpolation_scale
        column, row = (
            get_1d_sincos_pos_embed_from_grid(table.shape[1] // 2, scaled[..., axis].flatten())
            for axis in (1, 0)
        )
        formula = cat([column, row], -1).to(table.dtype).view_as(tabled)
        tables = (torch.where((at == cell).all(-1, keepdim=True), tabled, formula),)
        return Encodings(grid, tables, positions)

    def list_blocks(self):
        return [*self.dit.transformer_blocks]

    def embed(self, x: Tensor, sigma: Tensor, cond: Conditioning, tables: tuple[Tensor, ...]) -> BlockInputs:
        dit, (table,) = self.dit, tables
        vector = self.modulation(dit.time_text_embed, (sigma * 1000).expand(len(x)), cond)
        strip = unpack(x, Grid(1, x.shape[1]), self.patch)  # a convolution, to match the stock model's bits
        x = dit.pos_embed.proj(strip).flatten(2).transpose(1, 2).contiguous()  # else blocks get a strided x
        return Hidden((x + table).to(self.dtype), cond.embeds), Context(vector, ())

    def run_block(self, block: Any, hidden: Hidden, context: Context) -> Hidden:
        text, x = block(hidden_states=hidden.image, encoder_hidden_states=hidden.text, temb=context.vector)
        return Hidden(x, text)

    def readout(self, hidden: Hidden, context: Context) -> Tensor:
        x = self.dit.proj_out(self.dit.norm_out(hidden.image, context.vector))
        return channels_first(x, self.patch, self.channels)

    def modulated(self, hidden: Hidden, context: Context) -> Tensor:
        return self.blocks[0].norm1(hidden.image, emb=context.vector)[0]

    def sites(self, modules: Modules):
        names = ("attn", "attn2") if modules == "attention" else ("attn", "attn2", "ff", "ff_context")
        found = (getattr(block, name) for block in self.blocks for name in names)
        return [module for module in found if module is not None], []

    def stock_forward(self, x: Tensor, sigma: Tensor, cond: Conditioning, encodings: Encodings) -> Tensor:
        latents = unpack(x, encodings.grid, self.patch)
        timestep = (sigma * 1000).expand(len(x))
        return pack(
            self.dit(latents, timestep=timestep, **cond.forward_kwargs, return_dict=False)[0], self.patch
        )

    def outer_macs(self, k: int, n: int, text: int, kept_text: bool = False) -> int:
        dit = self.dit
        return k * macs_per_token(dit.pos_embed.proj, dit.proj_out) + macs_per_token(
            dit.time_text_embed.timestep_embedder, dit.norm_out
        )

    def block_macs(self, block: Any, k: int, n: int, text: int, kept_text: bool = False) -> dict[str, int]:
        a, second = block.attn, block.attn2
        ran = 0 if kept_text else text
        pairs = (k + ran) * (n + text) + (k * n if second is not None else 0)
        attention = k * macs_per_token(a.to_q, a.to_k, a.to_v, a.to_out, second) + 2 * a.inner_dim * pairs
        attention += ran * macs_per_token(a.add_q_proj, a.add_k_proj, a.add_v_proj, a.to_add_out)
        return {
            "modulation": macs_per_token(block.norm1, block.norm1_context),
            "attention": attention,
            "mlp": k * macs_per_token(block.ff) + ran * macs_per_token(block.ff_context),
        }


class SD3Pipeline(Pipeline):
    """StableDiffusion3Pipeline. The guidance halves are (without, with) the prompt."""

    max_shift = 1.16  # the pipeline's own default

    @torch.no_grad()
    def encode(self, prompts, negative=None, guidance=None, *, max_sequence_length=None) -> Conditioning:
        guidance = self.default("guidance_scale") if guidance is None else guidance
        guided = self.guided(guidance)
        prompt_embeds, negative_embeds, pooled, negative_pooled = self.pipe.encode_prompt(
            [*prompts],
            None,
            None,
            negative_prompt=negative,
            do_classifier_free_guidance=guided,
            max_sequence_length=self.limit(max_sequence_length),
        )
        dtype = self.transformer.dtype
        embeds = (cat([negative_embeds, prompt_embeds]) if guided else prompt_embeds).to(dtype)
        pooled = (cat([negative_pooled, pooled]) if guided else pooled).to(dtype)
        forward_kwargs = {"encoder_hidden_states": embeds, "pooled_projections": pooled}
        return self.transformer.condition(forward_kwargs, guided, guidance)

    def text_limits(self, max_sequence_length=None):
        pipe, limit = self.pipe, self.limit(max_sequence_length)
        clip = [
            TextLimit(tokenizer, pipe.tokenizer_max_length)
            for tokenizer in (pipe.tokenizer, pipe.tokenizer_2)
        ]
        return clip if pipe.tokenizer_3 is None else [*clip, TextLimit(pipe.tokenizer_3, limit)]


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
    components=(
        "transformer",
        "vae",
        "scheduler",
        "text_encoder",
        "tokenizer",
        "text_encoder_2",
        "tokenizer_2",
    ),
    transformer=SD3Transformer,
    pipeline=SD3Pipeline,
    processor=SD3Attention,
    sizes={
        "sd3": Size(MEDIUM, (7.7, 2.6), 2028),
        "sd35": Size(MEDIUM | {"transformer": ("SD3Transformer2DModel", SD35_TRANSFORMER)}, (7.9, 2.8), 2243),
        "sd35_large": Size(
            MEDIUM | {"transformer": ("SD3Transformer2DModel", SD35_LARGE_TRANSFORMER)}, (13.7, 8.6), 8057
        ),
    },
)
