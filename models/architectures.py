"""The public checkpoints' architectures, from their configs: what `weights=random` builds.

The denoiser and the autoencoder are of full size. Text encoders have full width, for the right text
embeddings, but two layers and the vocabulary of the tokenizers made here: their time is not what such a run
measures.
"""

from typing import Any

from fovea.models.random_weights import CLIP_IDS, GEMMA_IDS, Architecture


def vae(channels: int, scale: float, shift: float | None, quant: bool) -> tuple[str, dict[str, Any]]:
    return "AutoencoderKL", {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "latent_channels": channels,
        "sample_size": 1024,
        "scaling_factor": scale,
        "shift_factor": shift,
        "use_quant_conv": quant,
        "use_post_quant_conv": quant,
    }


def clip(kind: str, width: int, heads: int) -> tuple[str, dict[str, Any]]:
    return kind, {
        "vocab_size": 514,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "projection_dim": width,
        **CLIP_IDS,
    }


CLIP_TOKENIZER = ("CLIPTokenizer", {"model_max_length": 77})
T5_TOKENIZER = ("T5Tokenizer", {"model_max_length": 512})
T5_XXL = (
    "T5EncoderModel",
    {
        "vocab_size": 128,
        "d_model": 4096,
        "d_kv": 64,
        "d_ff": 10240,
        "num_layers": 2,
        "num_heads": 64,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    },
)
GEMMA_2B = (
    "GemmaModel",
    {
        "vocab_size": 128,
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "head_dim": 256,
        **GEMMA_IDS,
    },
)
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
SD3: Architecture = {
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
LUMINA: Architecture = {
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
FLUX: Architecture = {
    "pipeline": ("FluxPipeline", {}),
    "transformer": ("FluxTransformer2DModel", {"guidance_embeds": True}),  # the class's defaults are FLUX.1's
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
SCHNELL: Architecture = FLUX | {
    "transformer": ("FluxTransformer2DModel", {"guidance_embeds": False}),
    "scheduler": ("FlowMatchEulerDiscreteScheduler", {"shift": 1.0}),
}
ARCHITECTURES = {
    "sd3": SD3,
    "sd35": SD3 | {"transformer": ("SD3Transformer2DModel", SD35_TRANSFORMER)},
    "sd35_large": SD3 | {"transformer": ("SD3Transformer2DModel", SD35_LARGE_TRANSFORMER)},
    "lumina": LUMINA,
    "flux": FLUX,
    "flux_schnell": SCHNELL,
}
