"""Train clip_emoji, the small open_clip model behind `clip_score[emoji]` and `fd[emoji]`.

    python -m scripts.train_clip

Trained with the contrastive loss on the split "clip": other scenes than the generators see, and with the
concepts, pairs and couples that are held out of their training, since it has to judge them.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip import CLIP
from PIL import Image
from safetensors.torch import save_file

from scripts import drawings, emoji, loop, words

SIZE = 128  # px
MEAN = STD = (0.5, 0.5, 0.5)


def config(vocabulary: int) -> dict:
    """open_clip's configuration: a narrow ResNet and two layers of text transformer, 64 dimensions."""
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


def batch(
    pictures: dict[str, Image.Image], step: int, n: int, seed: int = 0
) -> tuple[torch.Tensor, list[str]]:
    """Images (n, 3, SIZE, SIZE) in [-1, 1], a third of them blurred by resizing, and their captions."""
    scenes = [emoji.scene("clip", seed, step * n + i) for i in range(n)]
    rng = np.random.default_rng([11, step])
    images = []
    for scene in scenes:
        image = emoji.paint(scene, pictures, SIZE)
        if rng.random() < 1 / 3:
            side = int(rng.integers(SIZE // 2, SIZE))
            small = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
            image = np.asarray(small.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        images.append(image)
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return x, [scene.caption for scene in scenes]


def contrast(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """CLIP's symmetric cross-entropy over the batch, on unit vectors (b, d)."""
    logits = scale * image @ text.T
    labels = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


@torch.no_grad()
def zero_shot(model, tokenize, pictures: dict[str, Image.Image], n: int = 400) -> dict[str, float]:
    """Accuracies on scenes of one drawing (seed 1): concept and style by prompt; retrieval of captions."""
    where = next(model.parameters()).device
    scenes = (emoji.scene("clip", 1, i) for i in range(10**6))
    scenes = [s for s, _ in zip((s for s in scenes if len(s.items) == 1), range(n), strict=False)]
    x = torch.from_numpy(np.stack([emoji.paint(s, pictures, SIZE) for s in scenes])).permute(0, 3, 1, 2)
    x = x.to(where).float() / 127.5 - 1
    image = torch.cat([model.encode_image(b, normalize=True) for b in x.split(50)])

    def accuracy(prompts: list[str], wanted: list[int]) -> float:
        text = model.encode_text(tokenize(prompts).to(where), normalize=True)
        return (image @ text.T).argmax(1).cpu().eq(torch.tensor(wanted)).float().mean().item()

    concepts, captions = list(emoji.CONCEPTS.values()), sorted({s.caption for s in scenes})
    drawn = [emoji.CONCEPTS[s.items[0].concept] for s in scenes]
    both = [(concept, style) for concept in concepts for style in emoji.STYLES]
    wanted = [both.index((concept, s.style)) for concept, s in zip(drawn, scenes, strict=True)]
    return {
        f"concept of {len(concepts)}": accuracy([f"a {c}" for c in concepts], [*map(concepts.index, drawn)]),
        f"concept and style of {len(both)}": accuracy([f"a {c}, {s} style" for c, s in both], wanted),
        f"caption of {len(captions)}": accuracy(captions, [captions.index(s.caption) for s in scenes]),
    }


def export(model: CLIP, tokenizer, folder: Path) -> None:
    """What `open_clip.create_model_and_transforms("local-dir:...")` loads, offline."""
    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {"size": SIZE, "mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"}
    document = {"model_cfg": config(len(tokenizer)), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(document, indent=2) + "\n")
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file({k: v.contiguous().cpu() for k, v in state.items()}, folder / "open_clip_model.safetensors")
    tokenizer.save_pretrained(folder)


def card(facts: dict, folder: Path) -> None:
    """README.md beside the weights."""
    text = Path(__file__).with_name("clip_card.md").read_text()
    (folder / "README.md").write_text(text.format(**facts))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--hardware", default="an unnamed machine", help="in words, for the card")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("assets/clip_emoji"))
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.manual_seed(0)
    pictures, where, folder = drawings.load(args.data), loop.device(), args.data / "clip"
    tokenizer = words.clip_tokenizer(pad="<pad>")
    model = CLIP(**config(len(tokenizer))).to(where)
    model.visual.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def tokenize(texts: list[str]) -> torch.Tensor:
        return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids

    def loss(step: int) -> torch.Tensor:
        x, captions = batch(pictures, step, args.batch)
        with loop.autocast(where):
            image, text, scale = model(
                x.to(where, memory_format=torch.channels_last), tokenize(captions).to(where)
            )
        return contrast(image.float(), text.float(), scale.float())

    def watch(step: int) -> None:
        print(step, zero_shot(model.eval(), tokenize, pictures), flush=True)
        model.train()

    loop.train(model, loss, steps=args.steps, lr=args.lr, folder=folder, decay=0.05, watch=watch)
    export(model.eval(), tokenizer, args.out)
    loaded, _, _ = open_clip.create_model_and_transforms(f"local-dir:{args.out}")
    found = zero_shot(loaded.eval(), open_clip.get_tokenizer(f"local-dir:{args.out}"), pictures, 2000)
    facts = {
        "vocabulary": len(words.vocabulary()),
        "parameters": sum(p.numel() for p in model.parameters()) / 1e6,
        "accuracies": ", ".join(f"{k}: {v:.0%}" for k, v in found.items()),
        "minutes": loop.read_log(folder)[-1]["seconds"] / 60,
        "n": 2000,
    }
    card(facts | vars(args), args.out)
    print(found)


if __name__ == "__main__":
    main()
