"""The data set of the embedded models: captioned scenes of emoji drawings on a coloured ground.

Everything is a pure function of (split, seed, index): only the drawings (scripts/drawings.py) are stored. A
scene is independent of the resolution, so the same one can be painted at 64, 128 or 256 px.

Held out of "train": the concepts in HELD_CONCEPTS, the (style, concept) pairs of `held_pair`, and the couples
of concepts of `held_couple`. "test" has only these; "clip" (for the model that scores) has everything.
"""

import hashlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

STYLES = {"noto": "noto", "twemoji": "twemoji", "fluent": "fluent-emoji-flat", "emojitwo": "emojione"}

# icon name (the same in all four sets): the words used in captions
CONCEPTS = {
    "cat-face": "cat", "dog-face": "dog", "fox": "fox", "tiger-face": "tiger", "lion": "lion",
    "panda": "panda", "rabbit-face": "rabbit", "pig-face": "pig", "cow-face": "cow", "frog": "frog",
    "monkey-face": "monkey", "penguin": "penguin", "owl": "owl", "tropical-fish": "tropical fish",
    "octopus": "octopus", "spouting-whale": "whale", "turtle": "turtle", "snail": "snail",
    "butterfly": "butterfly", "honeybee": "bee", "lady-beetle": "ladybug", "crab": "crab",
    "red-apple": "red apple", "banana": "banana", "watermelon": "watermelon", "grapes": "bunch of grapes",
    "strawberry": "strawberry", "lemon": "lemon", "pineapple": "pineapple", "tomato": "tomato",
    "carrot": "carrot", "mushroom": "mushroom", "pizza": "pizza", "hamburger": "hamburger",
    "doughnut": "doughnut", "birthday-cake": "birthday cake", "soft-ice-cream": "ice cream",
    "cactus": "cactus", "sunflower": "sunflower", "tulip": "tulip", "evergreen-tree": "fir tree",
    "palm-tree": "palm tree", "umbrella": "umbrella", "rocket": "rocket", "automobile": "car", "bus": "bus",
    "sailboat": "sailboat", "house": "house", "guitar": "guitar", "balloon": "balloon",
    "wrapped-gift": "gift", "soccer-ball": "football", "crown": "crown", "light-bulb": "light bulb",
    "jack-o-lantern": "pumpkin lantern", "ghost": "ghost", "koala": "koala", "pear": "pear",
    "basketball": "basketball", "rose": "rose",
}  # fmt: skip
HELD_CONCEPTS = ("koala", "pear", "basketball", "rose")
GROUNDS = {
    "white": (250, 250, 250), "grey": (188, 192, 198), "blue": (120, 176, 240), "navy": (44, 62, 108),
    "green": (150, 212, 150), "yellow": (252, 228, 130), "orange": (250, 190, 120), "pink": (250, 190, 210),
    "purple": (190, 165, 230), "brown": (150, 115, 90),
}  # fmt: skip
SPLITS = {"train": 1, "clip": 2, "test": 3, "vae": 4}


@dataclass(frozen=True)
class Item:
    """One drawing of a scene; centre and size are fractions of the image's side."""

    concept: str
    x: float
    y: float
    size: float


@dataclass(frozen=True)
class Scene:
    """The contents of a picture; `paint` renders it."""

    caption: str
    style: str
    ground: tuple[int, int, int]
    items: tuple[Item, ...]
    kind: str  # "plain" | "pair-held-out" | "concept-held-out" | "composition"


def _unit(*words: str) -> float:
    """Hash the words to a number in [0, 1)."""
    return int.from_bytes(hashlib.sha256("/".join(words).encode()).digest()[:4], "big") / 2**32


def held_pair(style: str, concept: str) -> bool:
    """True if training never shows this concept in this style (one pair in twelve)."""
    return _unit("pair", style, concept) < 1 / 12


def held_couple(one: str, two: str) -> bool:
    """True if training never shows these two concepts together (one couple in eight)."""
    return _unit("couple", *sorted((one, two))) < 1 / 8


def kind(style: str, concepts: list[str]) -> str:
    """Return why a scene is held out of training, or "plain" if it is not."""
    if any(c in HELD_CONCEPTS for c in concepts):
        return "concept-held-out"
    if any(held_pair(style, c) for c in concepts):
        return "pair-held-out"
    couples = [(a, b) for i, a in enumerate(concepts) for b in concepts[i + 1 :]]
    return "composition" if any(held_couple(a, b) for a, b in couples) else "plain"


