"""Qwen-Image (arXiv:2508.02324): joint attention, positions centred on the image, guidance in two passes."""

from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, cat

from fovea.models.attention import Processor, apply_complex_rotary, apply_norm, project_heads, update_cache
from fovea.models.block_runs import Modules
from fovea.models.components import QWEN_IMAGE_TOKENIZER
from fovea.models.family import Architecture, Family, Size
from fovea.models.forward import ensure_on_device
from fovea.models.hidden import Context, Hidden
from fovea.models.text_limits import TextLimit
from fovea.models.tokens import Conditioning, Encodings, Grid
from fovea.models.transformer import BlockInputs, Transformer, macs_per_token
from fovea.models.video_vae import VideoVAEPipeline


class QwenAttention(Processor):
    """Attention over text, then image, with the padding of shorter texts masked."""

    replaces: ClassVar = ("QwenDoubleStreamAttnProcessor2_0",)
    masked: ClassVar = True

    def __call__(
        self,
        attn,
        hidden_states,
        encoder_hidden_states,
        encoder_hidden_states_mask=None,
        attention_mask=None,
        image_rotary_emb: Any = None,
    ):
        x, e, mask = hidden_states, encoder_hidden_states, encoder_hidden_states_mask
        q, k, v = project_heads(x, attn.heads, attn.to_q, attn.to_k, attn.to_v)
        eq, ek, ev = project_heads(e, attn.heads, attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
        image, text = image_rotary_emb
        q, k = (
            apply_complex_rotary(apply_norm(norm, t), image)
            for norm, t in ((attn.norm_q, q), (attn.norm_k, k))
        )
        eq, ek = (
            apply_complex_rotary(apply_norm(norm, t), text)
            for norm, t in ((attn.norm_added_q, eq), (attn.norm_added_k, ek))
        )
        k, v = self.call_eager(update_cache, self, cat([ek, k], 1), cat([ev, v], 1), "joint")
        if mask is not None:
            mask = F.pad(mask, (0, k.shape[1] - mask.shape[1]), value=True)[:, None, None]
        out = self.attend(cat([eq, q], 1), k, v, attn_mask=mask).flatten(2)
        e, x = out[:, : e.shape[1]].contiguous(), out[:, e.shape[1] :].contiguous()
        return attn.to_out[1](attn.to_out[0](x)), attn.to_add_out(e)


class QwenTransformer(Transformer):
    """QwenImageTransformer2DModel. The guidance halves are two passes, (with, without) the prompt."""

    text_first: ClassVar = True

    @staticmethod
    def patch_and_channels(dit: Any) -> tuple[int, int]:
        return dit.config.patch_size, dit.config.in_channels // dit.config.patch_size**2

    @staticmethod
    def unsupported(dit: Any):
        for name in ("guidance_embeds", "zero_cond_t", "use_additional_t_cond", "use_layer3d_rope"):
            if dit.config.get(name):
                yield f"its transformer has {name}=True, as those that edit images or part them in layers"

    def condition(self, forward_kwargs, guided, guidance):
        ensure_on_device(self.dit)
        embeds = self.dit.txt_in(self.dit.txt_norm(forward_kwargs["encoder_hidden_states"]))
        mask = forward_kwargs.get("encoder_hidden_states_mask")
        return Conditioning(
            embeds, (), guided, guidance, forward_kwargs, None if mask is None else mask.bool()
        )

    def encodings(self, grid: Grid, positions: Tensor | None = None) -> Encodings:
        """Return the model's own rotations, or at given positions their formula, centred on the grid.

        Text positions are on the diagonal, beyond the longer half-side of the grid.
        """
        rope = self.dit.pos_embed
        most = len(rope.pos_freqs) - max(grid) // 2
        image, text = rope([[(1, *grid)]], device=self.device, max_txt_seq_len=most)
        if positions is None:
            return Encodings(grid, (image[None],), None, (text[None],))
        at = positions - positions.new_tensor([size - size // 2 for size in grid])
        at = cat([torch.zeros_like(at[..., :1]), at], -1)  # frame, row, column
        angles = [
            axis[..., None] * (1.0 / rope.theta ** (torch.arange(0, d, 2, device=at.device).float() / d))
            for axis, d in zip(at.unbind(-1), rope.axes_dim, strict=True)
        ]
        turns = cat(angles, -1)
        return Encodings(grid, (torch.polar(torch.ones_like(turns), turns),), positions, (text[None],))

    def time(self, sigma: Tensor, b: int) -> Tensor:
        """Return the time rounded to the model's dtype, as in the pipeline."""
        return (sigma * 1000).expand(b).to(self.dtype) / 1000

    def list_blocks(self):
        return [*self.dit.transformer_blocks]

    def embed(self, x: Tensor, sigma: Tensor, cond: Conditioning, tables: tuple[Tensor, ...]) -> BlockInputs:
        vector = self.modulation(self.dit.time_text_embed, self.time(sigma, len(x)), cond)
        image, text = tables
        rope = image, text[:, : cond.text]
        return Hidden(self.dit.img_in(x), cond.embeds), Context(vector, rope, mask=cond.mask)

    def run_block(self, block: Any, hidden: Hidden, context: Context) -> Hidden:
        text, x = block(
            hidden_states=hidden.image,
            encoder_hidden_states=hidden.text,
            encoder_hidden_states_mask=context.mask,
            temb=context.vector,
            image_rotary_emb=context.tables,
        )
        return Hidden(x, text)

    def readout(self, hidden: Hidden, context: Context) -> Tensor:
        return self.dit.proj_out(self.dit.norm_out(hidden.image, context.vector))

    def modulated(self, hidden: Hidden, context: Context) -> Tensor:
        block = self.blocks[0]
        modulation, _ = block.img_mod(context.vector).chunk(2, -1)
        return block._modulate(block.img_norm1(hidden.image), modulation)[0]

    def sites(self, modules: Modules):
        names = ("attn",) if modules == "attention" else ("attn", "img_mlp", "txt_mlp")
        return [getattr(block, name) for block in self.blocks for name in names], []

    def stock_forward(self, x: Tensor, sigma: Tensor, cond: Conditioning, encodings: Encodings) -> Tensor:
        shapes = [[(1, *encodings.grid)]] * len(x)
        time = self.time(sigma, len(x))
        return self.dit(x, timestep=time, img_shapes=shapes, **cond.forward_kwargs, return_dict=False)[0]

    def guide(self, v, cond, encodings, kv=None, rows=None):
        """Classifier-free guidance, rescaled per token to the norm of the prompted velocity."""
        if not cond.guided:
            return v
        v_cond, v_uncond = cond.split(v)
        guided = v_uncond + cond.guidance * (v_cond - v_uncond)
        return guided * (v_cond.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))

    def indicator_macs(self) -> int:
        return macs_per_token(self.blocks[0].img_mod)

    def outer_macs(self, k: int, n: int, text: int, kept_text: bool = False) -> int:
        dit = self.dit
        return k * macs_per_token(dit.img_in, dit.proj_out) + macs_per_token(
            dit.time_text_embed.timestep_embedder, dit.norm_out
        )

    def block_macs(self, block: Any, k: int, n: int, text: int, kept_text: bool = False) -> dict[str, int]:
        a, ran = block.attn, 0 if kept_text else text
        image, added = (a.to_q, a.to_k, a.to_v, a.to_out), (a.add_q_proj, a.add_k_proj, a.add_v_proj)
        pairs = 2 * a.inner_dim * (k + ran) * (n + text)
        return {
            "modulation": macs_per_token(block.img_mod, block.txt_mod),
            "attention": k * macs_per_token(*image) + ran * macs_per_token(*added, a.to_add_out) + pairs,
            "mlp": k * macs_per_token(block.img_mlp) + ran * macs_per_token(block.txt_mlp),
        }


class QwenPipeline(VideoVAEPipeline):
    """diffusers' QwenImagePipeline.

    guidance is its `true_cfg_scale`. The pipeline's own call is guided only if given a negative prompt; here
    the negative prompt defaults to "".
    """

    schedule_depends_on_steps = True
    max_text_tokens = 1024

    @torch.no_grad()
    def encode(self, prompts, negative=None, guidance=None, *, max_sequence_length=None) -> Conditioning:
        guidance = self.default("true_cfg_scale") if guidance is None else guidance
        kwargs_of = partial(self.encode_kwargs, limit=max_sequence_length)
        return self.encode_in_passes(kwargs_of, prompts, negative, guidance)

    def encode_kwargs(self, prompts: Any, limit: int | None) -> dict[str, Tensor]:
        """Encode prompts as keyword arguments of the transformer's forward."""
        embeds, mask = self.pipe.encode_prompt(prompts, max_sequence_length=self.limit(limit))
        forward_kwargs = {"encoder_hidden_states": embeds.to(self.transformer.dtype)}
        if mask is not None:
            forward_kwargs["encoder_hidden_states_mask"] = mask
        return forward_kwargs

    def text_limits(self, max_sequence_length=None):
        end = self.pipe.prompt_template_encode.partition("{}")[2]  # the part before the prompt is dropped
        return [TextLimit(self.pipe.tokenizer, self.limit(max_sequence_length), lambda prompt: prompt + end)]

    def schedule(self, steps: int, grid: Grid) -> dict:
        return super().schedule(steps, grid) | {"sigmas": np.linspace(1.0, 1 / steps, steps)}


IMAGE: Architecture = {
    "pipeline": ("QwenImagePipeline", {}),
    "transformer": ("QwenImageTransformer2DModel", {"num_layers": 60}),  # else the class's defaults
    "vae": ("AutoencoderKLQwenImage", {}),
    "scheduler": (
        "FlowMatchEulerDiscreteScheduler",
        {
            "use_dynamic_shifting": True,
            "base_shift": 0.5,
            "max_shift": 0.9,
            "max_image_seq_len": 8192,
            "shift_terminal": 0.02,
        },
    ),
    "text_encoder": (
        "Qwen2_5_VLForConditionalGeneration",
        {
            "text_config": {
                "vocab_size": 512,
                "hidden_size": 3584,
                "intermediate_size": 18944,
                "num_hidden_layers": 2,
                "num_attention_heads": 28,
                "num_key_value_heads": 4,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
            },
            "vision_config": {"depth": 1, "hidden_size": 64, "num_heads": 4, "out_hidden_size": 3584},
        },
    ),
    "tokenizer": QWEN_IMAGE_TOKENIZER,
}
FAMILY = Family(
    name="qwen",
    pipelines=("QwenImagePipeline",),
    components=("transformer", "vae", "scheduler", "text_encoder", "tokenizer"),
    transformer=QwenTransformer,
    pipeline=QwenPipeline,
    processor=QwenAttention,
    sizes={"qwen_image": Size(IMAGE, (28.9, 21.2), 20430)},
)
