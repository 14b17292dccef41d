"""The description of a family of models; each is in the family's own file as `FAMILY`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fovea.models.pipeline import Pipeline
from fovea.models.transformer import Transformer

Architecture = dict[str, tuple[str, dict[str, Any]]]  # component -> class name, configuration


@dataclass(frozen=True)
class Size:
    """Architecture of a public checkpoint, for `weights=random`.

    All is full size, except that text encoders have two layers (or, where the pipeline reads intermediate
    states, narrow layers) and the vocabulary of the tokenizers built here. Their embedding width is full, so
    text embeddings have the right shape; their run time is not representative.

    billions: parameters in billions, of the public checkpoint and of this one.
    millions: parameters in millions of the transformer, as published.
    """

    architecture: Architecture
    billions: tuple[float, float]
    millions: int


@dataclass(frozen=True)
class Family:
    """A family of models.

    pipelines: name of the diffusers class, followed by older names used in checkpoints.
    components: components that the pipeline must have.
    processor: class of the attention processors.
    sizes: public checkpoints by name.
    """

    name: str
    pipelines: tuple[str, ...]
    components: tuple[str, ...]
    transformer: type[Transformer]
    pipeline: type[Pipeline]
    processor: Any
    sizes: Mapping[str, Size]
