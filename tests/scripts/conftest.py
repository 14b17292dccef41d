"""What several tests of the training scripts need."""

import pytest
from PIL import Image, ImageDraw

from scripts import emoji


@pytest.fixture(scope="session")
def drawings() -> dict[str, Image.Image]:
    """A disc for every drawing: what is tested is the composition."""
    disc = Image.new("RGBA", (60, 48))
    ImageDraw.Draw(disc).ellipse((0, 0, 59, 47), fill=(200, 30, 30, 255))
    return {f"{s}/{c}": disc.convert("RGBa") for s in emoji.STYLES for c in emoji.CONCEPTS}
