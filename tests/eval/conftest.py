import numpy as np
import pytest
import torch
from PIL import Image

from fovea.eval import Samples
from fovea.eval.backbone import Backbone
from tests.eval import chat_model
from tests.eval.models import save_tiny


@pytest.fixture(scope="session")
def backbone(tmp_path_factory):
    folder = save_tiny(tmp_path_factory.mktemp("clip"))
    return Backbone(model=f"local-dir:{folder}", name="tiny", device="cpu", batch=4)


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """A folder of 12 PNG files, two of them of another size."""
    folder = tmp_path_factory.mktemp("reference")
    rng = np.random.default_rng(1)
    for i in range(12):
        size = 24 if i < 2 else 48
        Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture
def samples():
    """Ten random images, beside dense ones that differ by up to 20 levels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (10, 3, 48, 40), generator=generator, dtype=torch.uint8)
    noise = torch.randint(-20, 21, images.shape, generator=generator)
    dense = (images.int() + noise).clamp(0, 255).to(torch.uint8)
    return Samples(
        images, [f"a red cat, number {i}" for i in range(10)], [f"{i}/0" for i in range(10)], dense
    )


@pytest.fixture(scope="session")
def tiny_vl(tmp_path_factory):
    """The folder of a small random vision-language model."""
    folder = tmp_path_factory.mktemp("qwen") / "Tiny-VL"
    chat_model.save(folder)
    return folder
