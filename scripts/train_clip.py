"""Train clip_emoji, the small open_clip model behind `clip_score[emoji]` and `fd[emoji]`.

    python -m scripts.train_clip
    python -m scripts.clip_card      # measures it and writes its card

Trained on the split "clip": other scenes than the generators see, including the concepts, pairs and couples
held out of their training, because it has to judge them. Three losses share one pair of towers:

- CLIP's loss over the batch's images and captions (arXiv:2103.00020). For a caption of two drawings, the same
  caption with its relation reversed is an additional negative (hard negatives as in NegCLIP,
  arXiv:2210.01936);
- classification of the picture's concepts among all "a fox";
- classification of the picture's drawings among all "a fox, noto style", because few captions in a batch
  differ only slightly.

The first `--first` of the steps use half the side, which costs a quarter. The learning rate is constant for
`--hold` of the steps, then falls to zero; until then a restart may change `--steps`.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import CLIP
from open_clip.modified_resnet import AttentionPool2d
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTokenizer

from scripts import drawings, emoji, loop, words

SIZE = 128  # px
SEED = 0  # of the training scenes; those of SEED + 1 are held out
MEAN = STD = (0.5, 0.5, 0.5)
NAMES = [emoji.article(name) for name in emoji.CONCEPTS.values()]
DRAWN = [f"{name}, {style} style" for name in NAMES for style in emoji.STYLES]
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


def config(vocabulary: int) -> dict:
    """Return open_clip's configuration: a narrow ResNet, a text transformer of two layers, 64 dimensions."""
    return {
        "embed_dim": 64,
        "vision_cfg": {"image_size": SIZE, "layers": [1, 1, 2, 1], "width": 24, "head_width": 64},
        "text_cfg": {
            "context_length": words.LENGTH,
            "vocab_size": vocabulary,
            "hf_tokenizer_name": "clip_emoji",
            "width": 128,
            "heads": 4,
            "layers": 2,
        },
    }


def resized(image: np.ndarray, side: int) -> np.ndarray:
    """Blur a picture by resizing it to `side` px and back."""
    small = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(small.resize(image.shape[1::-1], Image.Resampling.BICUBIC))


def tensor(images: list[np.ndarray]) -> torch.Tensor:
    """Stack images, uint8 (side, side, 3), to (n, 3, side, side) in [-1, 1]."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def batch(
    pictures: dict[str, Image.Image], step: int, n: int, size: int = SIZE
) -> tuple[torch.Tensor, list[emoji.Scene]]:
    """Return images (n, 3, size, size) in [-1, 1], a third of them blurred, and their scenes."""
    scenes = [emoji.scene("clip", SEED, step * n + i) for i in range(n)]
    images = [emoji.paint(scene, pictures, size) for scene in scenes]
    rng = np.random.default_rng([11, step])
    for i in np.flatnonzero(rng.random(n) < 1 / 3):
        images[i] = resized(images[i], int(rng.integers(size // 2, size)))
    return tensor(images), scenes


def turned(caption: str) -> str:
    """Reverse the caption's relation, if it has one: "a fox left of a cat" -> "a fox right of a cat"."""
    return " ".join(OPPOSITE.get(word, word) for word in caption.split(" "))


def shares(scenes: list[emoji.Scene]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return classification targets over NAMES (n, 60) and DRAWN (n, 240): equal shares that sum to 1."""
    concepts, styles = list(emoji.CONCEPTS), list(emoji.STYLES)
    drawn = torch.zeros(len(scenes), len(concepts), len(styles))
    for row, scene in zip(drawn, scenes, strict=True):
        for item in scene.items:
            row[concepts.index(item.concept), styles.index(scene.style)] = 1 / len(scene.items)
    return drawn.sum(2), drawn.flatten(1)


def contrast(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return CLIP's symmetric cross-entropy on unit vectors: n images, their n texts, extra negatives."""
    logits = scale * image @ text.T
    labels = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits[:, : len(logits)].T, labels)) / 2


def pooled(pool: AttentionPool2d, x: torch.Tensor) -> torch.Tensor:
    """Return `pool(x)` for x (n, c, h, w), computing attention only for the one query that is returned.

    For a feature map smaller than the grid of positional embeddings, these are averaged.
    """
    first, rest = pool.positional_embedding[:1], pool.positional_embedding[1:]
    grid = rest.T.unflatten(1, (round(len(rest) ** 0.5), -1))
    places = torch.cat([first, F.adaptive_avg_pool2d(grid, (x.shape[2], x.shape[3])).flatten(1).T])
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([x.mean(1, keepdim=True), x], 1) + places.to(x.dtype)
    q, k, v = pool.q_proj(x[:, :1]), pool.k_proj(x), pool.v_proj(x)
    q, k, v = (t.unflatten(2, (pool.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
    return pool.c_proj(F.scaled_dot_product_attention(q, k, v).flatten(1))


def see(model: CLIP, x: torch.Tensor) -> torch.Tensor:
    """Return `model.encode_image(x, normalize=True)`; also works for smaller images."""
    visual: Any = model.visual
    x = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(x)))))
    return F.normalize(pooled(visual.attnpool, x).float(), dim=-1)


