"""Attention processors that remember: one object per attention module, constant over its life, knowing its layer only.

What they remember lives in a `KV`, made by the method for one trajectory and passed with every velocity call. A dense
call keeps the keys and values it computes anyway; a sparse call writes those of its rows into the same memory, in
place, and attends over all of it. Without a `KV` the processors are diffusers' own, bit for bit.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch.nn.functional as F
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, cat, stack


class KV:
    """Keys and values of all tokens of one trajectory, by attention layer; never copied.

    `size` is (batch with its guidance halves, image tokens), set by the dense call that filled it.
    """

    def __init__(self) -> None:
        self.size: tuple[int, int] | None = None
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for pair in self.layers.values() for t in pair)


@dataclass
class Call:
    """What the processors must know of the velocity call in progress; empty between calls.

    joint, image: rows of a flattened (batch * tokens, width) memory that a sparse call writes, for attention over image
    and text and over the image alone; None in a dense call. text: Lumina's keys and values of the prompt, by layer.
    """

    kv: KV | None = None
    joint: Tensor | None = None
    image: Tensor | None = None
    text: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @contextmanager
    def during(self, **state) -> Iterator[None]:
        try:
            vars(self).update(state)
            yield
        finally:
            vars(self).update(vars(Call()))

    def remember(self, layer: int, k: Tensor, v: Tensor, slots: Tensor | None) -> tuple[Tensor, Tensor]:
        """The keys and values (b, s, heads, d) to attend over, given those computed by this call."""
        if self.kv is None:
            return k, v
        if slots is None:
            self.kv.layers[layer] = k, v
            return k, v
        kept = self.kv.layers[layer]
        for old, new in zip(kept, (k, v), strict=True):
            width = old.shape[2] * old.shape[3]
            old.view(-1, width).index_copy_(0, slots, new.reshape(-1, width))
        return kept


def attend(q: Tensor, k: Tensor, v: Tensor, **options) -> Tensor:
    """Scaled dot-product attention on (b, s, heads, d); `torch` picks the kernel."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, **options).transpose(1, 2)


def normed(norm, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


@dataclass(eq=False)
class SD3Attention:
    """Joint attention, image before text; without text in the second attention of SD3.5's dual blocks."""

    layer: int
    call: Call

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
        x, e = hidden_states, encoder_hidden_states
        q, k, v = (f(x).unflatten(-1, (attn.heads, -1)) for f in (attn.to_q, attn.to_k, attn.to_v))
        q, k = normed(attn.norm_q, q), normed(attn.norm_k, k)
        if e is None:
            k, v = self.call.remember(self.layer, k, v, self.call.image)
            return attn.to_out[1](attn.to_out[0](attend(q, k, v).flatten(2)))
        eq, ek, ev = (
            f(e).unflatten(-1, (attn.heads, -1)) for f in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
        )
        eq, ek = normed(attn.norm_added_q, eq), normed(attn.norm_added_k, ek)
        k, v = self.call.remember(self.layer, cat([k, ek], 1), cat([v, ev], 1), self.call.joint)
        out = attend(cat([q, eq], 1), k, v).flatten(2)  # (b, k + text, heads * d)
        x, e = out[:, : x.shape[1]], out[:, x.shape[1] :]
        return attn.to_out[1](attn.to_out[0](x)), e if attn.context_pre_only else attn.to_add_out(e)


@dataclass(eq=False)
class LuminaAttention:
    """Self-attention over the image with rotary keys, or cross-attention to the text, whose keys have none.

    The stock self-attention mask is all ones and is left out; the result is the same, faster.
    """

    layer: int
    call: Call

    def __call__(
        self,
        attn,
        hidden_states,
        encoder_hidden_states,
        attention_mask=None,
        query_rotary_emb=None,
        key_rotary_emb=None,
        base_sequence_length=None,
    ):
        q = normed(attn.norm_q, attn.to_q(hidden_states)).unflatten(-1, (attn.heads, -1))
        q = apply_rotary_emb(q, query_rotary_emb, use_real=False)
        if key_rotary_emb is None:
            k, v = self.call.text.get(self.layer) or keys_values(attn, encoder_hidden_states)
            return attend(q, k, v, attn_mask=attention_mask[:, None, None].bool(), enable_gqa=True)
        k, v = keys_values(attn, encoder_hidden_states)
        k = apply_rotary_emb(k, key_rotary_emb, use_real=False)
        k, v = self.call.remember(self.layer, k, v, self.call.image)
        scale = attn.scale
        if base_sequence_length is not None:  # proportional attention: more keys, sharper softmax
            scale = math.sqrt(math.log(k.shape[1], base_sequence_length)) * scale
        return attend(q, k, v, scale=scale, enable_gqa=True)


def keys_values(attn, x: Tensor) -> tuple[Tensor, Tensor]:
    """Lumina's keys, normed across heads, and values: (b, s, kv heads, d) each."""
    width = attn.to_q.out_features // attn.heads
    k, v = normed(attn.norm_k, attn.to_k(x)), attn.to_v(x)
    return k.unflatten(-1, (-1, width)), v.unflatten(-1, (-1, width))


@dataclass(eq=False)
class FluxAttention:
    """Attention over text, then image, with rotary positions that may differ between the images of a batch."""

    layer: int
    call: Call
    _attention_backend = None
    _parallel_config = None

    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, image_rotary_emb=None
    ):
        x, e = hidden_states, encoder_hidden_states
        q, k, v = (f(x).unflatten(-1, (-1, attn.head_dim)) for f in (attn.to_q, attn.to_k, attn.to_v))
        q, k = attn.norm_q(q), attn.norm_k(k)
        if e is not None:
            eq, ek, ev = (
                f(e).unflatten(-1, (-1, attn.head_dim))
                for f in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
            )
            q, k = cat([attn.norm_added_q(eq), q], 1), cat([attn.norm_added_k(ek), k], 1)
            v = cat([ev, v], 1)
        q, k = rotate(q, *image_rotary_emb), rotate(k, *image_rotary_emb)
        k, v = self.call.remember(self.layer, k, v, self.call.joint)
        out = attend(q, k, v).flatten(2)
        if e is None:
            return out
        e, x = out[:, : e.shape[1]].contiguous(), out[:, e.shape[1] :].contiguous()
        return attn.to_out[1](attn.to_out[0](x)), attn.to_add_out(e)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x (b, s, heads, d) by cos, sin (s, d) or (b, s, d): diffusers' own has no batch axis."""
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = stack([-b, a], -1).flatten(3)
    return (x.float() * cos.unsqueeze(-2) + turned.float() * sin.unsqueeze(-2)).to(x.dtype)
