"""FLUX.1 (github.com/black-forest-labs/flux): double-stream, then single-stream blocks; rotary positions."""

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, cat

from fovea.models.attention import (
    Processor,
    after_text,
    apply_rotary,
    project_heads,
    rotary_tables,
    update_cache,
)
from fovea.models.block_runs import Modules
from fovea.models.components import CLIP_TOKENIZER, T5_TOKENIZER, T5_XXL, clip, vae
from fovea.models.family import Architecture, Family, Size
from fovea.models.forward import ensure_on_device, guidance_context, has_cache
from fovea.models.hidden import Context, Hidden
from fovea.models.pipeline import Pipeline
from fovea.models.settings import negative_prompts
from fovea.models.text_limits import TextLimit
from fovea.models.tokens import Conditioning, Encodings, Grid
from fovea.models.transformer import BlockInputs, Transformer, macs_per_token


class FluxAttention(Processor):
    """Attention over text, then image; rotary positions may differ between the images of a batch."""

    replaces: ClassVar = ("FluxAttnProcessor",)

    def __call__(
        self,
        attn,
        hidden_states,
        encoder_hidden_states=None,
        attention_mask=None,
        image_rotary_emb: Any = None,
    ):
        x, e = hidden_states, encoder_hidden_states
        q, k, v = project_heads(x, attn.heads, attn.to_q, attn.to_k, attn.to_v)
        q, k = attn.norm_q(q), attn.norm_k(k)
        if e is not None:
            eq, ek, ev = project_heads(e, attn.heads, attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
            q, k = cat([attn.norm_added_q(eq), q], 1), cat([attn.norm_added_k(ek), k], 1)
            v = cat([ev, v], 1)
        q, k = apply_rotary(q, *image_rotary_emb), apply_rotary(k, *image_rotary_emb)
        k, v = self.call_eager(update_cache, self, k, v, "joint")
        out = self.attend(q, k, v).flatten(2)
        if e is None:
            return out
        e, x = (
            out[:, : e.shape[1]].contiguous(),
            out[:, e.shape[1] :].contiguous(),
        )  # as in diffusers; other kernels would run otherwise
        return attn.to_out[1](attn.to_out[0](x)), attn.to_add_out(e)


class FluxTransformer(Transformer):
    """FluxTransformer2DModel.

    The pipeline evaluates the guidance halves one after the other; here they are one batch, except for a
    transformer with caches, which keep the halves separate.
    """

    text_first: ClassVar = True

    @staticmethod
    def patch_and_channels(dit: Any) -> tuple[int, int]:
        return 2, dit.config.in_channels // 4

    def condition(self, forward_kwargs, guided, guidance):
        ensure_on_device(self.dit)
        embedder, pooled = self.dit.time_text_embed, forward_kwargs["pooled_projections"]
        constants = (embedder.text_embedder(pooled),)
        if "guidance" in forward_kwargs:
            strength = embedder.time_proj(forward_kwargs["guidance"].to(self.dtype) * 1000).to(pooled.dtype)
            constants = (embedder.guidance_embedder(strength), *constants)
        embeds = self.dit.context_embedder(forward_kwargs["encoder_hidden_states"])
        return Conditioning(embeds, constants, guided, guidance, forward_kwargs, prompted_half=1)

    def ids(self, positions: Tensor) -> Tensor:
        """Return positions on the three rotary axes: unused, row, column."""
        return cat([torch.zeros_like(positions[..., :1]), positions], -1)

    def encodings(self, grid: Grid, positions: Tensor | None = None) -> Encodings:
        ensure_on_device(self.dit)
        at = grid.positions(self.device)[None] if positions is None else positions
        return Encodings(grid, rotary_tables(self.dit.pos_embed, self.ids(at)), positions)

    def time(self, sigma: Tensor, b: int) -> Tensor:
        """Return the time rounded to the model's dtype, as in the pipeline."""
        return (sigma * 1000).expand(b).to(self.dtype) / 1000

    def list_blocks(self):
        return [*self.dit.transformer_blocks, *self.dit.single_transformer_blocks]

    def embed(self, x: Tensor, sigma: Tensor, cond: Conditioning, tables: tuple[Tensor, ...]) -> BlockInputs:
        vector = self.modulation(self.dit.time_text_embed, self.time(sigma, len(x)) * 1000, cond)
        rope = after_text(tables, cond.text)
        return Hidden(self.dit.x_embedder(x), cond.embeds), Context(vector, rope)

    def run_block(self, block: Any, hidden: Hidden, context: Context) -> Hidden:
        text, x = block(
            hidden_states=hidden.image,
            encoder_hidden_states=hidden.text,
            temb=context.vector,
            image_rotary_emb=context.tables,
        )
        return Hidden(x, text)

    def readout(self, hidden: Hidden, context: Context) -> Tensor:
        return self.dit.proj_out(self.dit.norm_out(hidden.image, context.vector))

    def modulated(self, hidden: Hidden, context: Context) -> Tensor:
        return self.blocks[0].norm1(hidden.image, emb=context.vector)[0]

    def sites(self, modules: Modules):
        double, single = self.dit.transformer_blocks, self.dit.single_transformer_blocks
        if modules == "attention":
            return [block.attn for block in self.blocks], []
        answering = [m for block in double for m in (block.attn, block.ff, block.ff_context)]
        # in a single-stream block one projection combines attention and MLP
        idle = [m for block in single for m in (block.attn, block.proj_mlp)]
        return [*answering, *(block.proj_out for block in single)], idle

    def stock_forward(self, x: Tensor, sigma: Tensor, cond: Conditioning, encodings: Encodings) -> Tensor:
        ids = self.ids(encodings.grid.positions(self.device))
        text_ids = ids.new_zeros(cond.text, ids.shape[-1])
        time = self.time(sigma, len(x))

        def run(half: slice) -> Tensor:
            given = {"txt_ids": text_ids} | {key: v[half] for key, v in cond.forward_kwargs.items()}
            return self.dit(x[half], timestep=time[half], img_ids=ids, **given, return_dict=False)[0]

        if not (cond.guided and has_cache(self.dit)):
            return run(slice(None))
        b = len(x) // 2  # caches expect separate calls for the guidance halves, as in the pipeline
        given = run(slice(b, None))
        with guidance_context(self.dit, "uncond"):
            return cat([run(slice(b)), given])

    def outer_macs(self, k: int, n: int, text: int, kept_text: bool = False) -> int:
        dit = self.dit
        return k * macs_per_token(dit.x_embedder, dit.proj_out) + macs_per_token(
            dit.time_text_embed.timestep_embedder, dit.norm_out
        )

    def block_macs(self, block: Any, k: int, n: int, text: int, kept_text: bool = False) -> dict[str, int]:
        a, ran = block.attn, 0 if kept_text else text
        pairs = 2 * a.inner_dim * (k + ran) * (n + text)
        if hasattr(block, "proj_mlp"):  # a single-stream block
            return {
                "modulation": macs_per_token(block.norm),
                "attention": (k + ran) * macs_per_token(a) + pairs,
                "mlp": (k + ran) * macs_per_token(block.proj_mlp, block.proj_out),
            }
        image, added = (a.to_q, a.to_k, a.to_v, a.to_out), (a.add_q_proj, a.add_k_proj, a.add_v_proj)
        return {
            "modulation": macs_per_token(block.norm1, block.norm1_context),
            "attention": k * macs_per_token(*image) + ran * macs_per_token(*added, a.to_add_out) + pairs,
            "mlp": k * macs_per_token(block.ff) + ran * macs_per_token(block.ff_context),
        }


def embedded_guidance(scale: float, b: int, device: torch.device) -> Tensor:
    """Return the guidance scale as the transformer takes it, (b,), float32 whatever torch's default is."""
    return torch.full([b], scale, device=device, dtype=torch.float32)


class FluxPipeline(Pipeline):
    """diffusers' FluxPipeline.

    Guidance: with embedded guidance (`guidance_embeds`, FLUX.1-dev), `guidance` is an input of the
        transformer, and `true_cfg_scale` above 1 adds classifier-free guidance. Without (FLUX.1-schnell),
        either is the scale of classifier-free guidance, 1 (none) by default.
    """

    encode_options = ("max_sequence_length", "true_cfg_scale")

    @classmethod
    def guides(cls, guidance, transformer, pipeline):
        return guidance > 1 and not transformer.get("guidance_embeds", False)

    @torch.no_grad()
    def encode(
        self, prompts, negative=None, guidance=None, *, true_cfg_scale=None, max_sequence_length=None
    ) -> Conditioning:
        embedded = self.transformer.dit.config.guidance_embeds
        if not embedded and None not in (guidance, true_cfg_scale) and guidance != true_cfg_scale:
            raise ValueError(
                f"guidance={guidance}, true_cfg_scale={true_cfg_scale}: this transformer has no embedded "
                "guidance, and both are the scale of its classifier-free guidance: give one"
            )
        scale = guidance if not embedded and true_cfg_scale is None else true_cfg_scale
        scale = 1.0 if scale is None else scale
        guidance = self.default("guidance_scale") if guidance is None else guidance
        guided = scale > 1
        negative = negative_prompts(negative, len(prompts))
        limit = self.limit(max_sequence_length)
        sides = [negative, [*prompts]] if guided else [[*prompts]]
        encoded = [self.pipe.encode_prompt(side, None, max_sequence_length=limit) for side in sides]
        transformer = self.transformer
        embeds, pooled = (cat([e[part] for e in encoded]).to(transformer.dtype) for part in (0, 1))
        forward_kwargs = {"encoder_hidden_states": embeds, "pooled_projections": pooled}
        if embedded:
            forward_kwargs["guidance"] = embedded_guidance(guidance, len(embeds), transformer.device)
        return transformer.condition(forward_kwargs, guided, scale)

    def text_limits(self, max_sequence_length=None):
        pipe, limit = self.pipe, self.limit(max_sequence_length)
        return [TextLimit(pipe.tokenizer, pipe.tokenizer_max_length), TextLimit(pipe.tokenizer_2, limit)]

    def stock_difference(self, guidance):
        if self.transformer.dit.config.guidance_embeds or guidance is None or guidance <= 1:
            return None
        return (
            f"guidance={guidance}: this transformer has no embedded guidance, so that the pipeline's own "
            "call ignores it; here it is the scale of classifier-free guidance, at twice the work"
        )

    def schedule(self, steps: int, grid: Grid) -> dict:
        return super().schedule(steps, grid) | {"sigmas": np.linspace(1.0, 1 / steps, steps)}


BLOCKS = {"num_layers": 19, "num_single_layers": 38}  # the class's other defaults match FLUX.1
DEV: Architecture = {
    "pipeline": ("FluxPipeline", {}),
    "transformer": ("FluxTransformer2DModel", {"guidance_embeds": True} | BLOCKS),
    "vae": vae(16, 0.3611, 0.1159, False),
    "scheduler": (
        "FlowMatchEulerDiscreteScheduler",
        {"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15},
    ),
    "text_encoder": clip("CLIPTextModel", 768, 12),
    "text_encoder_2": T5_XXL,
    "tokenizer": CLIP_TOKENIZER,
    "tokenizer_2": T5_TOKENIZER,
}
SCHNELL: Architecture = DEV | {
    "transformer": ("FluxTransformer2DModel", {"guidance_embeds": False} | BLOCKS),
    "scheduler": ("FlowMatchEulerDiscreteScheduler", {"shift": 1.0}),
}
FAMILY = Family(
    name="flux",
    pipelines=("FluxPipeline",),
    components=(
        "transformer",
        "vae",
        "scheduler",
        "text_encoder",
        "tokenizer",
        "text_encoder_2",
        "tokenizer_2",
    ),
    transformer=FluxTransformer,
    pipeline=FluxPipeline,
    processor=FluxAttention,
    sizes={"flux": Size(DEV, (16.9, 12.4), 11901), "flux_schnell": Size(SCHNELL, (16.9, 12.4), 11891)},
)
