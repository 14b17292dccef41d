"""Tiny CLIP and DINO models on disk in transformers' layout, and open_clip's weights in it."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel


def save_processor(folder: Path, side: int = 32, context: int = 77) -> None:
    """open_clip's own vocabulary as CLIP's tokenizer files, and a preprocessing to `side` pixels."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    folder.mkdir(parents=True, exist_ok=True)
    own = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    words = {own.get(word, word): i for word, i in tokenizer.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(words))
    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__)
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]))
    kept = {"tokenizer_class": "CLIPTokenizer", "model_max_length": context}
    (folder / "tokenizer_config.json").write_text(json.dumps(kept))
    preprocess: dict[str, Any] = {"image_processor_type": "CLIPImageProcessor", "resample": 3}
    preprocess |= {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocess))


def save_transformers_clip(folder: Path, seed: int = 0, act: str = "gelu", context: int = 77) -> Path:
    """A random CLIP of two layers a tower; every weight is random, so that none can be swapped unseen."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": act}
    text = sizes | {"hidden_size": 32, "intermediate_size": 128, "max_position_embeddings": context}
    text |= {"vocab_size": 49408, "eos_token_id": 49407, "bos_token_id": 49406, "projection_dim": 16}
    vision = sizes | {"hidden_size": 32, "intermediate_size": 128, "image_size": 32, "patch_size": 8}
    vision |= {"projection_dim": 16}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    for name, x in model.named_parameters():
        if name != "logit_scale":
            torch.nn.init.normal_(x, std=0.3)
    model.save_pretrained(folder)
    save_processor(folder)
    return folder


def as_open_clip(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a transformers CLIP under open_clip's names."""
    old = CLIPModel.from_pretrained(folder).state_dict()
    new = {"logit_scale": old["logit_scale"], "text_projection": old["text_projection.weight"].T}
    new["positional_embedding"] = old["text_model.embeddings.position_embedding.weight"]
    new["token_embedding.weight"] = old["text_model.embeddings.token_embedding.weight"]
    new["visual.proj"] = old["visual_projection.weight"].T
    new["visual.class_embedding"] = old["vision_model.embeddings.class_embedding"]
    new["visual.positional_embedding"] = old["vision_model.embeddings.position_embedding.weight"]
    new["visual.conv1.weight"] = old["vision_model.embeddings.patch_embedding.weight"]
    for kind in ("weight", "bias"):
        new[f"ln_final.{kind}"] = old[f"text_model.final_layer_norm.{kind}"]
        new[f"visual.ln_pre.{kind}"] = old[f"vision_model.pre_layrnorm.{kind}"]
        new[f"visual.ln_post.{kind}"] = old[f"vision_model.post_layernorm.{kind}"]
        for i, (here, there) in ((i, t) for i in range(2) for t in (("", "text"), ("visual.", "vision"))):
            a, b = f"{here}transformer.resblocks.{i}", f"{there}_model.encoder.layers.{i}"
            parts = [old[f"{b}.self_attn.{p}_proj.{kind}"] for p in "qkv"]
            new[f"{a}.attn.in_proj_{kind}"] = torch.cat(parts)
            new[f"{a}.attn.out_proj.{kind}"] = old[f"{b}.self_attn.out_proj.{kind}"]
            new[f"{a}.ln_1.{kind}"] = old[f"{b}.layer_norm1.{kind}"]
            new[f"{a}.ln_2.{kind}"] = old[f"{b}.layer_norm2.{kind}"]
            new[f"{a}.mlp.c_fc.{kind}"] = old[f"{b}.mlp.fc1.{kind}"]
            new[f"{a}.mlp.c_proj.{kind}"] = old[f"{b}.mlp.fc2.{kind}"]
    return {name: x.contiguous() for name, x in new.items()}
