"""CLIP models of open_clip, from which features and scores are computed; loaded once per process."""

from functools import cache, lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from fovea.eval import Unavailable
from fovea.eval.caches import remembered, unchanged
from fovea.eval.encoder import Parts, TextEncoder, two_towers
from fovea.eval.network import Device, place
from fovea.eval.weights import as_trained, digest, in_folder, located, of_tag, quick_gelu

FOLDER = "local-dir:"  # open_clip's prefix for local folders


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Backbone:
    """Which CLIP model to use, and its name in scores.

    model: `local-dir:PATH`, a folder with open_clip_config.json and weights, or an architecture such as
        ViT-B-32.
    pretrained: weights of the architecture, a file or an open_clip tag.
    name: `model/pretrained` by default.
    quick_gelu: activation with which a weight file was trained, if neither the file nor the architecture's
        name tells.
    batch: images or texts per call.
    """

    model: str = "local-dir:assets/clip_emoji"
    pretrained: str | None = None
    name: str | None = None
    device: Device = "auto"
    quick_gelu: bool | None = None
    batch: Annotated[int, Field(ge=1)] = 32

    def __post_init__(self):
        if self.model.startswith("hf-hub:"):
            raise ValueError(f"model={self.model}: download it and give its folder, {FOLDER}PATH")
        if self.model.startswith(FOLDER) and self.pretrained:
            raise ValueError(
                f"model={self.model} has its own weights: leave out pretrained={self.pretrained}"
            )
        if not self.model.startswith(FOLDER) and not self.pretrained:
            raise ValueError(
                f"model={self.model} needs `pretrained`: a file, or an open_clip tag such as openai"
            )

    @property
    def label(self) -> str:
        own = Path(self.model.removeprefix(FOLDER)).name
        return self.name or (f"{own}/{Path(self.pretrained).stem}" if self.pretrained else own)

    def weights(self) -> Path:
        """Return the weight file. Raises Unavailable if it is not on this machine."""
        if not self.pretrained:
            return in_folder(located(self.model.removeprefix(FOLDER)))
        file = located(self.pretrained)
        if not file.is_file():
            return of_tag(self.model, self.pretrained)
        quick_gelu(self.model, self.pretrained, file, self.quick_gelu)
        return file

    def load(self) -> TextEncoder:
        """Load the encoder. Raises Unavailable if the weights are missing or invalid."""
        return load(self)


EMOJI = Backbone(name="emoji")  # trained on different drawings of the data set than the embedded models


@lru_cache(maxsize=2)
def load(backbone: Backbone) -> TextEncoder:
    weights, device = backbone.weights(), place(backbone.device)
    if backbone.pretrained:
        name = backbone.model
        how = as_trained(name, backbone.pretrained, weights, backbone.quick_gelu)
        files, architecture = [weights], f"{name}, quick_gelu={how['force_quick_gelu']}"
    else:
        name, how = f"{FOLDER}{weights.parent}", {}
        files = [weights, weights.parent / "open_clip_config.json"]
        architecture = digest(files[1])
    opened = cache(partial(parts, name, how, weights, device))
    resize = remembered(
        ["resize", repr(backbone), how, version("open_clip_torch"), unchanged(files)],
        lambda: sorted(opened().towers.visual.preprocess_cfg.items()),
    )
    identity = {"weights": digest(weights), "architecture": architecture, "resize": resize}
    return TextEncoder(opened, identity, device, backbone.batch, __name__)


def parts(name: str, how: dict[str, Any], weights: Path, device: str) -> Parts:
    # slow to import
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    try:
        network: Any = open_clip.create_model(name, device=device, **how).eval()
        tokenizer: Any = open_clip.get_tokenizer(name)
    except Exception as e:  # invalid files fail in open_clip, safetensors, pickle or torch
        raise Unavailable(
            f"open_clip cannot load {weights} ({e})", "check, fetch or train the file again"
        ) from e
    preprocess: Any = image_transform_v2(PreprocessCfg(**network.visual.preprocess_cfg), is_train=False)
    return two_towers(network, preprocess, tokenizer)
