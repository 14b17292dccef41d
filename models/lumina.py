"""Lumina-Next (arXiv:2406.18583): rotary positions over the image, gated cross-attention to the text."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, cat

from fovea.models.attention import Processor, apply_complex_rotary, apply_norm, keys_values, update_cache
from fovea.models.block_runs import Modules
from fovea.models.components import GEMMA_2B, vae
from fovea.models.family import Architecture, Family, Size
from fovea.models.forward import ensure_on_device
from fovea.models.hidden import Context, Hidden
from fovea.models.pipeline import Pipeline
from fovea.models.text_limits import TextLimit
from fovea.models.tokens import Conditioning, Encodings, Grid, channels_first, pack, unpack
from fovea.models.transformer import BlockInputs, Transformer, macs_per_token


class LuminaAttention(Processor):
    """Self-attention over the image with rotary keys, or cross-attention to the text, whose keys have none.

    The stock self-attention mask is all ones and omitted: same result, faster. Under the text's mask, shared
    keys are repeated for each query head: with grouped queries and a mask, the only fused GPU kernel is
    cuDNN's.
    """

    replaces: ClassVar = ("LuminaAttnProcessor2_0",)
    masked: ClassVar = True
    grouped: ClassVar = True

    def __call__(
        self,
        attn,
        hidden_states,
        encoder_hidden_states,
        attention_mask: Any = None,
        query_rotary_emb: Any = None,
        key_rotary_emb: Any = None,
        base_sequence_length: int | None = None,
    ):
        q = apply_norm(attn.norm_q, attn.to_q(hidden_states)).unflatten(-1, (attn.heads, -1))
        q = apply_complex_rotary(q, query_rotary_emb)
        if key_rotary_emb is None:
            k, v = self.call_eager(prompt, self) or keys_values(attn, encoder_hidden_states)
            k, v = (t.repeat_interleave(attn.heads // t.shape[2], 2) for t in (k, v))
            return self.attend(q, k, v, attn_mask=attention_mask[:, None, None].bool())
        k, v = keys_values(attn, encoder_hidden_states)
        k = apply_complex_rotary(k, key_rotary_emb)
        k, v = self.call_eager(update_cache, self, k, v, "image")
        scale = attn.scale
        if base_sequence_length is not None:  # proportional attention: sharper softmax with more keys
            scale = math.sqrt(math.log(k.shape[1], base_sequence_length)) * scale
        return self.attend(q, k, v, scale=scale, enable_gqa=True)


def prompt(processor: Processor) -> tuple[Tensor, Tensor] | None:
    """Return the keys and values of the prompt, if the call has them."""
    return processor.call.text.get(processor.layer)


class LuminaTransformer(Transformer):
    """LuminaNextDiT2DModel. Its time is 1 - sigma, so the output is negated.

    Half of the output channels, the learned sigma, is dropped.

    watershed, proportional: `scaling_watershed` and `proportional_attn` of the pipeline, at its defaults.
        With a watershed below 1 the rotations change during sampling, and earlier cached keys are stale.
    training_size: side of the training images in pixels.
    """

    placeholder_shape = (1, 1, 1, 1)
    watershed = 1.0
    proportional = True

    def __init__(self, pipe: Any, *args: Any) -> None:
        super().__init__(pipe, *args)
        self.training_size = pipe.default_image_size
        self.options = {"base_sequence_length": (self.training_size // 16) ** 2} if self.proportional else {}

    def condition(self, forward_kwargs, guided, guidance):
        ensure_on_device(self.dit)
        embeds, mask = forward_kwargs["encoder_hidden_states"], forward_kwargs["encoder_mask"]
        valid = mask.float().unsqueeze(-1)
        pooled = ((embeds * valid).sum(1) / valid.sum(1)).to(embeds)
        constants = (self.dit.time_caption_embed.caption_embedder(pooled),)
        cross = {block.attn2: block.norm1_context(embeds) for block in self.blocks}
        keys = {attn.processor.layer: keys_values(attn, text) for attn, text in cross.items()}
        return Conditioning(embeds, constants, guided, guidance, forward_kwargs, mask.bool(), keys)

    def rotary(self, positions: Tensor, linear: float, ntk: float) -> Tensor:
        """Return complex rotations (b, n, d / 2), computed on the CPU as in the pipeline."""
        from diffusers.models.embeddings import get_1d_rotary_pos_embed

        half = self.dit.head_dim // 2
        row_and_column: Any = [
            get_1d_rotary_pos_embed(half, axis.flatten(), linear_factor=linear, ntk_factor=ntk)  # type: ignore
            for axis in positions.cpu().unbind(-1)
        ]
        return torch.stack(row_and_column, -1).flatten(1).unflatten(0, positions.shape[:2])

    def scale(self, grid: Grid) -> float:
        """Side of the image relative to the training images."""
        return math.sqrt(grid.n * self.token_size**2 / self.training_size**2)

    def encodings(self, grid: Grid, positions: Tensor | None = None) -> Encodings:
        """Return rotations with the grid's linear factor and, with a watershed, those with its NTK factor."""
        at = grid.positions()[None] if positions is None else positions
        factors = [(self.scale(grid), 1.0)] + [(1.0, self.scale(grid))] * (self.watershed < 1)
        tables = tuple(self.rotary(at, linear, ntk).to(self.device) for linear, ntk in factors)
        return Encodings(grid, tables, positions)

    def time(self, sigma: Tensor) -> Tensor:
        return 1 - sigma * 1000 / 1000

    def rope(self, t: Tensor, tables: tuple[Tensor, ...]) -> Tensor:
        return tables[0] if len(tables) == 1 else torch.where(t < self.watershed, *tables)

    def list_blocks(self):
        return [*self.dit.layers]

    def embed(self, x: Tensor, sigma: Tensor, cond: Conditioning, tables: tuple[Tensor, ...]) -> BlockInputs:
        t = self.time(sigma)
        vector = self.modulation(self.dit.time_caption_embed, t.expand(len(x)), cond)
        x = self.dit.patch_embedder.proj(x)
        unread = cond.embeds[:, :0]  # blocks attend to the text by `cond.keys`
        return Hidden(x, None), Context(vector, (self.rope(t, tables),), unread, cond.mask, cond.keys)

    def without_text(self, cond: Conditioning) -> Conditioning:
        return cond  # no block runs it

    def run_block(self, block: Any, hidden: Hidden, context: Context) -> Hidden:
        x = block(
            hidden_states=hidden.image,
            attention_mask=None,
            image_rotary_emb=context.tables[0],
            encoder_hidden_states=context.text,
            encoder_mask=context.mask,
            temb=context.vector,
            cross_attention_kwargs=self.options,
        )
        return Hidden(x, None)

    def readout(self, hidden: Hidden, context: Context) -> Tensor:
        return -channels_first(self.dit.norm_out(hidden.image, context.vector), self.patch, self.channels)

    def modulated(self, hidden: Hidden, context: Context) -> Tensor:
        return self.blocks[0].norm1(hidden.image, context.vector)[0]

    def sites(self, modules: Modules):
        attentions = [attention for block in self.blocks for attention in (block.attn1, block.attn2)]
        if modules == "attention":
            return attentions, []
        # the block sums both attentions and projects the sum by attn2.to_out
        return [m for block in self.blocks for m in (block.attn2.to_out[0], block.feed_forward)], attentions

    def stock_forward(self, x: Tensor, sigma: Tensor, cond: Conditioning, encodings: Encodings) -> Tensor:
        t = self.time(sigma)
        rope = self.rope(t, encodings.tables).view(*encodings.grid, -1)
        out = self.dit(
            unpack(x, encodings.grid, self.patch),
            timestep=t.expand(len(x)),
            image_rotary_emb=rope,
            cross_attention_kwargs=self.options,
            **cond.forward_kwargs,
            return_dict=False,
        )[0]
        return -pack(out.chunk(2, dim=1)[0], self.patch)

    def joint_rows(self, rows: Tensor, n: int, text: int, keep_text: bool = False) -> Tensor:
        return rows

    def guide(self, v, cond, encodings, kv=None, rows=None):
        if not cond.guided:
            return v
        v_cond, v_uncond = cond.split(v)
        k = 3 * self.patch**2  # the pipeline guides 3 of the 4 channels
        guided = v_uncond[..., :k] + cond.guidance * (v_cond[..., :k] - v_uncond[..., :k])
        return cat([guided, v_cond[..., k:]], -1)

    def outer_macs(self, k: int, n: int, text: int, kept_text: bool = False) -> int:
        dit = self.dit
        return k * macs_per_token(dit.patch_embedder, dit.norm_out.linear_2) + macs_per_token(
            dit.time_caption_embed.timestep_embedder, dit.norm_out.linear_1
        )

    def block_macs(self, block: Any, k: int, n: int, text: int, kept_text: bool = False) -> dict[str, int]:
        a, cross = block.attn1, block.attn2
        return {
            "modulation": macs_per_token(block.norm1),
            "attention": k * (macs_per_token(a, cross.to_q) + 2 * a.inner_dim * (n + text)),
            "mlp": k * macs_per_token(cross.to_out, block.feed_forward),
        }


