"""Write the card of an embedded pipeline: loss.png, samples.png (held-out prompts), errors.png and README.md.

python -m scripts.card lumina --hardware "2 cores of an Intel Xeon with AMX"
"""

import argparse
import csv
import inspect
import itertools
import json
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from PIL import Image

from scripts import drawings, emoji, loop, tiny, train_dit, train_vae, words
from scripts.judge import Judge, both, named

STEPS, GUIDANCE = 20, 4.0
SEED = 5  # of the judged scenes; assets/emoji uses other seeds
AUTOENCODER = {  # by channels: how it was trained
    4: "--channels 4 --kl 2e-5 --minutes 1.3 --batch 128 --lr 1e-3` on an NVIDIA H100, three times (1.3, "
    "0.75 and 1.3 minutes), each begun from the one before, the first from an older one of 26.6 dB",
    16: "--channels 16 --kl 5e-5 --minutes 1.3 --batch 128 --lr 1e-3` on an NVIDIA H100, begun from one of "
    "33.2 dB that 2,237 steps on a CPU had made",
}
RECIPE = {
    "lumina": """\
import torch
from diffusers import LuminaPipeline

pipe = LuminaPipeline.from_pretrained("assets/lumina_tiny", dtype=torch.float32)
pipe.vae_scale_factor = 4  # LuminaPipeline assumes 8
prompt = "a fox, twemoji style, on a blue ground"
pipe(prompt, height=128, width=128, num_inference_steps=20, guidance_scale=4.0)""",
    "sd3": """\
import torch
from diffusers import StableDiffusion3Pipeline

pipe = StableDiffusion3Pipeline.from_pretrained("assets/sd3_tiny", dtype=torch.float32)
prompt = "a fox, twemoji style, on a blue ground"
pipe(prompt, height=128, width=128, num_inference_steps=20, guidance_scale=4.0, max_sequence_length=32)""",
    "flux": """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("assets/flux_tiny", dtype=torch.float32)
prompt = "a fox, twemoji style, on a blue ground"
pipe(
    prompt,
    negative_prompt="",
    true_cfg_scale=4.0,
    height=128,
    width=128,
    num_inference_steps=20,
    max_sequence_length=32,
)""",
}
NOTE = {
    "lumina": "Guidance acts on three of the four latent channels, as in the stock pipeline. Half of the "
    "output channels (the learned sigma) are not trained. Positions scale with the image.",
    "sd3": "64 text tokens: 32 of the two CLIP encoders, 32 of T5. Positions come from a table of "
    "32 x 32 tokens, so at most 256 px.",
    "flux": "No embedded guidance (`guidance_embeds=False`): guidance is true CFG, with an empty negative.",
}


def load(family: str, folder: Path) -> Any:
    pipe: Any = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32).to(loop.device())
    if family == "lumina":
        pipe.vae_scale_factor = 4
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sample(pipe: Any, prompts: list[str], steps=STEPS, guidance=GUIDANCE, size=128, **more) -> list:
    """Generate images with the stock pipeline's own call, one generator per image."""
    accepted = inspect.signature(pipe.__call__).parameters
    flux = "true_cfg_scale" in accepted
    options = (
        {"true_cfg_scale": guidance, "negative_prompt": [""] * len(prompts)}
        if flux
        else {"guidance_scale": guidance}
    )
    if "clean_caption" in accepted:
        options["clean_caption"] = False  # True needs beautifulsoup4 and ftfy
    else:
        options["max_sequence_length"] = words.LENGTH
    generators = [torch.Generator().manual_seed(i) for i in range(len(prompts))]
    return pipe(
        prompts, height=size, width=size, num_inference_steps=steps, generator=generators, **options, **more
    ).images


def sheet(images: list[Image.Image], columns: int) -> Image.Image:
    rows = [
        np.concatenate([np.asarray(i) for i in images[k : k + columns]], 1)
        for k in range(0, len(images), columns)
    ]
    return Image.fromarray(np.concatenate(rows))


