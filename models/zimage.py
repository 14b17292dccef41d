"""Z-Image (arXiv:2511.22699): one stream of image and text after separate refiners; rotary positions."""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, cat
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from fovea.models.attention import (
    Processor,
    apply_complex_rotary,
    apply_norm,
    project_heads,
    rotary_angles,
    update_cache,
)
from fovea.models.block_runs import Modules
from fovea.models.components import vae
from fovea.models.family import Architecture, Family, Size
from fovea.models.forward import ensure_on_device
from fovea.models.hidden import Context, Hidden
from fovea.models.kv import flat_rows
from fovea.models.pipeline import Pipeline
from fovea.models.settings import check_guided_to_the_end, check_scale, negative_prompts
from fovea.models.text_limits import TextLimit
from fovea.models.tokens import Conditioning, Encodings, Grid, channels_first, channels_last, pack, unpack
from fovea.models.transformer import BlockInputs, Transformer, macs_per_token


@dataclass(eq=False)
class ZImageAttention(Processor):
    """Attention over the whole stream, or over the image alone in the noise refiner."""

    replaces: ClassVar = ("ZSingleStreamAttnProcessor",)
    masked: ClassVar = True

    image_only: bool = False

    def __call__(
        self,
        attn,
        hidden_states,
        encoder_hidden_states=None,
        attention_mask=None,
        freqs_cis: Any = None,
    ):
        q, k, v = project_heads(hidden_states, attn.heads, attn.to_q, attn.to_k, attn.to_v)
        q, k = (
            apply_complex_rotary(apply_norm(attn.norm_q, q), freqs_cis),
            apply_complex_rotary(apply_norm(attn.norm_k, k), freqs_cis),
        )
        k, v = self.call_eager(update_cache, self, k, v, "image" if self.image_only else "joint")
        mask = None if attention_mask is None else attention_mask[:, None, None]
        out = self.attend(q, k, v, attn_mask=mask).flatten(2)
        return attn.to_out[1](attn.to_out[0](out))


