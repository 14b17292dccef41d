"""Stable Diffusion 3 and 3.5 (arXiv:2403.03206): joint attention over image and text, absolute positions."""

from typing import Any

import torch
from diffusers.models.embeddings import get_1d_sincos_pos_embed_from_grid
from torch import Tensor

from fovea.models.attention import SD3Attention
from fovea.models.family import Entered, weights
from fovea.models.hidden import Context, Hidden
from fovea.models.model import Model
from fovea.models.opened import Modules
from fovea.models.supported import resident
from fovea.models.text_limits import Reader
from fovea.models.tokens import Conditioning, Grid, Places, channels_first, pack, unpack


class SD3(Model):
    """Adapter of StableDiffusion3Pipeline. Its time is 1000 sigma."""

    family = "sd3"
    parts = ("transformer", "vae", "scheduler", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    processor = SD3Attention
    max_shift = 1.16  # the pipeline's own default

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.patch, self.channels = self.dit.config.patch_size, self.dit.config.in_channels

    @torch.no_grad()
    def encode(self, prompts, negative=None, guidance=None, *, max_sequence_length=None) -> Conditioning:
        guidance = self.default("guidance_scale") if guidance is None else guidance
        guided = guidance > 1
        given, without, pooled, pooled_without = self.pipe.encode_prompt(
            [*prompts],
            None,
            None,
            negative_prompt=negative,
            do_classifier_free_guidance=guided,
            max_sequence_length=256 if max_sequence_length is None else max_sequence_length,
        )
        resident(self.dit)
        embeds = (torch.cat([without, given]) if guided else given).to(self.dtype)
        pooled = (torch.cat([pooled_without, pooled]) if guided else pooled).to(self.dtype)
        constants = (self.dit.time_text_embed.text_embedder(pooled),)
        stock = {"encoder_hidden_states": embeds, "pooled_projections": pooled}
        return Conditioning(self.dit.context_embedder(embeds), constants, guided, guidance, stock)

    def readers(self, max_sequence_length=None):
        pipe, limit = self.pipe, 256 if max_sequence_length is None else max_sequence_length
        clip = [
            Reader(tokenizer, pipe.tokenizer_max_length) for tokenizer in (pipe.tokenizer, pipe.tokenizer_2)
        ]
        return clip if pipe.tokenizer_3 is None else [*clip, Reader(pipe.tokenizer_3, limit)]

    def grid(self, height: int, width: int) -> Grid:
        grid, most = super().grid(height, width), self.dit.pos_embed.pos_embed_max_size
        if max(grid) > most:
            raise ValueError(f"height {height} and width {width} must be at most {most * self.cell} pixels")
        return grid

    def places(self, grid: Grid, positions: Tensor | None = None) -> Places:
        """The model's own table, centred on the grid, at whole positions; its formula between them."""
        embed = self.dit.pos_embed
        side = embed.pos_embed_max_size
        table = embed.pos_embed[0]  # (side * side, d)
        whole = positions is None
        positions = grid.positions(self.device)[None] if positions is None else positions
        at = positions + positions.new_tensor([(side - size) // 2 for size in grid])
        cell = at.round().long().clamp(0, side - 1)
        tabled = table[cell[..., 0] * side + cell[..., 1]]
        if whole:
            return Places(grid, (tabled,), whole)
        scaled = at / (side / embed.base_size) / embed.interpolation_scale
        column, row = (
            get_1d_sincos_pos_embed_from_grid(table.shape[1] // 2, scaled[..., axis].flatten())
            for axis in (1, 0)
        )
        formula = torch.cat([column, row], -1).to(table.dtype).view_as(tabled)
        return Places(grid, (torch.where((at == cell).all(-1, keepdim=True), tabled, formula),), whole)

    def stack(self):
        return [*self.dit.transformer_blocks]

    def embed(self, x: Tensor, sigma: Tensor, cond: Conditioning, tables: tuple[Tensor, ...]) -> Entered:
        dit, (table,) = self.dit, tables
        vector = self.modulation(dit.time_text_embed, (sigma * 1000).expand(len(x)), cond)
        strip = unpack(x, Grid(1, x.shape[1]), self.patch)  # a convolution, for the stock model's bits
        x = dit.pos_embed.proj(strip).flatten(2).transpose(1, 2)
        return Hidden((x + table).to(self.dtype), cond.embeds), Context(vector, ())

    def step(self, block: Any, hidden: Hidden, context: Context) -> Hidden:
        text, x = block(hidden_states=hidden.image, encoder_hidden_states=hidden.text, temb=context.vector)
        return Hidden(x, text)

    def leave(self, hidden: Hidden, context: Context) -> Tensor:
        x = self.dit.proj_out(self.dit.norm_out(hidden.image, context.vector))
        return channels_first(x, self.patch, self.channels)

    def modulated(self, hidden: Hidden, context: Context) -> Tensor:
        return self.blocks[0].norm1(hidden.image, emb=context.vector)[0]

    def sites(self, modules: Modules):
        names = ("attn", "attn2") if modules == "attention" else ("attn", "attn2", "ff", "ff_context")
        found = (getattr(block, name) for block in self.blocks for name in names)
        return [module for module in found if module is not None], []

    def stock(self, x: Tensor, sigma: Tensor, cond: Conditioning, places: Places) -> Tensor:
        latents = unpack(x, places.grid, self.patch)
        timestep = (sigma * 1000).expand(len(x))
        return pack(self.dit(latents, timestep=timestep, **cond.stock, return_dict=False)[0], self.patch)

    def joint(self, rows: Tensor, n: int, text: int) -> Tensor:
        return torch.cat([rows, torch.arange(n, n + text, device=rows.device).expand(len(rows), -1)], 1)

    def outer_macs(self, k: int, text: int) -> int:
        dit = self.dit
        return k * weights(dit.pos_embed.proj, dit.proj_out) + weights(
            dit.time_text_embed.timestep_embedder, dit.norm_out
        )

    def block_macs(self, block: Any, k: int, n: int, text: int) -> dict[str, int]:
        a, again = block.attn, block.attn2
        pairs = (k + text) * (n + text) + (k * n if again is not None else 0)
        attention = k * weights(a.to_q, a.to_k, a.to_v, a.to_out, again) + 2 * a.inner_dim * pairs
        attention += text * weights(a.add_q_proj, a.add_k_proj, a.add_v_proj, a.to_add_out)
        return {
            "modulation": weights(block.norm1, block.norm1_context),
            "attention": attention,
            "mlp": k * weights(block.ff) + text * weights(block.ff_context),
        }
