"""Attention processors, one object per attention module, constant over its life: it knows its layer, no more.

They compute what diffusers' own do, bit for bit; `Call.remember` keeps or completes the keys and values.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from diffusers.models.attention_processor import JointAttnProcessor2_0, LuminaAttnProcessor2_0
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor
from torch import Tensor, cat, stack, view_as_complex, view_as_real

from fovea.models.kv import Call


@dataclass(eq=False)
class SD3Attention:
    """Joint attention, image before text; over the image alone in the second attention of SD3.5's blocks."""

    stands_for: ClassVar = (JointAttnProcessor2_0,)

    layer: int
    call: Call

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
        x, e = hidden_states, encoder_hidden_states
        q, k, v = heads(x, attn.heads, attn.to_q, attn.to_k, attn.to_v)
        q, k = normed(attn.norm_q, q), normed(attn.norm_k, k)
        if e is None:
            k, v = self.call.remember(self.layer, k, v, self.call.image)
            return attn.to_out[1](attn.to_out[0](attend(q, k, v).flatten(2)))
        eq, ek, ev = heads(e, attn.heads, attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
        eq, ek = normed(attn.norm_added_q, eq), normed(attn.norm_added_k, ek)
        k, v = self.call.remember(self.layer, cat([k, ek], 1), cat([v, ev], 1), self.call.joint)
        out = attend(cat([q, eq], 1), k, v).flatten(2)  # (b, k + text, width)
        x, e = out[:, : x.shape[1]], out[:, x.shape[1] :]
        return attn.to_out[1](attn.to_out[0](x)), e if attn.context_pre_only else attn.to_add_out(e)


@dataclass(eq=False)
class LuminaAttention:
    """Self-attention over the image with rotary keys, or cross-attention to the text, whose keys have none.

    The stock self-attention mask is all ones and left out: the same result, faster.
    """

    stands_for: ClassVar = (LuminaAttnProcessor2_0,)

    layer: int
    call: Call

    def __call__(
        self,
        attn,
        hidden_states,
        encoder_hidden_states,
        attention_mask: Any = None,
        query_rotary_emb: Any = None,
        key_rotary_emb: Any = None,
        base_sequence_length: int | None = None,
    ):
        q = normed(attn.norm_q, attn.to_q(hidden_states)).unflatten(-1, (attn.heads, -1))
        q = turn(q, query_rotary_emb)
        if key_rotary_emb is None:
            k, v = self.call.text.get(self.layer) or keys_values(attn, encoder_hidden_states)
            return attend(q, k, v, attn_mask=attention_mask[:, None, None].bool(), enable_gqa=True)
        k, v = keys_values(attn, encoder_hidden_states)
        k = turn(k, key_rotary_emb)
        k, v = self.call.remember(self.layer, k, v, self.call.image)
        scale = attn.scale
        if base_sequence_length is not None:  # proportional attention: more keys, sharper softmax
            scale = math.sqrt(math.log(k.shape[1], base_sequence_length)) * scale
        return attend(q, k, v, scale=scale, enable_gqa=True)


@dataclass(eq=False)
class FluxAttention:
    """Attention over text, then image; rotary positions may differ between the images of a batch."""

    stands_for: ClassVar = (FluxAttnProcessor,)

    layer: int
    call: Call
    _attention_backend = None
    _parallel_config = None

    def __call__(
        self,
        attn,
        hidden_states,
        encoder_hidden_states=None,
        attention_mask=None,
        image_rotary_emb: Any = None,
    ):
        x, e = hidden_states, encoder_hidden_states
        q, k, v = heads(x, attn.heads, attn.to_q, attn.to_k, attn.to_v)
        q, k = attn.norm_q(q), attn.norm_k(k)
        if e is not None:
            eq, ek, ev = heads(e, attn.heads, attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
            q, k = cat([attn.norm_added_q(eq), q], 1), cat([attn.norm_added_k(ek), k], 1)
            v = cat([ev, v], 1)
        q, k = rotate(q, *image_rotary_emb), rotate(k, *image_rotary_emb)
        k, v = self.call.remember(self.layer, k, v, self.call.joint)
        out = attend(q, k, v).flatten(2)
        if e is None:
            return out
        e, x = (
            out[:, : e.shape[1]].contiguous(),
            out[:, e.shape[1] :].contiguous(),
        )  # as stock: other kernels else
        return attn.to_out[1](attn.to_out[0](x)), attn.to_add_out(e)


def heads(x: Tensor, n: int, *projections) -> list[Tensor]:
    """x projected, split into n heads: (b, s, n, d) each."""
    return [project(x).unflatten(-1, (n, -1)) for project in projections]


def normed(norm, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


def attend(q: Tensor, k: Tensor, v: Tensor, **options) -> Tensor:
    """Scaled dot-product attention on (b, s, heads, d); torch picks the kernel."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, **options).transpose(1, 2)


def keys_values(attn, x: Tensor) -> tuple[Tensor, Tensor]:
    """Lumina's keys, normed across heads, and values: (b, s, kv heads, d) each."""
    width = attn.to_q.out_features // attn.heads
    k, v = normed(attn.norm_k, attn.to_k(x)), attn.to_v(x)
    return k.unflatten(-1, (-1, width)), v.unflatten(-1, (-1, width))


def turn(x: Tensor, rotations: Tensor) -> Tensor:
    """Rotary embedding of x (b, s, heads, d) by complex rotations (1 or b, s, d / 2)."""
    z = view_as_complex(x.float().unflatten(-1, (-1, 2))) * rotations.unsqueeze(2)
    return view_as_real(z).flatten(3).type_as(x)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x (b, s, heads, d) by cos, sin (s, d) or, unlike diffusers' own, (b, s, d)."""
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = stack([-b, a], -1).flatten(3)
    return (x.float() * cos.unsqueeze(-2) + turned.float() * sin.unsqueeze(-2)).to(x.dtype)
