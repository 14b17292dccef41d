"""How a metric's network runs: device, precision and batches."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from fovea.eval import Unavailable

Device = Literal["auto", "cpu", "cuda"]
CENTRE, SPREAD = (
    (0.48145466, 0.4578275, 0.40821073),  # of CLIP's training images, RGB in [0, 1]
    (0.26862954, 0.26130258, 0.27577711),
)


def place(device: Device) -> str:
    """Resolve the device; `auto` is the GPU if there is one. Raises Unavailable for a missing GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        raise Unavailable("device=cuda, but torch sees no GPU here", "leave it at `auto`, or `cpu`")
    return device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def exact_float32() -> Any:
    """Return a context without cuDNN's TF32, which is on by default and changes the third digit."""
    return torch.backends.flags(fp32_precision="ieee")


@torch.inference_mode()
def in_batches(run: Callable[..., Tensor], n: int, batch: int, *inputs: Any) -> Tensor:
    """Run run(inputs[0][i:j], inputs[1][i:j], ...) over n items, `batch` at a time; float32 on the CPU."""
    with exact_float32():
        steps = range(0, n, batch)
        return torch.cat([run(*(x[i : i + batch] for x in inputs)).float().cpu() for i in steps])