def read(model: CLIP, ids: torch.Tensor) -> torch.Tensor:
    """Return `model.encode_text(ids, normalize=True)`; rows may be shorter than the model's context."""
    tower: Any = model
    n = ids.shape[1]
    x = tower.token_embedding(ids) + tower.positional_embedding[:n]
    x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask[:n, :n]))
    x = x[torch.arange(len(ids), device=ids.device), ids.argmax(1)] @ tower.text_projection
    return F.normalize(x.float(), dim=-1)


def objective(
    model: CLIP, tokenize: Callable, pictures: dict, n: int, small: int, workers: int = 0
) -> tuple[loop.Data, loop.Loss]:
    """Return the data and the loss of a step: `small` steps at half the side, then full size."""
    where = next(model.parameters()).device
    names, drawn = tokenize(NAMES).to(where), tokenize(DRAWN).to(where)
    halved = {name: picture.reduce(2) for name, picture in pictures.items()}

    def painted(step: int) -> tuple[torch.Tensor, list[emoji.Scene]]:
        return batch(halved, step, n, SIZE // 2) if step < small else batch(pictures, step, n)

    batches = loop.prefetched(painted, workers)

    def data(step: int, part: float) -> loop.Batch:
        x, scenes = batches(step)
        captions = [scene.caption for scene in scenes]
        ids = tokenize(captions + [turned(c) for c in captions if turned(c) != c])
        named, both = shares(scenes)
        found = {"x": x.to(memory_format=torch.channels_last), "ids": ids, "named": named, "both": both}
        return {name: value.to(where) for name, value in found.items()}

    def loss(x, ids, named, both) -> torch.Tensor:
        # the flash kernel is several times slower for one query token or texts of ten tokens
        with loop.autocast(where), sdpa_kernel(SDPBackend.MATH):
            image = see(model, x)
            texts = [read(model, tokens) for tokens in (ids, names, drawn)]
        scale = model.logit_scale.exp().clamp(max=100)
        right = [
            F.cross_entropy(scale * image @ text.T, share)
            for text, share in zip(texts[1:], (named, both), strict=True)
        ]
        return contrast(image, texts[0], scale) + sum(right)

    return data, loss


def held_out(count: int, n: int) -> list[emoji.Scene]:
    """Return the first n scenes of `count` drawings that it is not trained on."""
    return emoji.first(n, "clip", SEED + 1, lambda scene: len(scene.items) == count)


def export(model: CLIP, tokenizer, folder: Path) -> None:
    """Write the folder that `open_clip.create_model_and_transforms("local-dir:...")` loads, offline."""
    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {"size": SIZE, "mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"}
    document = {"model_cfg": config(len(tokenizer)), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(document, indent=2) + "\n")
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file({k: v.contiguous().cpu() for k, v in state.items()}, folder / "open_clip_model.safetensors")
    tokenizer.backend_tokenizer.no_padding()  # otherwise those of the last call are saved
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(folder)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--workers", type=int, default=0, help="processes that prefetch painted batches")
    parser.add_argument("--first", type=float, default=0.8, help="share of the steps at half the side")
    parser.add_argument("--hold", type=float, default=0.8, help="share of the steps at the full rate")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--warmup", type=int, default=100, help="steps to the full learning rate")
    parser.add_argument("--start", type=Path, help="folder of an exported model to start from")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("assets/clip_emoji"))
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.manual_seed(0)
    pictures, where, folder = drawings.load(args.data), loop.device(), args.data / "clip"
    tokenizer: Any = words.clip_tokenizer(pad="<pad>")
    if args.start:  # another version may have numbered the words differently
        tokenizer = CLIPTokenizer.from_pretrained(args.start)
    model = CLIP(**config(len(tokenizer))).to(where)
    if args.start:
        model.load_state_dict(load_file(args.start / "open_clip_model.safetensors"))
    model.visual.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def tokenize(texts: list[str]) -> torch.Tensor:
        return tokenizer(texts, padding=True, truncation=True, return_tensors="pt").input_ids

    small, scenes = round(args.first * args.steps), held_out(1, 400)

    @torch.no_grad()
    def watch(step: int) -> None:
        model.eval()
        painted = [emoji.paint(scene, pictures, SIZE // 2 if step < small else SIZE) for scene in scenes]
        image = torch.cat([see(model, x.to(where)) for x in tensor(painted).split(50)])
        for prompts, share in zip((NAMES, DRAWN), shares(scenes), strict=True):
            found = (image @ read(model, tokenize(prompts).to(where)).T).argmax(1).cpu()
            right = (found == share.argmax(1)).float().mean().item()
            print(f"step {step}: {right:.1%} of {len(prompts)}", flush=True)
        model.train()

    settings = {k: str(x) if isinstance(x, Path) else x for k, x in vars(args).items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(settings) + "\n")
    data, loss = objective(model, tokenize, pictures, args.batch, small, args.workers)
    rate = {"lr": args.lr, "warmup": args.warmup, "hold": args.hold}
    loop.train(model, data, loss, steps=args.steps, folder=folder, decay=0.05, watch=watch, **rate)
    export(model.eval(), tokenizer, args.out)


if __name__ == "__main__":
    main()
