"""Building blocks of the families' attention processors."""

import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, stack, view_as_complex, view_as_real
from torch.nn.attention import SDPBackend, sdpa_kernel

from fovea.models.kv import Call

KERNELS = {
    "math": SDPBackend.MATH,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


def call_eager(function: Callable[..., Any], *args: Any) -> Any:
    """Call the function, outside the compiled graph if the block is compiled (see `compiler_disabled`).

    Otherwise what differs between layers would be part of the graph, and each block would be recompiled.
    """
    return function(*args)


@cache
def compiler_disabled() -> Callable[..., Any]:
    """Return `call_eager`, excluded from compilation. Lazy, since torch's compiler is slow to import."""
    made: Any = torch.compiler.disable(call_eager)
    return made


@dataclass(eq=False)
class Processor:
    """One attention processor per attention module; it knows its layer and keeps no state of a trajectory.

    It computes what diffusers' own processors named in `replaces` compute, bit for bit; `update_cache` stores
    or completes the keys and values.

    replaced: diffusers' own processor, which is restored when `adapt` ends.
    """

    replaces: ClassVar[tuple[str, ...]]
    masked: ClassVar[bool] = False  # may use an attention mask
    grouped: ClassVar[bool] = False  # may use grouped-query attention
    _attention_backend = None  # these two are read by diffusers
    _parallel_config = None

    layer: int
    call: Call
    kernel: str = "auto"
    call_eager: Callable[..., Any] = call_eager
    replaced: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy of the transformer is not adapted: it has the processor that this one replaced."""
        return deepcopy(self.replaced, memo)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, **options) -> Tensor:
        """Scaled dot-product attention on (b, s, heads, d) with the selected torch kernel."""
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        if self.kernel == "auto":
            return F.scaled_dot_product_attention(q, k, v, **options).transpose(1, 2)
        with sdpa_kernel(KERNELS[self.kernel]):
            return F.scaled_dot_product_attention(q, k, v, **options).transpose(1, 2)


def project_heads(x: Tensor, n: int, *projections) -> list[Tensor]:
    """Apply the projections to x and split each result into n heads: (b, s, n, d)."""
    return [project(x).unflatten(-1, (n, -1)) for project in projections]


def apply_norm(norm, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


def update_cache(
    processor: Processor, k: Tensor, v: Tensor, memory: Literal["joint", "image"]
) -> tuple[Tensor, Tensor]:
    """Return the keys and values (b, s, heads, d) to attend over, given those computed in this call."""
    call = processor.call
    if call.kv is None:
        return k, v
    return call.kv.update(call.pass_index, processor.layer, k, v, getattr(call, memory))


def kernel_unavailable(kernel: str, device: str, dtype: torch.dtype, masked: bool, grouped: bool) -> bool:
    """True if torch has no such kernel for what a processor computes.

    Tries the kernel on a few tokens, with a mask and with grouped queries, which no processor uses at once.
    """
    tried = [(False, True)] * grouped + [(True, False)] * masked
    return any(_lacks(kernel, device, dtype, *need) for need in tried or [(False, False)])


def _lacks(kernel: str, device: str, dtype: torch.dtype, masked: bool, grouped: bool) -> bool:
    q, k = (torch.zeros(1, heads, 16, 64, device=device, dtype=dtype) for heads in (4, 2 if grouped else 4))
    mask = torch.ones(1, 1, 1, 16, device=device, dtype=torch.bool) if masked else None
    with sdpa_kernel(KERNELS[kernel]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about each reason
        try:
            F.scaled_dot_product_attention(q, k, k, attn_mask=mask, enable_gqa=grouped)
        except RuntimeError:
            return True
    return False


def keys_values(attn, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return Lumina's keys, normalised across heads, and values: (b, s, kv heads, d) each."""
    width = attn.to_q.out_features // attn.heads
    k, v = apply_norm(attn.norm_k, attn.to_k(x)), attn.to_v(x)
    return k.unflatten(-1, (-1, width)), v.unflatten(-1, (-1, width))


def rotary_angles(at: Tensor, width: int, theta: float) -> Tensor:
    """Return angles (..., width / 2) of positions on one axis, in float64 on the CPU as in diffusers."""
    rates = 1 / theta ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    return at.cpu().double()[..., None] * rates


def rotary_tables(embed: Callable[[Tensor], tuple[Tensor, Tensor]], ids: Tensor) -> tuple[Tensor, ...]:
    """Return cosines and sines (b, n, d) of positions (b, n, axes), by a model's embedding of (n, axes)."""
    return tuple(t.unflatten(0, ids.shape[:2]) for t in embed(ids.flatten(0, 1)))


def after_text(tables: tuple[Tensor, ...], text: int) -> tuple[Tensor, Tensor]:
    """Prepend text tokens at (0, 0, 0), where the rotation is the identity, to cosines and sines."""
    cos, sin = tables
    still = cos.new_ones(len(cos), text, cos.shape[2])
    return torch.cat([still, cos], 1), torch.cat([torch.zeros_like(still), sin], 1)


def apply_complex_rotary(x: Tensor, rotations: Tensor) -> Tensor:
    """Rotary embedding of x (b, s, heads, d) by complex rotations (s, d / 2) or (1 or b, s, d / 2)."""
    z = view_as_complex(x.float().unflatten(-1, (-1, 2))) * rotations.unsqueeze(-2)
    return view_as_real(z).flatten(3).type_as(x)


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x (b, s, heads, d) by cos, sin (s, d) or, unlike in diffusers, (b, s, d)."""
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = stack([-b, a], -1).flatten(3)
    return (x.float() * cos.unsqueeze(-2) + turned.float() * sin.unsqueeze(-2)).to(x.dtype)
