"""Train a small AutoencoderKL (x4 down, any size) on crops of emoji scenes.

    python -m scripts.train_vae --channels 4     # for Lumina, with quant convolutions as in SDXL's
    python -m scripts.train_vae --channels 16    # for SD3 and FLUX, with shift and scale as theirs

Writes data/vae{4,16}/ (save_pretrained, with measured scaling and shift) and its log; resumable.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL import Image
from torch import nn

from scripts import drawings, emoji, loop

SIZES = (64, 96, 128, 192, 256)  # px of the scenes that crops are cut from


def build(channels: int, widths: tuple[int, ...] = (24, 48, 96)) -> AutoencoderKL:
    """Return an untrained autoencoder without attention, so that any size works and CPU decoding is cheap."""
    blocks: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "block_out_channels": widths,
    }
    return AutoencoderKL(
        **blocks,
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=8,
        sample_size=128,
        mid_block_add_attention=False,
        use_quant_conv=channels == 4,
        use_post_quant_conv=channels == 4,
    )


def load_matching(vae: nn.Module, other: nn.Module) -> None:
    """Load every weight of another model whose name and shape agree."""
    own = vae.state_dict()
    shared = {k: v for k, v in other.state_dict().items() if k in own and own[k].shape == v.shape}
    vae.load_state_dict(own | shared)


def crops(
    pictures: dict[str, Image.Image], step: int, n: int, size: int = 64, split: str = "vae"
) -> torch.Tensor:
    """Return the batch of a step: crops (n, 3, size, size) in [-1, 1] near a drawing."""
    rng = np.random.default_rng([9, step])
    out = np.empty((n, size, size, 3), np.uint8)
    for i in range(n):
        scene = emoji.scene(split, 0, step * n + i)
        side = int(rng.choice(SIZES))
        image = emoji.paint(scene, pictures, side)
        item = scene.items[0]
        corner = np.array([item.y, item.x]) * side - size / 2 + rng.uniform(-0.5, 0.5, 2) * item.size * side
        y, x = np.clip(corner, 0, side - size).astype(int)
        out[i] = image[y : y + size, x : x + size]
    return torch.from_numpy(out).permute(0, 3, 1, 2).float() / 127.5 - 1


def objective(vae: Any, x: torch.Tensor, noise: torch.Tensor, kl: float) -> torch.Tensor:
    """Return the loss: L1 on pixels and on differences of neighbouring pixels (edges), MSE, and KL.

    x: images (n, 3, h, w) in [-1, 1]. noise: for the latents, (n, channels, h / 4, w / 4).
    """
    with loop.autocast(x.device):
        posterior = vae.encode(x, return_dict=False)[0]
        z = posterior.mean.float() + posterior.std.float() * noise
        y = vae.decode(z, return_dict=False)[0].float()
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    edges = sum((y.diff(dim=d) - x.diff(dim=d)).abs().mean() for d in (2, 3))
    divergence = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
    return (y - x).abs().mean() + 2 * F.mse_loss(y, x) + 0.5 * edges + kl * divergence


@torch.no_grad()
def measure(vae: Any, pictures: dict[str, Image.Image], n: int = 64) -> dict[str, float]:
    """Return the PSNR (dB) on held-out scenes at 128 px, and mean and standard deviation of the latents."""
    where = next(vae.parameters()).device
    scenes = [emoji.paint(emoji.scene("test", 1, i), pictures, 128) for i in range(n)]
    x = torch.from_numpy(np.stack(scenes)).permute(0, 3, 1, 2).to(where).float() / 127.5 - 1
    z = torch.cat([vae.encode(b, return_dict=False)[0].mean for b in x.split(16)])
    y = torch.cat([vae.decode(b, return_dict=False)[0].clamp(-1, 1) for b in z.split(16)])
    mse = ((y - x) / 2).pow(2).mean((1, 2, 3))
    return {"psnr": (-10 * mse.log10()).mean().item(), "mean": z.mean().item(), "std": z.std().item()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--channels", type=int, choices=(4, 16), default=4)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--minutes", type=float, help="train for this long instead of --steps")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=0, help="processes that prefetch painted batches")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--kl", type=float, default=2e-4)
    parser.add_argument(
        "--start", type=Path, help="start from another autoencoder's weights, where shapes agree"
    )
    parser.add_argument("--data", type=Path, default=Path("data"))
    args = parser.parse_args()
    torch.manual_seed(0)
    pictures, folder, where = drawings.load(args.data), args.data / f"vae{args.channels}", loop.device()
    vae = build(args.channels)
    if args.start:
        load_matching(vae, AutoencoderKL.from_pretrained(args.start))
    vae.to(where).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    painted = loop.prefetched(lambda step: crops(pictures, step, args.batch), args.workers)

    def data(step: int, part: float) -> loop.Batch:
        x = painted(step).to(where, memory_format=torch.channels_last)
        generator = torch.Generator(where).manual_seed(step)
        shape = (len(x), args.channels, x.shape[2] // 4, x.shape[3] // 4)
        return {"x": x, "noise": torch.randn(shape, generator=generator, device=where)}

    def loss(x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return objective(vae, x, noise, args.kl)

    def watch(step: int) -> None:
        print(step, measure(vae, pictures), flush=True)

    options = {"steps": args.steps, "minutes": args.minutes, "lr": args.lr}
    averaged = loop.train(vae, data, loss, folder=folder, watch=watch, **options)
    vae.load_state_dict(averaged)
    found = measure(vae.eval(), pictures)
    vae.register_to_config(scaling_factor=1 / found["std"])
    if args.channels == 16:
        vae.register_to_config(shift_factor=found["mean"])
    vae.save_pretrained(folder)
    for old in folder.glob("latents*.npy"):  # encoded by the previous autoencoder
        old.unlink()
    print(found, f"{sum(p.numel() for p in vae.parameters()):,} parameters")


if __name__ == "__main__":
    main()
