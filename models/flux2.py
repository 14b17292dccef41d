"""FLUX.2 (github.com/black-forest-labs/flux2).

Unlike FLUX.1, all blocks of a kind share their modulation, the text has rotary positions too, and the latent
has 32 channels normalised by batch statistics.
"""

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, cat

from fovea.models.attention import Processor, apply_rotary, project_heads, update_cache
from fovea.models.block_runs import Modules
from fovea.models.components import MISTRAL_SMALL, PIXTRAL_PROCESSOR
from fovea.models.family import Architecture, Family, Size
from fovea.models.flux import FluxTransformer, embedded_guidance
from fovea.models.forward import ensure_on_device
from fovea.models.hidden import Context, Hidden
from fovea.models.pipeline import Pipeline
from fovea.models.text_limits import TextLimit
from fovea.models.tokens import Conditioning, Grid
from fovea.models.transformer import BlockInputs, macs_per_token


class Flux2Attention(Processor):
    """Attention over text, then image; in single-stream blocks fused with the MLP."""

    replaces: ClassVar = ("Flux2AttnProcessor", "Flux2ParallelSelfAttnProcessor")

    def __call__(self, attn, hidden_states, *given):
        """given: (text, mask, rotations) in double-stream, (mask, rotations) in single-stream blocks."""
        if len(given) == 2:
            return self.parallel(attn, hidden_states, given[-1])
        x, e = hidden_states, given[0]
        q, k, v = project_heads(x, attn.heads, attn.to_q, attn.to_k, attn.to_v)
        eq, ek, ev = project_heads(e, attn.heads, attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
        q = cat([attn.norm_added_q(eq), attn.norm_q(q)], 1)
        k = cat([attn.norm_added_k(ek), attn.norm_k(k)], 1)
        out = self.attention(q, k, cat([ev, v], 1), given[-1])
        e, x = out[:, : e.shape[1]], out[:, e.shape[1] :]
        return attn.to_out[1](attn.to_out[0](x)), attn.to_add_out(e)

    def parallel(self, attn, x: Tensor, rope: Any) -> Tensor:
        width = 3 * attn.inner_dim
        projected = attn.to_qkv_mlp_proj(x)
        q, k, v = projected[..., :width].unflatten(-1, (3, attn.heads, -1)).unbind(2)
        out = self.attention(attn.norm_q(q), attn.norm_k(k), v, rope)
        return attn.to_out(cat([out, attn.mlp_act_fn(projected[..., width:])], -1))

    def attention(self, q: Tensor, k: Tensor, v: Tensor, rope: Any) -> Tensor:
        q, k = apply_rotary(q, *rope), apply_rotary(k, *rope)
        k, v = self.call_eager(update_cache, self, k, v, "joint")
        return self.attend(q, k, v).flatten(2)


class Flux2Transformer(FluxTransformer):
    """Flux2Transformer2DModel. The modulation is computed once per evaluation and kind of block."""

    def condition(self, forward_kwargs, guided, guidance):
        ensure_on_device(self.dit)
        embedder, constants = self.dit.time_guidance_embed, ()
        if "guidance" in forward_kwargs and embedder.guidance_embedder is not None:
            strength = embedder.time_proj(forward_kwargs["guidance"].to(self.dtype) * 1000).to(self.dtype)
            constants = (embedder.guidance_embedder(strength),)
        embeds = self.dit.context_embedder(forward_kwargs["encoder_hidden_states"])
        tables = tuple(t[None] for t in self.dit.pos_embed(forward_kwargs["txt_ids"][0]))
        return Conditioning(embeds, constants, guided, guidance, forward_kwargs, tables=tables)

    def ids(self, positions: Tensor) -> Tensor:
        """Return positions on the four rotary axes: image index, row, column, text token."""
        nothing = torch.zeros_like(positions[..., :1])
        return cat([nothing, positions, nothing], -1)

    def without_text(self, cond: Conditioning) -> Conditioning:
        return replace(super().without_text(cond), tables=tuple(t[:, :0] for t in cond.tables))

    def embed(self, x: Tensor, sigma: Tensor, cond: Conditioning, tables: tuple[Tensor, ...]) -> BlockInputs:
        dit, time = self.dit, self.time(sigma, len(x)) * 1000
        vector = self.modulation(dit.time_guidance_embed, time, cond)
        modulations = tuple(
            modulation(vector)
            for modulation in (
                dit.double_stream_modulation_img,
                dit.double_stream_modulation_txt,
                dit.single_stream_modulation,
            )
        )
        rope = tuple(
            cat([text.expand(len(image), -1, -1), image], 1)
            for text, image in zip(cond.tables, tables, strict=True)
        )
        return Hidden(dit.x_embedder(x), cond.embeds), Context(vector, rope, modulations=modulations)

    def run_block(self, block: Any, hidden: Hidden, context: Context) -> Hidden:
        image, text, single = context.modulations
        given = {"hidden_states": hidden.image, "encoder_hidden_states": hidden.text}
        if hasattr(block, "ff"):
            given |= {"temb_mod_img": image, "temb_mod_txt": text}
        else:
            given |= {"temb_mod": single, "split_hidden_states": True}
        text, x = block(**given, image_rotary_emb=context.tables)
        return Hidden(x, text)

    def modulated(self, hidden: Hidden, context: Context) -> Tensor:
        shift, scale = context.modulations[0].unsqueeze(1).chunk(6, dim=-1)[:2]
        return (1 + scale) * self.blocks[0].norm1(hidden.image) + shift

    def sites(self, modules: Modules):
        double, single = self.dit.transformer_blocks, self.dit.single_transformer_blocks
        if modules == "attention":  # in single-stream blocks the module includes the MLP
            return [block.attn for block in self.blocks], []
        answering = [m for block in double for m in (block.attn, block.ff, block.ff_context)]
        return [*answering, *(block.attn for block in single)], []

    def outer_macs(self, k: int, n: int, text: int, kept_text: bool = False) -> int:
        dit = self.dit
        return k * macs_per_token(dit.x_embedder, dit.proj_out) + macs_per_token(
            dit.time_guidance_embed.timestep_embedder,
            dit.double_stream_modulation_img,
            dit.double_stream_modulation_txt,
            dit.single_stream_modulation,
            dit.norm_out,
        )

    def block_macs(self, block: Any, k: int, n: int, text: int, kept_text: bool = False) -> dict[str, int]:
        a, ran = block.attn, 0 if kept_text else text
        pairs = 2 * a.inner_dim * (k + ran) * (n + text)
        if not hasattr(block, "ff"):
            return {"attention": (k + ran) * macs_per_token(a) + pairs}
        image, added = (a.to_q, a.to_k, a.to_v, a.to_out), (a.add_q_proj, a.add_k_proj, a.add_v_proj)
        return {
            "attention": k * macs_per_token(*image) + ran * macs_per_token(*added, a.to_add_out) + pairs,
            "mlp": k * macs_per_token(block.ff) + ran * macs_per_token(block.ff_context),
        }


class Flux2Pipeline(Pipeline):
    """diffusers' Flux2Pipeline (dev): guidance is an input of the model, without classifier-free guidance."""

    schedule_depends_on_steps = True

    @classmethod
    def guides(cls, guidance, transformer, pipeline):
        return False

    @torch.no_grad()
    def encode(self, prompts, negative=None, guidance=None, *, max_sequence_length=None) -> Conditioning:
        forward_kwargs = self.encode_kwargs(prompts, max_sequence_length)
        guidance = self.default("guidance_scale") if guidance is None else guidance
        forward_kwargs["guidance"] = embedded_guidance(guidance, len(prompts), self.transformer.device)
        return self.transformer.condition(forward_kwargs, False, 1.0)

    def encode_kwargs(self, prompts: Any, limit: int | None) -> dict[str, Tensor]:
        """Encode prompts as keyword arguments of the transformer's forward."""
        embeds, ids = self.pipe.encode_prompt([*prompts], max_sequence_length=self.limit(limit))
        return {"encoder_hidden_states": embeds.to(self.transformer.dtype), "txt_ids": ids}

    def text_limits(self, max_sequence_length=None):
        from diffusers.pipelines.flux2.pipeline_flux2 import format_input

        processor, limit = self.pipe.tokenizer, self.limit(max_sequence_length)

        def template(prompt: str) -> str:
            (chat,) = format_input([prompt], self.pipe.system_message)
            text = processor.apply_chat_template(chat, tokenize=False)
            return text.removeprefix(processor.tokenizer.bos_token or "")

        return [TextLimit(processor.tokenizer, limit, template)]

    def noise(self, generators, grid):
        """Draw noise directly as tokens, as the pipeline does."""
        from diffusers.utils.torch_utils import randn_tensor

        transformer = self.transformer
        shape = (len(generators), transformer.channels * transformer.patch**2, *grid)
        drawn = randn_tensor(
            shape, generator=[*generators], device=transformer.device, dtype=transformer.latent_dtype
        )
        return drawn.flatten(2).transpose(1, 2)

    def schedule(self, steps: int, grid: Grid) -> dict[str, Any]:
        """Return scheduler arguments; the shift decreases with the number of steps."""
        from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

        given = {"num_inference_steps": steps, "sigmas": np.linspace(1.0, 1 / steps, steps)}
        if not self.pipe.scheduler.config.get("use_dynamic_shifting", False):
            return given
        return given | {"mu": compute_empirical_mu(grid.n, steps)}

    def denormalise(self, latents):
        """Denormalise by the autoencoder's batch statistics, which are per channel of a token."""
        deviation, mean = self._statistics(latents)
        return self._joined(self._split(latents) * deviation + mean)

    def normalise(self, latents):
        deviation, mean = self._statistics(latents)
        return self._joined((self._split(latents) - mean) / deviation)

    def _statistics(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return standard deviation and mean, broadcastable to (b, c, rows, p, columns, p)."""
        vae, patch = self.pipe.vae, self.transformer.patch
        deviation = torch.sqrt(vae.bn.running_var + vae.config.batch_norm_eps)
        both = (t.to(latents).view(-1, 1, patch, 1, patch) for t in (deviation, vae.bn.running_mean))
        deviation, mean = both
        return deviation, mean

    def _split(self, latents: Tensor) -> Tensor:
        patch = self.transformer.patch
        return latents.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))

    @staticmethod
    def _joined(split: Tensor) -> Tensor:
        return split.flatten(4).flatten(2, 3)


SCHEDULER = (
    "FlowMatchEulerDiscreteScheduler",
    {"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15},
)
DEV: Architecture = {
    "pipeline": ("Flux2Pipeline", {}),
    "transformer": ("Flux2Transformer2DModel", {}),  # the class's defaults match dev
    "vae": ("AutoencoderKLFlux2", {}),
    "scheduler": SCHEDULER,
    "text_encoder": MISTRAL_SMALL,
    "tokenizer": PIXTRAL_PROCESSOR,
}


PARTS = ("transformer", "vae", "scheduler", "text_encoder", "tokenizer")
FAMILY = Family(
    name="flux2",
    pipelines=("Flux2Pipeline",),
    components=PARTS,
    transformer=Flux2Transformer,
    pipeline=Flux2Pipeline,
    processor=Flux2Attention,
    sizes={"flux2_dev": Size(DEV, (56.3, 32.4), 32223)},
)
