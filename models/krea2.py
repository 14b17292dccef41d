"""Krea 2 (krea.ai/blog/krea-2-technical-report): one stream of text and image, text from twelve layers."""

from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, cat
from torch.nn import functional as F

from fovea.models.attention import (
    Processor,
    after_text,
    apply_rotary,
    project_heads,
    rotary_tables,
    update_cache,
)
from fovea.models.block_runs import Modules
from fovea.models.components import QWEN_IMAGE_TOKENIZER, qwen3_vl
from fovea.models.family import Architecture, Family, Size
from fovea.models.forward import ensure_on_device
from fovea.models.hidden import Context, Hidden
from fovea.models.text_limits import TextLimit
from fovea.models.tokens import Conditioning, Encodings, Grid
from fovea.models.transformer import BlockInputs, Transformer, macs_per_token
from fovea.models.video_vae import VideoVAEPipeline


class Krea2Attention(Processor):
    """Grouped-query attention with a gate on its output: over the stream, or, in the text fusion, over the
    layers of a token or the tokens of the text.

    The mask (b, 1, 1, keys) leaves out the keys of padding.
    """

    replaces: ClassVar = ("Krea2AttnProcessor",)
    masked: ClassVar = True

    def __call__(self, attn, hidden_states, attention_mask=None, image_rotary_emb: Any = None):
        (q,) = project_heads(hidden_states, attn.num_heads, attn.to_q)
        k, v = project_heads(hidden_states, attn.num_kv_heads, attn.to_k, attn.to_v)
        q, k = attn.norm_q(q), attn.norm_k(k)
        if image_rotary_emb is not None:
            q, k = apply_rotary(q, *image_rotary_emb), apply_rotary(k, *image_rotary_emb)
        k, v = self.call_eager(update_cache, self, k, v, "joint")
        k, v = (t.repeat_interleave(attn.num_heads // attn.num_kv_heads, 2) for t in (k, v))
        out = self.attend(q, k, v, attn_mask=attention_mask).flatten(2)
        return attn.to_out[0](out * torch.sigmoid(attn.to_gate(hidden_states)))


class Krea2Transformer(Transformer):
    """Krea2Transformer2DModel. The guidance halves are two passes, (with, without) the prompt.

    The text is constant over a trajectory until the blocks, so its fusion runs once. As in the pipeline, all
    texts are padded to one length; padding runs, and its FLOPs count, but no token attends to it.
    """

    text_first: ClassVar = True

    @staticmethod
    def patch_and_channels(dit: Any) -> tuple[int, int]:
        return 2, dit.config.in_channels // 4

    def condition(self, forward_kwargs, guided, guidance):
        ensure_on_device(self.dit)
        layers, mask = forward_kwargs["encoder_hidden_states"], forward_kwargs["encoder_attention_mask"]
        embeds = self.dit.txt_in(self.dit.text_fusion(layers, attention_mask=mask[:, None, None]))
        return Conditioning(embeds, (), guided, guidance, forward_kwargs, mask)

    def ids(self, positions: Tensor, text: int = 0) -> Tensor:
        """Return positions on the three rotary axes, frame (0), row and column, after those of text (0)."""
        return F.pad(positions, (1, 0, text, 0))

    def encodings(self, grid: Grid, positions: Tensor | None = None) -> Encodings:
        at = grid.positions(self.device)[None] if positions is None else positions
        return Encodings(grid, rotary_tables(self.dit.rotary_emb, self.ids(at)), positions)

    def time(self, sigma: Tensor, b: int) -> Tensor:
        return (sigma * 1000 / 1000).expand(b).to(self.dtype)

    def list_blocks(self):
        return [*self.dit.transformer_blocks]

    def embed(self, x: Tensor, sigma: Tensor, cond: Conditioning, tables: tuple[Tensor, ...]) -> BlockInputs:
        vector = self.dit.time_embed(self.time(sigma, len(x)), dtype=x.dtype)
        modulation = self.dit.time_mod_proj(F.gelu(vector, approximate="tanh"))
        rope = after_text(tables, cond.text)
        context = Context(vector, rope, mask=cond.mask, modulations=(modulation,))
        return Hidden(self.dit.img_in(x), cond.embeds), context

    @torch.no_grad()
    def prepare(self, x, sigma, cond, encodings, rows=None, keep_text=False) -> BlockInputs:
        """Append the image's keys to the mask, as many as there are tokens, whichever are evaluated."""
        text: Any = cond.mask
        keys = F.pad(text, (0, x.shape[1]), value=True)[:, None, None]
        return super().prepare(x, sigma, replace(cond, mask=keys), encodings, rows, keep_text)

    def run_block(self, block: Any, hidden: Hidden, context: Context) -> Hidden:
        x = block(self.stream(hidden), *context.modulations, context.tables, context.mask)
        text = x.shape[1] - hidden.image.shape[1]
        return Hidden(x[:, text:], x[:, :text])

    def stream(self, hidden: Hidden) -> Tensor:
        return hidden.image if hidden.text is None else cat([hidden.text, hidden.image], 1)

    def readout(self, hidden: Hidden, context: Context) -> Tensor:
        return self.dit.final_layer(hidden.image, context.vector)

    def compared(self, hidden: Hidden, context: Context) -> Tensor:
        """Return the whole stream with its padding, which is the state that cache-dit's caches compare."""
        return self.stream(hidden)

    def modulated(self, hidden: Hidden, context: Context) -> Tensor:
        first, (modulation,) = self.blocks[0], context.modulations
        scale, shift = (modulation.unflatten(-1, (6, -1)) + first.scale_shift_table).unbind(-2)[:2]
        return (1 + scale) * first.norm1(hidden.image) + shift

    def sites(self, modules: Modules):
        names = ("attn",) if modules == "attention" else ("attn", "ff")
        return [getattr(block, name) for block in self.blocks for name in names], []

    def stock_forward(self, x: Tensor, sigma: Tensor, cond: Conditioning, encodings: Encodings) -> Tensor:
        ids = self.ids(encodings.grid.positions(self.device), text=cond.text)
        given = {"timestep": self.time(sigma, len(x)), "position_ids": ids} | cond.forward_kwargs
        return self.dit(x, **given, return_dict=False)[0]

    def guide(self, v, cond, encodings, kv=None, rows=None):
        """Return cond + g (cond - uncond)."""
        if not cond.guided:
            return v
        v_cond, v_uncond = cond.split(v)
        return v_cond + cond.guidance * (v_cond - v_uncond)

    def outer_macs(self, k: int, n: int, text: int, kept_text: bool = False) -> int:
        dit = self.dit
        return k * macs_per_token(dit.img_in, dit.final_layer) + macs_per_token(
            dit.time_embed, dit.time_mod_proj
        )

    def block_macs(self, block: Any, k: int, n: int, text: int, kept_text: bool = False) -> dict[str, int]:
        stream = k + (0 if kept_text else text)
        pairs = 2 * block.attn.hidden_size * stream * (n + text)
        return {
            "attention": stream * macs_per_token(block.attn) + pairs,
            "mlp": stream * macs_per_token(block.ff),
        }


class Krea2Pipeline(VideoVAEPipeline):
    """diffusers' Krea2Pipeline.

    The guided velocity is cond + g (cond - uncond): any g above 0 is guidance, and g = 1 corresponds to 2 in
    other families. A distilled transformer's schedule has the same shift at every size.
    """

    distilled_mu: ClassVar[float] = 1.15

    @classmethod
    def guides(cls, guidance, transformer, pipeline):
        return guidance > 0

    @torch.no_grad()
    def encode(self, prompts, negative=None, guidance=None, *, max_sequence_length=None) -> Conditioning:
        guidance = self.default("guidance_scale") if guidance is None else guidance
        kwargs_of = partial(self.encode_kwargs, limit=max_sequence_length)
        return self.encode_in_passes(kwargs_of, prompts, negative, guidance)

    def encode_kwargs(self, prompts: Any, limit: int | None) -> dict[str, Tensor]:
        """Encode prompts as keyword arguments of the transformer's forward."""
        layers, mask = self.pipe.encode_prompt(prompts, max_sequence_length=self.limit(limit))
        return {
            "encoder_hidden_states": layers.to(self.transformer.dtype),
            "encoder_attention_mask": mask,
        }

    def text_limits(self, max_sequence_length=None):
        end = self.pipe.prompt_template_encode_suffix  # the part before the prompt is dropped
        return [TextLimit(self.pipe.tokenizer, self.limit(max_sequence_length), lambda prompt: prompt + end)]

    def schedule(self, steps: int, grid: Grid) -> dict:
        given = super().schedule(steps, grid) | {"sigmas": np.linspace(1.0, 1 / steps, steps)}
        fixed = "mu" in given and self.pipe.config.is_distilled
        return given | {"mu": self.distilled_mu} if fixed else given

    @property
    def default_size(self) -> int:
        return self.default("height")


def size(distilled: bool) -> Size:
    architecture: Architecture = {
        "pipeline": ("Krea2Pipeline", {"is_distilled": distilled}),
        "transformer": ("Krea2Transformer2DModel", {"num_layers": 28}),  # the class's defaults match
        "vae": ("AutoencoderKLQwenImage", {}),
        "scheduler": (
            "FlowMatchEulerDiscreteScheduler",
            {"use_dynamic_shifting": True, "max_image_seq_len": 6400},
        ),
        "text_encoder": qwen3_vl(2560, 36),
        "tokenizer": QWEN_IMAGE_TOKENIZER,
    }
    return Size(architecture, (17.4, 13.0), 12820)


FAMILY = Family(
    name="krea2",
    pipelines=("Krea2Pipeline",),
    components=("transformer", "vae", "scheduler", "text_encoder", "tokenizer"),
    transformer=Krea2Transformer,
    pipeline=Krea2Pipeline,
    processor=Krea2Attention,
    sizes={"krea2": size(False), "krea2_turbo": size(True)},
)