class LuminaPipeline(Pipeline):
    """diffusers' LuminaPipeline. The guidance halves are (with, without) the prompt."""

    @torch.no_grad()
    def encode(self, prompts, negative=None, guidance=None, *, max_sequence_length=None) -> Conditioning:
        from diffusers.utils.import_utils import is_bs4_available, is_ftfy_available

        guidance = self.default("guidance_scale") if guidance is None else guidance
        guided = self.guided(guidance)
        prompt_embeds, mask, negative_embeds, negative_mask = self.pipe.encode_prompt(
            [*prompts],
            guided,
            negative_prompt=negative,
            clean_caption=is_bs4_available() and is_ftfy_available(),  # as in the pipeline's own call
        )
        embeds = (cat([prompt_embeds, negative_embeds]) if guided else prompt_embeds).to(
            self.transformer.dtype
        )
        mask = cat([mask, negative_mask]) if guided else mask
        forward_kwargs = {"encoder_hidden_states": embeds, "encoder_mask": mask}
        return self.transformer.condition(forward_kwargs, guided, guidance)

    def text_limits(self, max_sequence_length=None):
        return [TextLimit(self.pipe.tokenizer, self.pipe.max_sequence_length)]


NEXT: Architecture = {
    "pipeline": ("LuminaPipeline", {}),
    "transformer": (
        "LuminaNextDiT2DModel",
        {
            "sample_size": 128,
            "hidden_size": 2304,
            "num_layers": 24,
            "num_attention_heads": 32,
            "num_kv_heads": 8,
        },
    ),
    "vae": vae(4, 0.13025, None, True),
    "scheduler": ("FlowMatchEulerDiscreteScheduler", {}),
    "text_encoder": GEMMA_2B,
    "tokenizer": ("GemmaTokenizer", {}),
}
FAMILY = Family(
    name="lumina",
    pipelines=("LuminaPipeline", "LuminaText2ImgPipeline"),
    components=("transformer", "vae", "scheduler", "text_encoder", "tokenizer"),
    transformer=LuminaTransformer,
    pipeline=LuminaPipeline,
    processor=LuminaAttention,
    sizes={"lumina": Size(NEXT, (4.4, 2.1), 1755)},
)