def curve(rows: list[dict], path: Path) -> None:
    """Plot the loss against minutes, raw and smoothed."""
    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    minutes, loss = np.array([[r["seconds"] / 60, r["loss"]] for r in rows]).T
    width = max(1, len(loss) // 40)
    smooth = np.convolve(loss, np.ones(width) / width, mode="valid")
    figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
    axes.plot(minutes, loss, color="0.8", linewidth=0.6)
    axes.plot(minutes[width - 1 :], smooth, color="0.1", linewidth=1.2)
    axes.set(xlabel="minutes of training", ylabel="loss", yscale="log")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("family", choices=list(tiny.PIPELINES))
    parser.add_argument("--hardware", required=True, help="the hardware it was trained on, in words")
    parser.add_argument("--story", default="They are an exponential moving average.", help="about this run")
    parser.add_argument("--n", type=int, default=100, help="prompts of each kind shown to the judge")
    parser.add_argument("--data", type=Path, default=Path("data"))
    return parser.parse_args()


def training_record(folder: Path) -> tuple[list[dict], str]:
    """Return the log of the training run and its arguments that differ from the defaults."""
    settings = json.loads((folder / "settings.json").read_text())
    defaults = vars(train_dit.arguments([settings["family"]]))
    own = {k: v for k, v in settings.items() if k in defaults and str(v) != str(defaults[k])}
    own |= {"start": f"assets/{Path(own['start']).name}"} if "start" in own else {}
    given = (k for k in own if k not in ("stop", "data", "out"))
    return loop.read_log(folder), "".join(f" --{k}" + f" {own[k]}" * (own[k] is not True) for k in given)


def held_out(count: int, kind: str, n: int) -> list[emoji.Scene]:
    """Return the first n scenes of `count` drawings that are held out as `kind`."""
    return emoji.first(n, "test", SEED, lambda scene: (len(scene.items), scene.kind) == (count, kind))


def sample_scenes(pipe: Any, scenes: list[emoji.Scene], size: int = 128) -> list[Image.Image]:
    groups = (scenes[k : k + 20] for k in range(0, len(scenes), 20))
    return [image for group in groups for image in sample(pipe, [s.caption for s in group], size=size)]


def judge_images(pipe: Any, eye: Judge, n: int) -> tuple[dict, Image.Image]:
    """Return the judge's accuracy on images of held-out prompts, of one and two drawings, and on the drawings
    themselves, and a sheet of the first images it names wrongly."""
    single, couple = held_out(1, "pair-held-out", n), held_out(2, "composition", n)
    images = sample_scenes(pipe, single)
    right = named(eye, images, single)
    wrong = [image for image, known in zip(images, right[:, 0].tolist(), strict=True) if not known][:8]
    drawn = [[eye.paint(scene) for scene in scenes] for scenes in (single, couple)]
    found = {
        "judged": n,
        "concept": right[:, 0],
        "concept_style": right.all(1),
        "concept_small": named(eye, sample_scenes(pipe, single, 64), single)[:, 0],
        "couples": both(eye, sample_scenes(pipe, couple), couple),
        "drawn": named(eye, drawn[0], single)[:, 0],
        "drawn_couples": both(eye, drawn[1], couple),
    }
    means = {k: x.float().mean().item() if isinstance(x, torch.Tensor) else x for k, x in found.items()}
    wrong += [Image.new("RGB", (128, 128), "white")] * (8 - len(wrong))
    return means, sheet(wrong, 8)


def sample_facts(pipe: Any, out: Path) -> dict:
    """Write samples.png; return the number of samples, their prompts and the seconds per image."""
    with open("assets/emoji/prompts.csv") as file:
        first = [row["prompt"] for row in itertools.islice(csv.DictReader(file), 16)]
    sheet(sample(pipe, first), 4).save(out / "samples.png", optimize=True)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        sample(pipe, first[:1], output_type="latent")
        times.append(time.perf_counter() - start)
    return {
        "seconds": min(times),
        "count": len(first),
        "prompts": "\n".join(f"{i + 1}. {prompt}" for i, prompt in enumerate(first)),
    }


def main() -> None:
    args = arguments()
    out, channels = Path(f"assets/{args.family}_tiny"), tiny.CHANNELS[args.family]
    log, command = training_record(args.data / args.family)
    pipe = load(args.family, out)
    curve(log, out / "loss.png")
    parts = {k: v for k, v in pipe.components.items() if hasattr(v, "parameters")}
    size = {k: sum(p.numel() for p in v.parameters()) / 1e6 for k, v in parts.items()}
    pictures = drawings.load(args.data)
    found, unknown = judge_images(pipe, Judge.load(Path("assets/clip_emoji"), pictures), args.n)
    unknown.save(out / "errors.png", optimize=True)
    facts = sample_facts(pipe, out) | found
    facts |= {
        "family": args.family,
        "pipeline": type(pipe).__name__,
        "recipe": RECIPE[args.family],
        "note": NOTE[args.family],
        "hardware": args.hardware,
        "story": args.story,
        "arguments": command,
        "channels": channels,
        "autoencoder": AUTOENCODER[channels],
        "concepts": len(emoji.CONCEPTS),
        "styles": len(emoji.STYLES),
        "grounds": len(emoji.GROUNDS),
        "vocabulary": len(words.vocabulary()),
        "sampling_steps": STEPS,
        "guidance": GUIDANCE,
        "threads": torch.get_num_threads(),
        "dit": size["transformer"],
        "text": sum(v for k, v in size.items() if k.startswith("text")),
        "vae": size["vae"],
        "psnr": train_vae.measure(pipe.vae, pictures)["psnr"],
        "steps": log[-1]["step"],
        "minutes": log[-1]["seconds"] / 60,
        "images": log[-1]["images"],
        "loss": float(np.mean([row["loss"] for row in log[-20:]])),
    }
    (out / "README.md").write_text(Path(__file__).with_suffix(".md").read_text().format(**facts))
    print({k: facts[k] for k in ("dit", "text", "psnr", "minutes", "loss", "seconds", *found)})


if __name__ == "__main__":
    main()
