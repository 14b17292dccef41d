"""Tiny stock pipelines with random weights, one per family and SD3.5's variant: `PIPELINES[name](dtype)`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fovea.models import flux2_klein as klein
from fovea.models.components import CLIP_IDS, GEMMA_IDS, mistral3, qwen3_vl
from fovea.models.families import FAMILIES
from fovea.models.flux2 import DEV
from fovea.models.krea2 import FAMILY as KREA2
from fovea.models.lumina2 import IMAGE as LUMINA2
from fovea.models.qwen import IMAGE
from fovea.models.random_weights import build
from fovea.models.tokens import pack


def vae(channels: int, scale: float, shift: float | None, quant: bool):
    return "AutoencoderKL", {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (8,) * 4,
        "layers_per_block": 1,
        "latent_channels": channels,
        "norm_num_groups": 4,
        "scaling_factor": scale,
        "shift_factor": shift,
        "use_quant_conv": quant,
        "use_post_quant_conv": quant,
    }


def clip(kind: str):
    return kind, dict(
        vocab_size=514,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=32,
        **CLIP_IDS,
    )


def t5(width: int):
    return "T5EncoderModel", {
        "vocab_size": 128,
        "d_model": width,
        "d_kv": 8,
        "d_ff": 2 * width,
        "num_layers": 2,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    }


def gemma(kind: str):
    return kind, dict(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=8,
        **GEMMA_IDS,
    )


def sd3(dtype: torch.dtype = torch.float32, **transformer) -> Any:
    config = {
        "sample_size": 32,
        "num_layers": 3,
        "attention_head_dim": 8,
        "num_attention_heads": 4,
        "joint_attention_dim": 64,
        "caption_projection_dim": 32,
        "pooled_projection_dim": 64,
        "pos_embed_max_size": 24,
    }
    architecture = {
        "pipeline": ("StableDiffusion3Pipeline", {}),
        "transformer": ("SD3Transformer2DModel", config | transformer),
        "vae": vae(16, 1.5305, 0.0609, False),
        "scheduler": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
        "text_encoder": clip("CLIPTextModelWithProjection"),
        "text_encoder_2": clip("CLIPTextModelWithProjection"),
        "text_encoder_3": t5(64),
        "tokenizer": ("CLIPTokenizer", {"model_max_length": 77}),
        "tokenizer_2": ("CLIPTokenizer", {"model_max_length": 77}),
        "tokenizer_3": ("T5Tokenizer", {"model_max_length": 512}),
    }
    return quiet(build(architecture, "cpu", dtype))


def sd35(dtype: torch.dtype = torch.float32, **transformer) -> Any:
    return sd3(dtype, **{"qk_norm": "rms_norm", "dual_attention_layers": (0, 1)} | transformer)


def lumina(dtype: torch.dtype = torch.float32, **transformer) -> Any:
    config = {
        "sample_size": 16,
        "hidden_size": 32,
        "num_layers": 3,
        "num_attention_heads": 4,
        "num_kv_heads": 2,
        "multiple_of": 16,
        "cross_attention_dim": 32,
    }
    architecture = {
        "pipeline": ("LuminaPipeline", {}),
        "transformer": ("LuminaNextDiT2DModel", config | transformer),
        "vae": vae(4, 0.13025, None, True),
        "scheduler": ("FlowMatchEulerDiscreteScheduler", {}),
        "text_encoder": gemma("GemmaModel"),
        "tokenizer": ("GemmaTokenizer", {}),
    }
    return quiet(build(architecture, "cpu", dtype))


def flux(dtype: torch.dtype = torch.float32, **transformer) -> Any:
    config = {
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 4,
        "joint_attention_dim": 32,
        "pooled_projection_dim": 32,
        "guidance_embeds": True,
        "axes_dims_rope": (4, 6, 6),
    }
    scheduler = {"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
    architecture = {
        "pipeline": ("FluxPipeline", {}),
        "transformer": ("FluxTransformer2DModel", config | transformer),
        "vae": vae(16, 0.3611, 0.1159, False),
        "scheduler": ("FlowMatchEulerDiscreteScheduler", scheduler),
        "text_encoder": clip("CLIPTextModel"),
        "text_encoder_2": t5(32),
        "tokenizer": ("CLIPTokenizer", {"model_max_length": 77}),
        "tokenizer_2": ("T5Tokenizer", {"model_max_length": 512}),
    }
    return quiet(build(architecture, "cpu", dtype))


QWEN_VAE = ("AutoencoderKLQwenImage", {"base_dim": 8, "z_dim": 16, "num_res_blocks": 1})


def qwen(dtype: torch.dtype = torch.float32, **transformer) -> Any:
    config = {
        "num_layers": 3,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 32,
        "axes_dims_rope": (4, 6, 6),
    }
    text = {
        "vocab_size": 512,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]},
    }
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 4, "out_hidden_size": 32}
    architecture = IMAGE | {
        "transformer": ("QwenImageTransformer2DModel", config | transformer),
        "vae": QWEN_VAE,
        "text_encoder": (
            "Qwen2_5_VLForConditionalGeneration",
            {"text_config": text, "vision_config": vision},
        ),
    }
    pipe = quiet(build(architecture, "cpu", dtype))
    steady(pipe.transformer.time_text_embed.timestep_embedder.linear_2, 2.0)
    return pipe


@torch.no_grad()
def steady(last: Any, constant: float) -> None:
    """Add to the time embedding what is constant over the steps, as the pooled text of other families."""
    last.bias.normal_(0, constant, generator=torch.Generator().manual_seed(0))


def flux2_vae():
    return "AutoencoderKLFlux2", {
        "block_out_channels": (8,) * 4,
        "layers_per_block": 1,
        "norm_num_groups": 4,
    }


def flux2_transformer(**transformer):
    return "Flux2Transformer2DModel", {
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 4,
        "joint_attention_dim": 96,
        "axes_dims_rope": (4, 4, 4, 4),
    } | transformer


def flux2(dtype: torch.dtype = torch.float32, **transformer) -> Any:
    architecture = DEV | {
        "transformer": flux2_transformer(**transformer),
        "vae": flux2_vae(),
        "text_encoder": mistral3(32, 31),
    }
    return quiet(build(architecture, "cpu", dtype))


def flux2_klein(dtype: torch.dtype = torch.float32, distilled: bool = False, **transformer) -> Any:
    architecture = klein.klein(2, 2, 4, 32, distilled) | {
        "transformer": flux2_transformer(**{"guidance_embeds": False} | transformer),
        "vae": flux2_vae(),
    }
    return quiet(build(architecture, "cpu", dtype))


def zimage(dtype: torch.dtype = torch.float32, **transformer) -> Any:
    config = {
        "dim": 32,
        "n_layers": 3,
        "n_refiner_layers": 1,
        "n_heads": 2,
        "n_kv_heads": 2,
        "cap_feat_dim": 32,
        "axes_dims": (4, 6, 6),
        "axes_lens": (600, 64, 64),
        "t_scale": 30.0,  # changes from step to step as small as the other families'
    }
    qwen = {
        "vocab_size": 259,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    architecture = {
        "pipeline": ("ZImagePipeline", {}),
        "transformer": ("ZImageTransformer2DModel", config | transformer),
        "vae": vae(16, 0.3611, 0.1159, False),
        "scheduler": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
        "text_encoder": ("Qwen3Model", qwen),
        "tokenizer": ("Qwen2Tokenizer", {}),
    }
    return quiet(build(architecture, "cpu", dtype))


def lumina2(dtype: torch.dtype = torch.float32, **transformer) -> Any:
    config = {
        "sample_size": 16,
        "hidden_size": 32,
        "num_layers": 3,
        "num_refiner_layers": 1,
        "num_attention_heads": 2,
        "num_kv_heads": 1,
        "multiple_of": 16,
        "axes_dim_rope": (4, 6, 6),
        "axes_lens": (300, 64, 64),
        "cap_feat_dim": 32,
    }
    architecture = LUMINA2 | {
        "transformer": ("Lumina2Transformer2DModel", config | transformer),
        "vae": vae(16, 0.3611, 0.1159, False),
        "scheduler": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
        "text_encoder": gemma("Gemma2Model"),
    }
    pipe = quiet(build(architecture, "cpu", dtype))
    # changes from step to step as large as the other families'; not part of the configuration, so not saved
    pipe.transformer.time_caption_embed.time_proj.scale = 60
    return pipe


def krea2(dtype: torch.dtype = torch.float32, distilled: bool = False, **transformer) -> Any:
    config = {
        "num_layers": 3,
        "attention_head_dim": 16,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "timestep_embed_dim": 32,
        "text_hidden_dim": 32,
        "num_text_layers": 2,
        "text_num_attention_heads": 2,
        "text_num_key_value_heads": 2,
        "text_intermediate_size": 64,
        "num_layerwise_text_blocks": 1,
        "num_refiner_text_blocks": 1,
        "axes_dims_rope": (4, 6, 6),
    }
    architecture = KREA2.sizes["krea2"].architecture | {
        "pipeline": (
            "Krea2Pipeline",
            {"text_encoder_select_layers": (1, 2), "is_distilled": distilled},
        ),
        "transformer": ("Krea2Transformer2DModel", config | transformer),
        "vae": QWEN_VAE,
        "text_encoder": qwen3_vl(32, 2),
    }
    pipe = quiet(build(architecture, "cpu", dtype))
    last = pipe.transformer.time_embed.linear_2
    last.weight.data /= 2  # change from step to step as much as the other families'
    steady(last, 0.4)
    return pipe


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


PIPELINES = {
    "sd3": sd3,
    "sd35": sd35,
    "lumina": lumina,
    "flux": flux,
    "qwen": qwen,
    "flux2_klein": flux2_klein,
    "zimage": zimage,
    "lumina2": lumina2,
    "krea2": krea2,
}


# text tokens of prompts in the tests, where those before and behind the prompt take more than 16
LONGER = {"zimage": 64, "lumina2": 64}


def family_of(pipe: Any) -> str:
    kind = type(pipe).__name__
    return next(name for name, family in FAMILIES.items() if kind in family.pipelines)


def text_limit(pipe: Any) -> dict[str, int]:
    """Option of the pipeline's call that cuts texts; prompts still differ. Lumina-Next's has none."""
    name = family_of(pipe)
    return {} if name == "lumina" else {"max_sequence_length": LONGER.get(name, 16)}


def stock_tokens(pipe: Any, prompts: str | list[str], **options) -> torch.Tensor:
    """Final tokens (b, n, c) of the pipeline's own call."""
    states = []
    # ZImagePipeline writes into the lists it is given
    prompts = [*prompts] if isinstance(prompts, list) else prompts
    options = {name: [*value] if isinstance(value, list) else value for name, value in options.items()}

    def keep(pipe, i, t, state):
        states.append(state["latents"])
        return state

    if type(pipe).__name__ == "Flux2KleinPipeline":  # whose latents are the autoencoder's
        pipe(prompt=prompts, output_type="latent", callback_on_step_end=keep, **options)
        return states[-1]
    latents = pipe(prompt=prompts, output_type="latent", **options).images
    return latents if latents.ndim == 3 else pack(latents, 2)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make this torch's default, as users do to load a model in it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def saved(pipe: Any, folder: Path) -> Path:
    """On disk as any user would save it: nothing says that its weights are random, so it is scored."""
    pipe.save_pretrained(folder)
    index = json.loads((folder / "model_index.json").read_text())
    index.pop("weights", None)
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