class ZImageTransformer(Transformer):
    """ZImageTransformer2DModel. Its time is 1 - sigma, so the output is negated.

    The stream is image, padding, text; `Hidden.text` is everything after the image. The image is padded with
    a learned token to a multiple of 32. So is each prompt, with a mask for what follows its padding. A sparse
    call runs the padding with the text, or keeps both. The text is constant over a trajectory until the
    blocks, so its refiner runs once; the noise refiner runs with the embedding, before the first block.
    """

    padding_multiple = 32

    def __init__(self, pipe: Any, *args: Any) -> None:
        super().__init__(pipe, *args)
        self.latent_dtype = torch.float32  # as in the pipeline, whatever the transformer's dtype
        self.max_side = min(self.dit.axes_lens[1:])
        for block in self.dit.noise_refiner:
            block.attention.processor.image_only = True

    @staticmethod
    def patch_and_channels(dit: Any) -> tuple[int, int]:
        return 2, dit.in_channels

    @property
    def outer_layers(self) -> tuple[Any, Any]:
        """The patch embedding and the readout."""
        return self.dit.all_x_embedder["2-1"], self.dit.all_final_layer["2-1"]

    def padding(self, n: int) -> int:
        return -n % self.padding_multiple

    def condition(self, forward_kwargs, guided, guidance):
        ensure_on_device(self.dit)
        prompts = forward_kwargs["cap_feats"]
        captions = [cat([text, text[-1:].expand(self.padding(len(text)), -1)]) for text in prompts]
        sizes = [len(text) for text in captions]
        padded_lengths, lengths = (torch.tensor([[*map(len, texts)]]).mT for texts in (captions, prompts))
        at = torch.arange(max(sizes))
        padded = pad_sequence([*self.dit.cap_embedder(cat(captions)).split(sizes)], batch_first=True)
        embeds = torch.where((at >= lengths).to(self.device)[..., None], self.dit.cap_pad_token, padded)
        valid = (at < padded_lengths).to(self.device)
        embeds = embeds * valid[..., None]
        mask = None if len({*sizes}) == 1 else valid
        frame = self.rotations(0, at + 1)
        still = frame.new_ones(len(at), sum(self.dit.axes_dims[1:]) // 2)
        text = cat([frame, still], 1).expand(len(sizes), -1, -1)
        for block in self.dit.context_refiner:
            embeds = block(embeds, mask, text)
        embeds = torch.where(valid[..., None], embeds, 0)
        tables = self.rotations(0, padded_lengths + 1), text
        return Conditioning(embeds, (), guided, guidance, forward_kwargs, mask, tables=tables)

    def rotations(self, axis: int, at: Tensor) -> Tensor:
        """Return complex rotations (..., d / 2) of one axis, computed on the CPU like the model's table."""
        angles = rotary_angles(at, self.dit.axes_dims[axis], self.dit.rope_theta).float()
        return torch.polar(torch.ones_like(angles), angles).to(self.device)

    def encodings(self, grid: Grid, positions: Tensor | None = None) -> Encodings:
        """Return rotations by row and column. The first position axis of the image is its prompt's length."""
        at = grid.positions()[None] if positions is None else positions
        table = cat([self.rotations(axis, at[..., axis - 1]) for axis in (1, 2)], -1)
        return Encodings(grid, (table,), positions)

    def time(self, sigma: Tensor, b: int) -> Tensor:
        return (1000 - (sigma * 1000).expand(b)) / 1000

    def list_blocks(self):
        return [*self.dit.layers]

    @torch.no_grad()
    def prepare(self, x, sigma, cond, encodings, rows=None, keep_text=False) -> BlockInputs:
        """Append the padding, which depends on all tokens, whichever are evaluated."""
        padding = self.padding(x.shape[1])
        frame, text = cond.tables
        still = text.new_ones(len(text), padding, text.shape[2])  # padding is at (0, 0, 0)
        mask = None if cond.mask is None else F.pad(cond.mask, (x.shape[1] + padding, 0), value=True)
        cond = replace(cond, tables=(frame, cat([still, text], 1)), mask=mask)
        return super().prepare(x, sigma, cond, encodings, rows, keep_text)

    def without_text(self, cond: Conditioning) -> Conditioning:
        frame, after = cond.tables
        return replace(super().without_text(cond), tables=(frame, after[:, :0]))

    def embed(self, x: Tensor, sigma: Tensor, cond: Conditioning, tables: tuple[Tensor, ...]) -> BlockInputs:
        (table,), (frame, after), k = tables, cond.tables, x.shape[1]
        padding = after.shape[1] - cond.text
        vector = self.dit.t_embedder(self.time(sigma, len(x)) * self.dit.t_scale).type_as(x)
        table = table.expand(len(x), -1, -1)
        rope = cat([cat([frame.expand(-1, k, -1), table], -1), after], 1)
        x = channels_last(x, self.patch)
        x = self.outer_layers[0](cat([x, x[:, -1:].expand(-1, padding, -1)], 1))  # stock size, to match bits
        x = cat([x[:, :k], self.dit.x_pad_token.expand(len(x), padding, -1)], 1)
        for block in self.dit.noise_refiner:
            x = block(x, None, rope[:, : k + padding], vector)
        return Hidden(x[:, :k], cat([x[:, k:], cond.embeds], 1)), Context(vector, (rope,), mask=cond.mask)

    def run_block(self, block: Any, hidden: Hidden, context: Context) -> Hidden:
        k = hidden.image.shape[1]
        x = block(self.stream(hidden), context.mask, context.tables[0], context.vector)
        return Hidden(x[:, :k], x[:, k:])

    def stream(self, hidden: Hidden) -> Tensor:
        return hidden.image if hidden.text is None else cat([hidden.image, hidden.text], 1)

    def readout(self, hidden: Hidden, context: Context) -> Tensor:
        x = self.outer_layers[1](self.stream(hidden), c=context.vector)[:, : hidden.image.shape[1]]
        return -channels_first(x, self.patch, self.channels)

    def compared(self, hidden: Hidden, context: Context) -> Tensor:
        """Return the whole stream, which is the state that cache-dit's and diffusers' caches compare."""
        x = self.stream(hidden)
        return x if context.mask is None else x * context.mask[..., None]

    def modulated(self, hidden: Hidden, context: Context) -> Tensor:
        first = self.blocks[0]
        change = first.adaLN_modulation(context.vector).unsqueeze(1).chunk(4, dim=2)[0]
        return first.attention_norm1(hidden.image) * (1 + change)

    def indicator_macs(self) -> int:
        return macs_per_token(self.blocks[0].adaLN_modulation)

    def sites(self, modules: Modules):
        names = ("attention",) if modules == "attention" else ("attention", "feed_forward")
        return [getattr(block, name) for block in self.blocks for name in names], []

    def stock_forward(self, x: Tensor, sigma: Tensor, cond: Conditioning, encodings: Encodings) -> Tensor:
        latents = unpack(x, encodings.grid, self.patch).unsqueeze(2)
        out = self.dit([*latents], self.time(sigma, len(x)), **cond.forward_kwargs, return_dict=False)[0]
        return -pack(torch.stack(out).squeeze(2), self.patch)

    def slots(self, rows, size, text, keep_text=False):
        if rows is None:
            return super().slots(rows, size, text)
        b, n = size
        rows, padding = rows.repeat(b // len(rows), 1), self.padding(n)
        image, joint = (self.joint_rows(rows, n, more, keep_text) for more in (padding, padding + text))
        return {"image": flat_rows(image, n + padding), "joint": flat_rows(joint, n + padding + text)}

    def guide(self, v, cond, encodings, kv=None, rows=None):
        """Return cond + g (cond - uncond) in float32; its norm is at most `norm_limit` times cond's."""
        if not cond.guided:
            return v.float()
        v_cond, v_uncond = cond.split(v.float())
        guided = v_cond + cond.guidance * (v_cond - v_uncond)
        if math.isinf(cond.norm_limit):
            return guided
        most, norm = (torch.linalg.vector_norm(t, dim=(1, 2), keepdim=True) for t in (v_cond, guided))
        most = most * cond.norm_limit
        return guided * torch.where(norm > most, most / norm, 1)

    def outer_macs(self, k: int, n: int, text: int, kept_text: bool = False) -> int:
        embedder, readout = self.outer_layers
        tokens = k + (0 if kept_text else self.padding(n))
        stream = tokens + (0 if kept_text else text)
        macs = (self.block_macs(block, k, n, 0, kept_text) for block in self.dit.noise_refiner)
        outer = tokens * macs_per_token(embedder) + stream * macs_per_token(readout.linear)
        outer += macs_per_token(self.dit.t_embedder, readout.adaLN_modulation)
        return outer + sum(sum(each.values()) for each in macs)

    def block_macs(self, block: Any, k: int, n: int, text: int, kept_text: bool = False) -> dict[str, int]:
        after = self.padding(n) + text
        stream = k if kept_text else k + after
        return {
            "modulation": macs_per_token(block.adaLN_modulation),
            "attention": stream * macs_per_token(block.attention) + 2 * block.dim * stream * (n + after),
            "mlp": stream * macs_per_token(block.feed_forward),
        }


class ZImagePipeline(Pipeline):
    """diffusers' ZImagePipeline. The guidance halves are (with, without) the prompt.

    The guided velocity is cond + g (cond - uncond): any g above 0 is guidance, and g = 1 corresponds to 2
    in other families. `cfg_normalization` limits its norm relative to the prompted velocity's, over the
    evaluated tokens.
    """

    encode_options = ("max_sequence_length", "cfg_normalization", "cfg_truncation")

    @classmethod
    def guides(cls, guidance, transformer, pipeline):
        return guidance > 0

    @torch.no_grad()
    def encode(
        self,
        prompts,
        negative=None,
        guidance=None,
        *,
        max_sequence_length=None,
        cfg_normalization=None,
        cfg_truncation=None,
    ) -> Conditioning:
        ratio = float(cfg_normalization) if isinstance(cfg_normalization, bool) else cfg_normalization
        check_scale("cfg_normalization", ratio)
        check_guided_to_the_end("cfg_truncation", cfg_truncation)
        guidance = self.default("guidance_scale") if guidance is None else guidance
        guided = self.guided(guidance)
        negative = negative_prompts(negative, len(prompts))
        prompt_embeds, negative_embeds = self.pipe.encode_prompt(
            [*prompts],
            do_classifier_free_guidance=guided,
            negative_prompt=negative,
            max_sequence_length=self.limit(max_sequence_length),
        )
        cond = self.transformer.condition({"cap_feats": [*prompt_embeds, *negative_embeds]}, guided, guidance)
        return replace(cond, norm_limit=ratio or math.inf)

    def text_limits(self, max_sequence_length=None):
        tokenizer = self.pipe.tokenizer

        def template(prompt: str) -> str:
            chat = [{"role": "user", "content": prompt}]
            return tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=True, enable_thinking=True
            )

        return [TextLimit(tokenizer, self.limit(max_sequence_length), template)]

    def schedule(self, steps: int, grid: Grid) -> dict:
        return super().schedule(steps, grid) | {"sigmas": torch.linspace(1.0, 1 / steps, steps).tolist()}

    @property
    def default_size(self) -> int:
        return 1024  # hard-coded in the pipeline's call


QWEN3_4B = (
    "Qwen3Model",
    {
        "vocab_size": 259,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 2,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
)


def size(shift: float) -> Size:
    architecture: Architecture = {
        "pipeline": ("ZImagePipeline", {}),
        # the class's defaults match Z-Image
        "transformer": ("ZImageTransformer2DModel", {"axes_lens": (1536, 512, 512)}),
        "vae": vae(16, 0.3611, 0.1159, False),
        "scheduler": ("FlowMatchEulerDiscreteScheduler", {"shift": shift}),
        "text_encoder": QWEN3_4B,
        "tokenizer": ("Qwen2Tokenizer", {}),
    }
    return Size(architecture, (10.3, 6.4), 6155)


FAMILY = Family(
    name="zimage",
    pipelines=("ZImagePipeline",),
    components=("transformer", "vae", "scheduler", "text_encoder", "tokenizer"),
    transformer=ZImageTransformer,
    pipeline=ZImagePipeline,
    processor=ZImageAttention,
    sizes={"z_image": size(6.0), "z_image_turbo": size(3.0)},
)
