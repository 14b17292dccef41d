"""Configurations of components shared by the families' public checkpoints; see `family.Size`."""

from typing import Any

# special token ids of the tokenizers in random_weights.py, for the text encoders' configs
CLIP_IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
GEMMA_IDS = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
QWEN_IDS = {"pad_token_id": 0, "eos_token_id": 2, "bos_token_id": None}
MISTRAL_IDS = {"pad_token_id": 3, "eos_token_id": 2, "bos_token_id": 1}


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
GEMMA2_2B = (
    "Gemma2Model",  # else the class's defaults
    {"vocab_size": 128, "num_hidden_layers": 2, **GEMMA_IDS},
)
QWEN2_TOKENIZER = ("Qwen2Tokenizer", {"model_max_length": 131072})
# words of the template that the pipelines of Qwen-Image and Krea 2 prepend to prompts and drop again; each
# must be one token
SYSTEM = (
    "system Describe _the _image _by _detailing _color _shape _size _texture _quantity _text _spatial "
    "_relationships _of _objects _and _background user assistant"
)
QWEN_IMAGE_TOKENIZER = ("Qwen2Tokenizer", {"words": SYSTEM.replace("_", "\u0120").split()})
PIXTRAL_PROCESSOR = ("PixtralProcessor", {})
NARROW = {"intermediate_size": 64, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 64}


def qwen3(kind: str, width: int, layers: int) -> tuple[str, dict[str, Any]]:
    return kind, {
        "vocab_size": 259,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "tie_word_embeddings": True,
        **NARROW,
        **QWEN_IDS,
    }


def qwen3_vl(width: int, layers: int) -> tuple[str, dict[str, Any]]:
    text = {
        "vocab_size": 512,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [12, 10, 10]},
        **NARROW,
    }
    vision = {
        "depth": 1,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_heads": 1,
        "out_hidden_size": width,
        "deepstack_visual_indexes": [0],
    }
    return "Qwen3VLModel", {"text_config": text, "vision_config": vision}


def mistral3(width: int, layers: int) -> tuple[str, dict[str, Any]]:
    text = {
        "model_type": "mistral",
        "vocab_size": 267,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "tie_word_embeddings": True,
        **NARROW,
        **MISTRAL_IDS,
    }
    vision = {
        "model_type": "pixtral",
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "head_dim": 64,
    }
    return "Mistral3ForConditionalGeneration", {
        "text_config": text,
        "vision_config": vision,
        "image_token_index": 8,
    }


MISTRAL_SMALL = mistral3(5120, 31)
