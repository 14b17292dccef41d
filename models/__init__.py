"""Adapters for stock diffusers pipelines: a diffusion transformer as a velocity field on tokens.

    with adapt(pipe) as model:                             # SD3, FLUX, Qwen-Image, ...; nothing is copied
        flow = model.flow(["a fox"], generators=[generator("a fox", seed=0)])
        x, kv, sigmas = flow.noise(), flow.new_kv(), flow.sigmas()      # (b, n, c), empty, (steps + 1,)
        v = flow.velocity(x, sigmas[0], kv=kv)             # all tokens; kv stores their keys and values
        v = flow.velocity(x, sigmas[1], kv=kv, rows=rows)  # rows (b, k), which may differ between images
        image = flow.decode(x)                             # (b, 3, h, w) in [0, 1]

On all tokens, Euler steps `x = (x.float() + (sigmas[i + 1] - sigmas[i]) * v).to(v.dtype)` reproduce the
pipeline's own call bit for bit. `generate` does all of this for a list of prompts; `Checkpoint` finds and
loads weights.
"""

from typing import TYPE_CHECKING

from fovea import lazy

if TYPE_CHECKING:
    from fovea.models.adapters import adapt
    from fovea.models.checkpoint import Checkpoint, MissingWeights
    from fovea.models.flow import Flow
    from fovea.models.kv import KV
    from fovea.models.model import Model
    from fovea.models.random_weights import weights_are_random
    from fovea.models.sampling import generate, generator
    from fovea.models.tokens import Conditioning, Encodings, Grid

__all__ = [
    "KV",
    "Checkpoint",
    "Conditioning",
    "Encodings",
    "Flow",
    "Grid",
    "MissingWeights",
    "Model",
    "adapt",
    "generate",
    "generator",
    "weights_are_random",
]

__getattr__ = lazy.names(
    __name__,
    {
        "adapt": "adapters",
        "Checkpoint": "checkpoint",
        "MissingWeights": "checkpoint",
        "Flow": "flow",
        "generate": "sampling",
        "generator": "sampling",
        "KV": "kv",
        "Model": "model",
        "weights_are_random": "random_weights",
        "Conditioning": "tokens",
        "Grid": "tokens",
        "Encodings": "tokens",
    },
)
