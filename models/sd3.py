"""Stable Diffusion 3 and 3.5 (arXiv:2403.03206): joint attention over image and text, absolute positions."""

import torch
from diffusers.models.embeddings import get_1d_sincos_pos_embed_from_grid
from torch import Tensor

from models.attention import SD3Attention
from models.model import Model, weights
from models.tokens import Conditioning, Grid, Places, channels_first, pack, unpack


class SD3(Model):
    """Adapter of StableDiffusion3Pipeline. Its time is 1000 sigma."""

    family = "sd3"
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
            max_sequence_length=max_sequence_length or 256,
        )
        self.resident()
        embeds = torch.cat([without, given]) if guided else given
        pooled = torch.cat([pooled_without, pooled]) if guided else pooled
        constants = (self.dit.time_text_embed.text_embedder(pooled),)
        stock = {"encoder_hidden_states": embeds, "pooled_projections": pooled}
        return Conditioning(self.dit.context_embedder(embeds), constants, guided, guidance, stock)

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

    def forward(self, x: Tensor, sigma: Tensor, cond: Conditioning, places: tuple[Tensor, ...]) -> Tensor:
        dit, (table,) = self.dit, places
        vector = self.modulation(dit.time_text_embed, (sigma * 1000).expand(len(x)), cond)
        strip = unpack(x, Grid(1, x.shape[1]), self.patch)  # a convolution, for the stock model's bits
        x = dit.pos_embed.proj(strip).flatten(2).transpose(1, 2)
        x, text = (x + table).to(self.dtype), cond.embeds
        for block in dit.transformer_blocks:
            text, x = block(hidden_states=x, encoder_hidden_states=text, temb=vector)
        return channels_first(dit.proj_out(dit.norm_out(x, vector)), self.patch, self.channels)

    def stock(self, x: Tensor, sigma: Tensor, cond: Conditioning, places: Places) -> Tensor:
        latents = unpack(x, places.grid, self.patch)
        timestep = (sigma * 1000).expand(len(x))
        return pack(self.dit(latents, timestep=timestep, **cond.stock, return_dict=False)[0], self.patch)

    def joint(self, rows: Tensor, n: int, text: int) -> Tensor:
        return torch.cat([rows, torch.arange(n, n + text, device=rows.device).expand(len(rows), -1)], 1)

    def macs(self, k: int, n: int, text: int) -> int:
        dit = self.dit
        image = weights(dit.pos_embed.proj, dit.proj_out)
        total = weights(dit.time_text_embed.timestep_embedder, dit.norm_out)
        for block in dit.transformer_blocks:
            a, again = block.attn, block.attn2
            image += weights(a.to_q, a.to_k, a.to_v, a.to_out, block.ff, again)
            total += weights(block.norm1, block.norm1_context)
            total += text * weights(a.add_q_proj, a.add_k_proj, a.add_v_proj, a.to_add_out, block.ff_context)
            total += 2 * a.inner_dim * ((k + text) * (n + text) + (k * n if again is not None else 0))
        return total + k * image
