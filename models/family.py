"""All that is known of one family of models; each stands in its own file as `FAMILY`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fovea.models.pipeline import Pipeline
from fovea.models.transformer import Transformer

Architecture = dict[str, tuple[str, dict[str, Any]]]  # component -> class name, configuration


@dataclass(frozen=True)
class Size:
    """A public checkpoint's architecture, for `weights=random`: full size, but for text encoders of two
    layers, or of narrow ones where the pipeline reads between them, and the vocabulary of the tokenizers made
    here. Their width is full, for the right text embeddings; their time is not what such a run measures.

    billions: of parameters, of the public checkpoint and of this.
    """

    architecture: Architecture
    billions: tuple[float, float]


@dataclass(frozen=True)
class Family:
    """pipelines: names of diffusers' class and of those that old checkpoints call it. parts: components that
    it must have. processor: class of the attention processors. sizes: by name."""

    name: str
    pipelines: tuple[str, ...]
    parts: tuple[str, ...]
    transformer: type[Transformer]
    pipeline: type[Pipeline]
    processor: Any
    sizes: Mapping[str, Size]