def article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def _subject(rng: np.random.Generator, items: tuple[Item, ...]) -> str:
    """Describe the one, two (sometimes with their relation) or three drawings."""
    names = [article(CONCEPTS[i.concept]) for i in items]
    if len(items) == 1:
        small = items[0].size < 0.5 and rng.random() < 0.8
        return article("small " + CONCEPTS[items[0].concept]) if small else names[0]
    if len(items) == 3:
        return f"{names[0]}, {names[1]} and {names[2]}"
    if rng.random() < 0.5:
        return f"{names[0]} and {names[1]}"
    a, b = items
    if abs(a.x - b.x) > abs(a.y - b.y):
        return f"{names[0]} {'left' if a.x < b.x else 'right'} of {names[1]}"
    return f"{names[0]} {'above' if a.y < b.y else 'below'} {names[1]}"


def _caption(rng: np.random.Generator, subject: str, style: str, ground: str) -> str:
    """Combine subject, style and ground in one of four orders; style and ground are sometimes left out."""
    style_on, ground_on = rng.random() < 0.9, rng.random() < 0.9
    on = f"on {article(ground)} ground"
    form = rng.integers(4)
    if form == 0 and style_on:
        subject = (
            f"a {style} drawing of {subject}" if style != "emojitwo" else f"an {style} drawing of {subject}"
        )
        return f"{subject} {on}" if ground_on else subject
    parts = [subject] + ([f"{style} style"] if style_on else []) + ([on] if ground_on else [])
    if form == 1 and ground_on:
        return f"{subject} {on}" + (f", {style} style" if style_on else "")
    return ", ".join(parts)


def _layout(rng: np.random.Generator, n: int) -> list[tuple[float, float, float]]:
    """Place n drawings, (x, y, size), apart: one anywhere, two or three in a row, or two in a column."""
    if n == 1:
        size = rng.uniform(0.4, 0.92)
        room = (1 - size) / 2
        return [(0.5 + rng.uniform(-room, room), 0.5 + rng.uniform(-room, room), size)]
    sizes = rng.uniform(0.36, 0.48, 2) if n == 2 else rng.uniform(0.26, 0.32, 3)
    slack = 1 - sizes.sum()
    gaps = rng.dirichlet([2.0] * (n + 1)) * slack
    along = np.cumsum(gaps[:n]) + np.concatenate([[0], np.cumsum(sizes)[:-1]]) + sizes / 2
    across = 0.5 + rng.uniform(-0.5, 0.5, n) * (1 - sizes) * 0.6
    upright = n == 2 and rng.random() < 0.4
    places = [(a, b) if not upright else (b, a) for a, b in zip(along, across, strict=True)]
    order = rng.permutation(n)
    return [(float(places[i][0]), float(places[i][1]), float(sizes[i])) for i in order]


def _wanted(split: str, found: str) -> bool:
    return found == "plain" if split in ("train", "vae") else split == "clip" or found != "plain"


def scene(split: str, seed: int, index: int) -> Scene:
    """Return the `index`-th scene of a split: the same on every machine and in every order."""
    rng = np.random.default_rng([SPLITS[split], seed, index])
    while True:
        style = str(rng.choice(list(STYLES)))
        n = int(rng.choice([1, 2, 3], p=[0.6, 0.35, 0.05]))
        concepts = [str(c) for c in rng.choice(list(CONCEPTS), n, replace=False)]
        found = kind(style, concepts)
        if _wanted(split, found):
            break
    ground = str(rng.choice(list(GROUNDS)))
    items = tuple(Item(c, *map(float, p)) for c, p in zip(concepts, _layout(rng, n), strict=True))
    jitter = rng.integers(-5, 6, 3)
    r, g, b = np.clip(np.array(GROUNDS[ground]) + jitter, 0, 255).tolist()
    return Scene(_caption(rng, _subject(rng, items), style, ground), style, (r, g, b), items, found)


def first(n: int, split: str, seed: int, wanted: Callable[[Scene], bool]) -> list[Scene]:
    """Return the first n scenes of a split that satisfy `wanted`."""
    scenes = (scene(split, seed, i) for i in itertools.count())
    return list(itertools.islice(filter(wanted, scenes), n))


def paint(scene: Scene, drawings: dict[str, Image.Image], size: int) -> np.ndarray:
    """Render the scene as uint8 (size, size, 3)."""
    canvas = np.empty((size, size, 3), np.float32)
    canvas[:] = scene.ground
    for item in scene.items:
        drawing = drawings[f"{scene.style}/{item.concept}"]
        scale = item.size * size / max(drawing.size)
        w, h = (max(4, round(s * scale)) for s in drawing.size)
        small = np.asarray(drawing.resize((w, h), Image.Resampling.LANCZOS, reducing_gap=2.0), np.float32)
        x, y = round(item.x * size - w / 2), round(item.y * size - h / 2)
        x, y = min(max(x, 0), size - w), min(max(y, 0), size - h)
        colour, alpha = small[..., :3], small[..., 3:] / 255
        patch = canvas[y : y + h, x : x + w]
        canvas[y : y + h, x : x + w] = colour + patch * (1 - alpha)  # colours are premultiplied
    return canvas.round().clip(0, 255).astype(np.uint8)
