"""focus.webp: which tokens ran, step after step, the cells that leave tokens out side by side."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from textwrap import fill

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fovea.study.picture import pixels
from fovea.study.plan.cells import Cell
from fovea.study.plan.plan import Plan
from fovea.study.report.maps import Maps, faded
from fovea.study.report.style import INK, MUTED, RANDOM, WARNING
from fovea.study.report.traced import chosen
from fovea.study.store import Store, write

PANEL, COLUMNS, GAP, LINE = 208, 4, 12, 17  # pixels; panels in a row
FRAME, LAST = 350, 1800  # milliseconds


def animation(plan: Plan, store: Store, found: Mapping[str, Maps], folder: Path) -> bool:
    """False, and nothing written, where every cell ran every token. A run of fewer steps goes on more slowly,
    so that all end together. Under each image its step, and how much of the model's work was done at it."""
    cells = chosen([cell for cell in plan.cells if cell.id in found], store)
    key = next((s.key for s in plan.samples if all(s.key in found[cell.id] for cell in cells)), None)
    if not cells or key is None:
        return False
    had = [found[cell.id][key] for cell in cells]
    images = [pixels(store.image(cell.id, key)) / 255 for cell in cells]
    count = max(map(len, had))
    frames = []
    for i in range(count):
        steps = [i * len(own) // count for own in had]
        panels = [faded(image, own[step]) for image, own, step in zip(images, had, steps, strict=True)]
        told = [
            f"step {step + 1} of {len(own)}: {own[step].mean():.0%}"
            for step, own in zip(steps, had, strict=True)
        ]
        frames.append(frame(panels, cells, told, plan.random_weights))
    stream = BytesIO()
    times = [FRAME] * (count - 1) + [LAST]
    frames[0].save(
        stream, "WEBP", save_all=True, append_images=frames[1:], duration=times, loop=0, quality=80, method=4
    )
    write(folder / "focus.webp", stream.getvalue())
    return True


def frame(
    panels: Sequence[np.ndarray], cells: Sequence[Cell], told: Sequence[str], random_weights: bool
) -> Image.Image:
    """The images (h, w, 3), each with its cell's name and step under it."""
    names = [fill(cell.label, 29) for cell in cells]
    small, smaller = font(13), font(11)
    tall = round(PANEL * panels[0].shape[0] / panels[0].shape[1])
    under = LINE * (1 + max(name.count("\n") + 1 for name in names)) + GAP
    columns, head = min(COLUMNS, len(panels)), GAP + 2 * LINE * random_weights
    size = columns * (PANEL + GAP) + GAP, -(-len(panels) // columns) * (tall + under) + head
    made = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(made)
    if random_weights:
        draw.text((GAP, GAP), RANDOM, WARNING, small)
    for i, (panel, name, text) in enumerate(zip(panels, names, told, strict=True)):
        line, column = divmod(i, columns)
        left, top = GAP + column * (PANEL + GAP), head + line * (tall + under)
        image = Image.fromarray((panel * 255).round().astype(np.uint8))
        made.paste(image.resize((PANEL, tall), Image.Resampling.BICUBIC), (left, top))
        draw.text((left, top + tall + 4), name, INK, small, spacing=3)
        draw.text((left, top + tall + 5 + LINE * (name.count("\n") + 1)), text, MUTED, smaller)
    return made


def font(size: int) -> ImageFont.FreeTypeFont:
    """The figures' own, which matplotlib brings along."""
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
