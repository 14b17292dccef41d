"""Locate and identify a CLIP model's weights on this machine. Nothing is ever downloaded."""

import hashlib
from functools import lru_cache
from pathlib import Path

from fovea.eval import Unavailable

NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def located(path: str | Path) -> Path:
    """Resolve a relative path against the working directory, or else the repository."""
    here = Path(path).expanduser()
    there = Path(__file__).resolve().parents[1] / here
    return there if there.exists() and not here.exists() else here


@lru_cache(maxsize=16)
def digest(path: Path) -> str:
    """Return the sha256 of a file, read once per process."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def in_folder(folder: Path) -> Path:
    """Return the weights in an open_clip folder, next to its open_clip_config.json."""
    for name in NAMES:
        if (folder / name).is_file() and (folder / "open_clip_config.json").is_file():
            return folder / name
    raise Unavailable(
        f"no open_clip model in {folder} (open_clip_config.json and {NAMES[0]})",
        "give `metric.NAME.backbone.model=local-dir:PATH`; `python -m scripts.train_clip` trains the "
        "embedded one",
    )


def of_tag(model: str, tag: str) -> Path:
    """Return where open_clip itself would have stored the weights of `tag`: the hub cache, or its own."""
    from huggingface_hub import try_to_load_from_cache
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    known = get_pretrained_cfg(model, tag)
    if not known:
        tags = ", ".join(list_pretrained_tags_by_model(model)) or "none, it knows no such model"
        raise Unavailable(
            f"{tag!r} is neither a file nor weights of {model}", f"open_clip's tags for it: {tags}"
        )
    repository, _, file = known.get("hf_hub", "").rpartition("/")
    for name in (file,) if file else NAMES:
        if repository and isinstance(found := try_to_load_from_cache(repository, name), str):
            return Path(found)
    cached = Path("~/.cache/clip").expanduser() / known.get("url", "").rpartition("/")[2]
    if cached.is_file():
        return cached
    raise Unavailable(
        f"the weights {tag!r} of {model} are not on this machine",
        f"fetch them once, `python -c \"import open_clip; open_clip.create_model('{model}', '{tag}')\"`, "
        "or give `metric.NAME.backbone.pretrained=FILE`",
    )


def quick_gelu(model: str, pretrained: str, weights: Path, given: bool | None = None) -> bool:
    """Return whether weights need QuickGELU: by `given`, tag, architecture name, or OpenAI's file hash.

    open_clip only warns if the architecture's name disagrees with the tag, and says nothing for a file; in
    both cases it computes GELU, which changes features by several per cent. Raises Unavailable for a file
    that may need either.
    """
    from open_clip.pretrained import get_pretrained_cfg

    if given is not None:
        return given
    if known := get_pretrained_cfg(model, pretrained):
        return bool(known.get("quick_gelu"))
    published = get_pretrained_cfg(model, "openai")
    if model.endswith("-quickgelu") or f"/{digest(weights)}/" in published.get("url", ""):
        return True
    if published:
        raise Unavailable(
            f"{weights} does not say which activation it was trained with, and {model} is there with both",
            "`metric.NAME.backbone.quick_gelu=true` if it is OpenAI's or was tuned from it, "
            "`metric.NAME.backbone.quick_gelu=false` if not",
        )
    return False


def as_trained(model: str, pretrained: str, weights: Path, given: bool | None = None) -> dict:
    """Return arguments for `open_clip.create_model` that load weights as they were trained."""
    from open_clip.pretrained import get_pretrained_cfg

    known = get_pretrained_cfg(model, pretrained)
    keys = ("mean", "std", "interpolation", "resize_mode")
    return {
        "pretrained": str(weights),
        "force_quick_gelu": quick_gelu(model, pretrained, weights, given),
        "force_preprocess_cfg": {key: known[key] for key in keys if key in known},
    }
