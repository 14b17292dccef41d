"""Train an embedded pipeline (Lumina, SD3, FLUX) as a rectified flow on latents, with its text encoders.

    python -m scripts.train_dit lumina               # writes data/lumina/ and, at the end, assets/lumina_tiny
    python -m scripts.train_dit lumina --export      # export the averaged weights of the last checkpoint

x_sigma = (1 - sigma) x0 + sigma noise, target noise - x0 (arXiv:2403.03206, eq. 13, with its logit-normal
density), sigma shifted as in the pipeline's scheduler. Prompts are encoded as in the pipeline's own
`encode_prompt`, so that training and sampling use the same inputs; one in ten is empty, for classifier-free
guidance.
"""

import argparse
import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from torch import nn
from torch._inductor import config as inductor
from torch.nn.attention import SDPBackend, sdpa_kernel

from scripts import loop, scenes, tiny
from scripts.velocities import Read, Velocity, reading, velocity

# without cuDNN's, which torch may prefer on an H100: its backward pass failed on FLUX's 96 tokens
FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
BATCH = {64: 64, 128: 24, 256: 6}  # images per step, times --batch


# ----------------------------------------------------------------------------------------------- latents


@dataclass(frozen=True)
class Scenes:
    """Training scenes of one size: scaled latents (n, c, size / 4, size / 4), float16, and captions."""

    latents: torch.Tensor
    captions: list[str]


def encoded(vae: AutoencoderKL, folder: Path, size: int, n: int, workers: int = 1) -> Scenes:
    """Return the first n scenes of a size; paint them with `workers` processes and encode them if missing."""
    images, captions = scenes.painted(folder.parent, size, n, workers)
    path = folder / f"latents{size}.npy"
    with scenes.locked(path.with_suffix(".lock")):
        if not path.exists() or len(np.load(path, mmap_mode="r")) < n:
            beside = path.with_suffix(".partial.npy")
            np.save(beside, _encode(vae, images).numpy())
            beside.rename(path)
    return Scenes(torch.from_numpy(np.load(path)[:n]).to(vae.device), captions)


