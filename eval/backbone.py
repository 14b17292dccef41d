"""The CLIP model that features and scores come from: any of open_clip's, loaded once per process."""

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from fovea.eval import Unavailable
from fovea.eval.encoder import TextEncoder
from fovea.eval.network import Device, place
from fovea.eval.weights import as_trained, digest, in_folder, located, of_tag, quick_gelu

FOLDER = "local-dir:"  # open_clip's scheme


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Backbone:
    """Which model, and what its scores are called by.

    model: `local-dir:PATH`, a folder with open_clip_config.json and weights, or an architecture such as
    ViT-B-32. pretrained: an architecture's weights, a file or an open_clip tag. name: `model/pretrained`
    unless given. quick_gelu: the activation that a file of weights was trained with, where neither the file
    nor the architecture's name tells. batch: images or texts per call.
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
        """The file the weights are in. Raises Unavailable if it is not on this machine."""
        if not self.pretrained:
            return in_folder(located(self.model.removeprefix(FOLDER)))
        file = located(self.pretrained)
        if not file.is_file():
            return of_tag(self.model, self.pretrained)
        quick_gelu(self.model, self.pretrained, file, self.quick_gelu)
        return file

    def load(self) -> TextEncoder:
        """Raises Unavailable if the weights are missing or are not what they should be."""
        return load(self)


EMOJI = Backbone(name="emoji")  # trained on other drawings of the embedded data set than the embedded models


@lru_cache(maxsize=2)
def load(backbone: Backbone) -> TextEncoder:
    # imported here: seconds that a run without such metrics need not pay
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    weights = backbone.weights()
    if backbone.pretrained:
        name, how = (
            backbone.model,
            as_trained(backbone.model, backbone.pretrained, weights, backbone.quick_gelu),
        )
        architecture = f"{name}, quick_gelu={how['force_quick_gelu']}"
    else:
        name, how = f"{FOLDER}{weights.parent}", {}
        architecture = digest(weights.parent / "open_clip_config.json")
    device = place(backbone.device)
    try:
        network: Any = open_clip.create_model(name, device=device, **how).eval()
        tokenizer = open_clip.get_tokenizer(name)
    except (
        Exception
    ) as e:  # files that are not what they should be fail in open_clip, safetensors, pickle or torch
        raise Unavailable(
            f"open_clip cannot load {weights} ({e})", "check, fetch or train the file again"
        ) from e
    resize: dict[str, Any] = dict(network.visual.preprocess_cfg)
    identity = {"weights": digest(weights), "architecture": architecture, "resize": sorted(resize.items())}
    preprocess: Any = image_transform_v2(PreprocessCfg(**resize), is_train=False)
    return TextEncoder(network, preprocess, tokenizer, identity, backbone.batch, __name__)
