"""The three embedded pipelines, untrained: stock diffusers classes at a size that two CPU cores can run.

The autoencoder downsamples by 4 and patches are 2 x 2, so 128 px are 16 x 16 tokens.
"""

import re
from collections.abc import Callable
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.lumina_nextdit2d import LuminaNextDiT2DModel
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from diffusers.pipelines.lumina.pipeline_lumina import LuminaPipeline
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import nn

from scripts import words

# gates and outputs of SD3 and FLUX: initialised to zero, so that each block starts as the identity
MODULATION = r"norm(1|1_context|_out)?\.linear|^proj_out"
LATENT = 32  # sample_size: latents of 128 px


def lumina(vae: AutoencoderKL, hidden: int = 256, layers: int = 6) -> LuminaPipeline:
    """Lumina-Next with grouped-query attention (4 heads, 2 of keys and values).

    LuminaPipeline assumes an autoencoder that downsamples by 8: set `vae_scale_factor` to 4 after loading.
    """
    tokenizer = words.gemma_tokenizer()
    text = words.gemma_text(tokenizer)
    transformer = LuminaNextDiT2DModel(
        sample_size=LATENT,
        in_channels=4,
        hidden_size=hidden,
        num_layers=layers,
        num_attention_heads=hidden // 64,
        num_kv_heads=hidden // 128,
        multiple_of=64,
        learn_sigma=True,
        qk_norm=True,
        cross_attention_dim=text.config.hidden_size,
    )
    nn.init.zeros_(transformer.pad_token)
    for name, gate in transformer.named_parameters():
        if name.endswith(".gate"):
            nn.init.ones_(gate)  # blocks start as identities, but with open gates to the text
    _zero(transformer, r"norm1\.linear|norm_out\.linear_[12]")
    pipe = LuminaPipeline(transformer, FlowMatchEulerDiscreteScheduler(shift=1.5), vae, text, tokenizer)
    pipe.vae_scale_factor = 4
    return pipe


def sd3(vae: AutoencoderKL, heads: int = 3, layers: int = 5) -> StableDiffusion3Pipeline:
    """SD3: two CLIP text encoders concatenated along channels, then T5 along the sequence."""
    tokenizer, t5 = words.clip_tokenizer(), words.t5_tokenizer()
    first, second = (words.clip_text(tokenizer, project=True) for _ in range(2))
    third = words.t5_text(t5)
    transformer = SD3Transformer2DModel(
        sample_size=LATENT,
        in_channels=16,
        num_layers=layers,
        num_attention_heads=heads,
        attention_head_dim=64,
        joint_attention_dim=third.config.d_model,
        caption_projection_dim=64 * heads,
        pooled_projection_dim=2 * words.CLIP,
        out_channels=16,
        pos_embed_max_size=32,
        qk_norm="rms_norm",
    )
    _zero(transformer, MODULATION)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=5.0)
    parts = {"text_encoder": first, "text_encoder_2": second, "text_encoder_3": third}
    tokenizers = {"tokenizer": tokenizer, "tokenizer_2": words.clip_tokenizer(), "tokenizer_3": t5}
    return StableDiffusion3Pipeline(
        transformer=transformer, scheduler=scheduler, vae=vae, **parts, **tokenizers
    )


def flux(vae: AutoencoderKL, heads: int = 3, double: int = 3, single: int = 4) -> FluxPipeline:
    """FLUX without embedded guidance: use `true_cfg_scale` with a negative prompt."""
    tokenizer, t5 = words.clip_tokenizer(), words.t5_tokenizer()
    first: Any = words.clip_text(tokenizer, project=False)
    second = words.t5_text(t5)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=double,
        num_single_layers=single,
        attention_head_dim=64,
        num_attention_heads=heads,
        joint_attention_dim=second.config.d_model,
        pooled_projection_dim=first.config.hidden_size,
        guidance_embeds=False,
        axes_dims_rope=(16, 24, 24),
    )
    _zero(transformer, MODULATION)
    shifts = {"base_shift": 1.15, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **shifts)
    pipe = FluxPipeline(scheduler, vae, first, tokenizer, second, t5, transformer)
    pipe.default_sample_size = LATENT
    return pipe


def _zero(transformer: nn.Module, pattern: str) -> None:
    """Zero the weights and biases of linear layers whose full name ends with the pattern."""
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear) and re.search(rf"(^|\.)({pattern})$", name):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)


PIPELINES: dict[str, Callable[[AutoencoderKL], DiffusionPipeline]] = {
    "lumina": lumina,
    "sd3": sd3,
    "flux": flux,
}
CHANNELS = {"lumina": 4, "sd3": 16, "flux": 16}
