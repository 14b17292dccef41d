"""Where a CLIP model's weights are on this machine, and what they are. Nothing is ever downloaded."""

import hashlib
from functools import lru_cache
from pathlib import Path

from fovea.eval import Unavailable

NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def located(path: str | Path) -> Path:
    """A relative path counts from the working directory, or else from the repository that this file is in."""
    here = Path(path).expanduser()
    there = Path(__file__).resolve().parents[1] / here
    return there if there.exists() and not here.exists() else here


@lru_cache(maxsize=16)
def digest(path: Path) -> str:
    """sha256 of a file, read once per process."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def in_folder(folder: Path) -> Path:
    """The weights in an open_clip folder, beside its open_clip_config.json."""
    for name in NAMES:
        if (folder / name).is_file() and (folder / "open_clip_config.json").is_file():
            return folder / name
    raise Unavailable(
        f"no open_clip model in {folder} (open_clip_config.json and {NAMES[0]})",
        "give `metric.NAME.backbone.model=local-dir:PATH`; `python -m scripts.train_clip` trains the "
        "embedded one",
    )


def of_tag(model: str, tag: str) -> Path:
    """Where open_clip itself would have put the weights that `tag` names: the hub's cache, or its own."""
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
    """Whether weights want QuickGELU: as `given`, or as their tag or the architecture's name says, or by
    being the very file that OpenAI published. Raises Unavailable where a file may want either.

    open_clip only warns if an architecture's name disagrees with the tag, and says nothing for a file; either
    way it computes GELU, which moves features by several per cent.
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
    """Keyword arguments of `open_clip.create_model` that load weights as they were trained."""
    from open_clip.pretrained import get_pretrained_cfg

    known = get_pretrained_cfg(model, pretrained)
    keys = ("mean", "std", "interpolation", "resize_mode")
    return {
        "pretrained": str(weights),
        "force_quick_gelu": quick_gelu(model, pretrained, weights, given),
        "force_preprocess_cfg": {key: known[key] for key in keys if key in known},
    }
