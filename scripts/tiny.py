"""The three embedded pipelines, untrained: stock diffusers classes at a size that two CPU cores can run.

Tokens: x4 autoencoder and patches of 2, so 128 px are 16 x 16 tokens.
"""

from collections.abc import Callable

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    LuminaNextDiT2DModel,
    LuminaPipeline,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from torch import nn

from scripts import words

LATENT = 32  # sample_size: latents of 128 px


def lumina(vae: AutoencoderKL, hidden: int = 256, layers: int = 6) -> LuminaPipeline:
    """Lumina-Next with grouped-query attention (4 heads, 2 of keys and values).

    LuminaPipeline takes the autoencoder for an x8 one; `vae_scale_factor` has to be set to 4 after loading.
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
    with torch.no_grad():  # blocks start as identities that already listen to the text
        transformer.pad_token.zero_()
        for layer in transformer.layers:
            layer.gate.fill_(1.0)
            _zero(layer.norm1.linear)
        _zero(transformer.norm_out.linear_1, transformer.norm_out.linear_2)
    pipe = LuminaPipeline(transformer, FlowMatchEulerDiscreteScheduler(shift=1.5), vae, text, tokenizer)
    pipe.vae_scale_factor = 4
    return pipe


def sd3(vae: AutoencoderKL, heads: int = 3, layers: int = 5) -> StableDiffusion3Pipeline:
    """SD3: two CLIP text encoders side by side in the channels, T5 after them in the sequence."""
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
        pooled_projection_dim=first.config.projection_dim + second.config.projection_dim,
        out_channels=16,
        pos_embed_max_size=32,
        qk_norm="rms_norm",
    )
    for block in transformer.transformer_blocks:
        _zero(block.norm1.linear, block.norm1_context.linear)
    _zero(transformer.norm_out.linear, transformer.proj_out)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.5)
    parts = {"text_encoder": first, "text_encoder_2": second, "text_encoder_3": third}
    tokenizers = {"tokenizer": tokenizer, "tokenizer_2": words.clip_tokenizer(), "tokenizer_3": t5}
    return StableDiffusion3Pipeline(
        transformer=transformer, scheduler=scheduler, vae=vae, **parts, **tokenizers
    )


def flux(vae: AutoencoderKL, heads: int = 3, double: int = 3, single: int = 4) -> FluxPipeline:
    """FLUX without embedded guidance: use `true_cfg_scale` with a negative prompt."""
    tokenizer, t5 = words.clip_tokenizer(), words.t5_tokenizer()
    first, second = words.clip_text(tokenizer, project=False), words.t5_text(t5)
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
    for block in transformer.transformer_blocks:
        _zero(block.norm1.linear, block.norm1_context.linear)
    for block in transformer.single_transformer_blocks:
        _zero(block.norm.linear)
    _zero(transformer.norm_out.linear, transformer.proj_out)
    shifts = {"base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **shifts)
    pipe = FluxPipeline(scheduler, vae, first, tokenizer, second, t5, transformer)
    pipe.default_sample_size = LATENT
    return pipe


def _zero(*linears: nn.Linear) -> None:
    for linear in linears:
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)


PIPELINES: dict[str, Callable[[AutoencoderKL], DiffusionPipeline]] = {
    "lumina": lumina,
    "sd3": sd3,
    "flux": flux,
}
CHANNELS = {"lumina": 4, "sd3": 16, "flux": 16}