@torch.no_grad()
def _encode(vae: AutoencoderKL, images: np.ndarray) -> torch.Tensor:
    config: Any = vae.config
    shift, some, found = config.shift_factor or 0.0, 2**20 // images.shape[1] ** 2, []
    for first in range(0, len(images), some):
        x = torch.from_numpy(np.array(images[first : first + some])).to(vae.device).permute(0, 3, 1, 2)
        x = (x.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        with loop.autocast(vae.device):
            z = vae.encode(x, return_dict=False)[0].mean
        found.append(((z.float() - shift) * config.scaling_factor).half().cpu())
    return torch.cat(found)


def resolution(progress: float, draw: float, first: float) -> int:
    """Return the size of a step: 64 px until `first`, then mostly 128, some 64 and a few 256."""
    if progress < first:
        return 64
    return 128 if draw < 0.80 else 64 if draw < 0.95 else 256


def sigmas(generator: torch.Generator, n: int, shift: float, uniform: float = 0.1) -> torch.Tensor:
    """Draw noise levels: logit-normal, a share uniform to cover both ends, then the shift.

    Latents of 16 channels need a larger shift than those of 4: they hold the scene so redundantly that the
    caption matters at high noise only.
    """
    drawn: Any = {"generator": generator, "device": generator.device}
    normal = torch.sigmoid(torch.randn(n, **drawn))
    flat = torch.rand(n, **drawn)
    s = torch.where(torch.rand(n, **drawn) < uniform, flat, normal)
    return shift * s / (1 + (shift - 1) * s)


def scheduled_shift(config: Any) -> float:
    """Return the shift that the scheduler samples with, at 256 tokens."""
    return math.exp(config.base_shift) if config.use_dynamic_shifting else config.shift


# ------------------------------------------------------------------------------------------------ saving


def trained(pipe: DiffusionPipeline) -> nn.ModuleDict:
    """Return the trained modules: all with weights except the autoencoder."""
    parts = {k: v for k, v in pipe.components.items() if isinstance(v, nn.Module) and k != "vae"}
    return nn.ModuleDict(parts)


def export(pipe: DiffusionPipeline, weights: dict[str, torch.Tensor], folder: Path) -> None:
    """Save the pipeline with the averaged weights, as float16 safetensors."""
    modules = trained(pipe)
    own = {k: v.clone() for k, v in modules.state_dict().items()}
    modules.load_state_dict(weights)
    for name, tokenizer in pipe.components.items():
        if name.startswith("tokenizer"):  # otherwise those of the last call are saved
            tokenizer.backend_tokenizer.no_padding()
            tokenizer.backend_tokenizer.no_truncation()
    pipe.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    pipe.to(torch.float32)
    modules.load_state_dict(own)


def make(family: str, data: Path) -> DiffusionPipeline:
    """Return the untrained pipeline with the trained autoencoder."""
    torch.manual_seed(0)
    name = f"vae{tiny.CHANNELS[family]}"
    vae = AutoencoderKL.from_pretrained(data / name)
    vae.register_to_config(_name_or_path=f"data/{name}")  # independent of --data
    pipe = tiny.PIPELINES[family](vae).to(loop.device())
    pipe.vae.requires_grad_(False)
    return pipe


def compiled(transformer: nn.Module) -> None:
    """Compile each block in place; halves the time of a step on a CPU."""
    torch._dynamo.config.recompile_limit = 32  # one graph per image size and text length
    # fused on a CPU with AMX, the backward pass of SD3's last block gave NaN for text keys (torch 2.15)
    inductor.cpp.max_horizontal_fusion_size = 0
    for part in transformer.children():
        for block in part if isinstance(part, nn.ModuleList) else ():
            block.compile(dynamic=False)


def as_flux(sd3: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename SD3's weights to FLUX's names.

    T5 is SD3's third encoder and FLUX's second. SD3 outputs patches as (row, column, channel), FLUX as
    (channel, row, column).
    """
    renamed = {k: v for k, v in sd3.items() if "encoder_2." not in k}
    for old, new in (("encoder_3.", "encoder_2."), ("text_encoder.text_model.", "text_encoder.")):
        renamed = {k.replace(old, new): v for k, v in renamed.items()}
    patch = renamed.pop("transformer.pos_embed.proj.weight")  # (d, c, 2, 2)
    renamed["transformer.x_embedder.weight"] = patch.flatten(1)
    renamed["transformer.x_embedder.bias"] = renamed.pop("transformer.pos_embed.proj.bias")
    for name in ("transformer.proj_out.weight", "transformer.proj_out.bias"):
        renamed[name] = renamed[name].unflatten(0, (2, 2, -1)).movedim(2, 0).flatten(0, 2)
    return renamed


def as_sd3(flux: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename FLUX's weights to SD3's names, the inverse of `as_flux`; both CLIP encoders become FLUX's."""
    renamed = {k.replace("text_encoder_2.", "text_encoder_3."): v for k, v in flux.items()}
    for k, v in flux.items():
        if k.startswith("text_encoder."):
            for name in ("text_encoder", "text_encoder_2"):
                renamed[k.replace("text_encoder.", f"{name}.text_model.")] = v
    patch = renamed.pop("transformer.x_embedder.weight")  # (d, c * 2 * 2)
    renamed["transformer.pos_embed.proj.weight"] = patch.unflatten(1, (-1, 2, 2))
    renamed["transformer.pos_embed.proj.bias"] = renamed.pop("transformer.x_embedder.bias")
    for name in ("transformer.proj_out.weight", "transformer.proj_out.bias"):
        renamed[name] = renamed[name].unflatten(0, (-1, 2, 2)).movedim(0, 2).flatten(0, 2)
    return renamed


def load_matching(modules: nn.ModuleDict, family: str, other: DiffusionPipeline) -> int:
    """Load the weights of a trained pipeline where names and shapes agree; return their number. SD3 and FLUX
    can start from each other."""
    weights = trained(other).state_dict()
    if family == "flux" and isinstance(other, StableDiffusion3Pipeline):
        weights = as_flux(weights)
    if family == "sd3" and isinstance(other, FluxPipeline):
        weights = as_sd3(weights)
    own = modules.state_dict()
    found = {k: v for k, v in weights.items() if k in own and own[k].shape == v.shape}
    modules.load_state_dict(own | found)
    return len(found)


def objective(pipe: Any, args: argparse.Namespace) -> tuple[loop.Data, loop.Loss]:
    """Return the data of a step, scenes and noise, and its loss, which never synchronises with the GPU."""
    where, folder = pipe.transformer.device, args.data / f"vae{tiny.CHANNELS[args.family]}"
    shift = args.shift or scheduled_shift(pipe.scheduler.config)
    # on a CPU the fused backward pass is slow
    kernels = [SDPBackend.MATH] if where.type == "cpu" or args.plain else FUSED

    @functools.cache
    def known(size: int) -> Scenes:
        return encoded(pipe.vae, folder, size, round(args.scenes * scenes.COUNTS[size]), args.workers)

    @functools.cache
    def read(size: int) -> tuple[Velocity, list[Read]]:
        reader, tokenizers = reading(pipe, known(size).captions)
        return velocity(reader, args.family), tokenizers

    def data(step: int, part: float) -> loop.Batch:
        rng = np.random.default_rng([13, step])
        size = resolution(part, rng.random(), args.first)
        n, of = args.batch * BATCH[size], known(size)
        rows = np.sort(rng.choice(len(of.captions), n, replace=False))
        caption_rows = np.where(rng.random(n) > 0.1, rows, len(of.captions))  # or the empty prompt
        generator = torch.Generator(where).manual_seed(step)
        latents = of.latents[loop.to_device(rows, where)].float()
        noise = torch.randn(latents.shape, generator=generator, device=where)
        return {
            "latents": latents,
            "noise": noise,
            "sigma": sigmas(generator, n, shift, args.uniform),
            "captions": loop.to_device(caption_rows, where),
        }

    def loss(latents, noise, sigma, captions) -> torch.Tensor:
        v, tokenizers = read(4 * latents.shape[-1])
        for tokenizer in tokenizers:
            tokenizer.rows = captions
        x = torch.lerp(latents, noise, sigma[:, None, None, None])
        with loop.autocast(where), sdpa_kernel(kernels):
            found = v(x, sigma, [""] * len(x))
        return (found.float() - (noise - latents)).pow(2).mean()

    return data, loss


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("family", choices=list(tiny.PIPELINES))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--minutes", type=float, help="train for this long instead of --steps")
    parser.add_argument("--stop", type=int, help="end early, as a kill would")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--muon", type=float, default=3e-3, help="learning rate of Muon; 0: AdamW throughout")
    parser.add_argument("--first", type=float, default=0.35, help="share of the steps at 64 px only")
    parser.add_argument("--ema", type=float, default=0.99, help="decay of the weights' average")
    parser.add_argument("--batch", type=int, default=1, help="factor on the images per step")
    parser.add_argument("--scenes", type=float, default=1, help="factor on the number of scenes")
    parser.add_argument("--workers", type=int, default=1, help="processes that paint scenes")
    parser.add_argument(
        "--shift", type=float, help="of the training's noise levels; default: the scheduler's"
    )
    parser.add_argument(
        "--uniform", type=float, default=0.1, help="share of uniform noise levels, before the shift"
    )
    parser.add_argument("--hold", type=float, default=0.7, help="share of the training before the rate falls")
    parser.add_argument("--start", type=Path, help="a trained pipeline to start from")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plain", action="store_true", help="unfused attention on a GPU, too")
    parser.add_argument("--graphs", action="store_true", help="run steps as CUDA graphs")
    parser.add_argument(
        "--eager", action="store_true", help="do not compile (no C++ compiler, or a few steps only)"
    )
    parser.add_argument(
        "--export", action="store_true", help="write the averaged weights of the last checkpoint"
    )
    return parser.parse_args(argv)


def main() -> None:
    args = arguments()
    pipe, folder = make(args.family, args.data), args.data / args.family
    out = args.out or Path(f"assets/{args.family}_tiny")
    if args.export:
        state = torch.load(folder / "state.pt", map_location=loop.device(), weights_only=True)
        return export(pipe, state["average"], out)
    modules = trained(pipe).train()
    if args.start:
        other = DiffusionPipeline.from_pretrained(args.start, dtype=torch.float32)
        print(f"{load_matching(modules, args.family, other)} weights begin as {args.start}'s")
    if not args.eager:
        compiled(pipe.transformer)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {k: str(x) if isinstance(x, Path) else x for k, x in vars(args).items()}
    (folder / "settings.json").write_text(json.dumps(settings) + "\n")
    options = {
        "steps": args.steps,
        "minutes": args.minutes,
        "stop": args.stop,
        "lr": args.lr,
        "muon": args.muon or None,
        "decay": 0.01,
    }
    data, loss = objective(pipe, args)
    options |= {"ema": args.ema, "warmup": 100, "hold": args.hold, "graphs": args.graphs}
    weights = loop.train(modules, data, loss, folder=folder, **options)
    if args.stop is None or (args.stop >= args.steps and not args.minutes):
        export(pipe, weights, out)


if __name__ == "__main__":
    main()
