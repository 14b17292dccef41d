"""Which weights to load, and whether they can be had: decided before anything heavy is imported."""

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

ROOT = Path(__file__).resolve().parent.parent
PIPELINES = {
    "sd3": ("StableDiffusion3Pipeline",),
    "lumina": (
        "LuminaPipeline",
        "LuminaText2ImgPipeline",
    ),  # the second is the first's name in old checkpoints
    "flux": ("FluxPipeline",),
}
BILLIONS = {"sd3": 7.7, "sd35": 7.9, "lumina": 4.4, "flux": 16.9}  # parameters of the whole pipelines
RANDOM_BILLIONS = {"sd3": 2.8, "sd35": 3.0, "lumina": 2.1, "flux": 12.4}  # with text encoders of two layers
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class MissingWeights(RuntimeError):
    """The weights of a checkpoint cannot be had here, or do not fit; the message names the ways out."""


@dataclass(frozen=True)
class Checkpoint:
    """A pipeline's weights and how they are used by default.

    path: a hub id, or a local folder with a model_index.json (relative to the working folder or to the repository).
    weights: "random" builds `architecture` at full size with random weights, for timing only.
    dtype "auto": bfloat16 on a GPU, float32 on a CPU. max_sequence_length: text tokens (SD3, FLUX; else the pipeline's).
    height, width: pixels. guidance: see `Model.encode`.
    """

    family: Literal["sd3", "lumina", "flux"]
    path: Annotated[str, Field(min_length=1)]
    weights: Literal["pretrained", "random"] = "pretrained"
    architecture: Literal["sd3", "sd35", "lumina", "flux"] | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")] = "auto"
    height: Annotated[int, Field(gt=0)] = 1024
    width: Annotated[int, Field(gt=0)] = 1024
    steps: Annotated[int, Field(gt=0)] = 28
    guidance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 4.0
    negative: str = ""
    max_sequence_length: Annotated[int, Field(gt=0, le=512)] | None = None

    def __post_init__(self) -> None:
        if self.weights == "random" and self.architecture is None:
            raise ValueError("weights=random needs a full-size architecture: model=sd3, sd35, lumina or flux")
        config = self.folder and read(self.folder / "vae" / "config.json")
        cell = (
            2 ** len(config["block_out_channels"]) if config else 16
        )  # the autoencoder's factor, patches of 2
        for name, size in (("height", self.height), ("width", self.width)):
            if size % cell:
                near = max(cell, round(size / cell) * cell)
                raise ValueError(f"{name}={size} is not a multiple of {cell} pixels; the nearest is {near}")

    @property
    def folder(self) -> Path | None:
        """The local folder that `path` names, or the hub's snapshot of it in the local cache; None without either."""
        bases = [Path.cwd(), ROOT]
        for base in bases:
            if (base / self.path).is_dir():
                return base / self.path
        if any((base / self.path).parent.is_dir() for base in bases):  # it names a folder that is not there
            return None
        from huggingface_hub import try_to_load_from_cache

        index = try_to_load_from_cache(self.path, "model_index.json")
        return Path(index).parent if isinstance(index, str) else None

    def check(self) -> None:
        """MissingWeights if `load` cannot succeed. Takes seconds; loads nothing."""
        billions = (
            RANDOM_BILLIONS[self.architecture] if self.weights == "random" and self.architecture else None
        )
        if billions is None:
            folder = self.folder
            if folder is None:
                self.check_hub()
                billions = BILLIONS.get(self.architecture or "", 0.0)
            else:
                self.check_folder(folder)
                billions = sum(map(parameters, weight_files(folder))) / 1e9
        self.check_memory(billions)

    def check_folder(self, folder: Path) -> None:
        index = read(folder / "model_index.json")
        if not index:
            raise self.missing(f"{folder} has no model_index.json")
        if index.get("_class_name") not in PIPELINES[self.family]:
            raise self.missing(
                f"{folder} holds a {index.get('_class_name')}, not a {PIPELINES[self.family][0]}"
            )
        for name, kind in index.items():
            is_model = isinstance(kind, list) and kind[0] and (folder / name / "config.json").is_file()
            absent = lacking(folder / name) if is_model and "okenizer" not in kind[1] else []
            if absent:
                raise self.missing(f"{folder / name} lacks {', '.join(absent)}")
        if not (folder / "transformer" / "config.json").is_file():
            raise self.missing(f"{folder} has no transformer")

    def check_hub(self) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            RepositoryNotFoundError,
        )

        if any((base / self.path).parent.is_dir() for base in (Path.cwd(), ROOT)):
            raise self.missing("there is no such folder")
        try:
            if HfApi().model_info(self.path, timeout=5).gated:
                HfApi().auth_check(self.path)
        except GatedRepoError:
            raise self.missing("it is gated: accept its licence on the hub, then `hf auth login`") from None
        except RepositoryNotFoundError:
            raise self.missing(
                "the hub has no such model, or it is private and needs `hf auth login`"
            ) from None
        except HFValidationError:
            raise self.missing("neither a local folder nor a hub id") from None
        except HfHubHTTPError as error:
            raise self.missing(f"the hub answers: {str(error).splitlines()[0]}") from None
        except (
            Exception
        ) as error:  # its HTTP library differs between versions, and with it the error of no network
            raise self.missing(f"not on this machine, and the hub cannot be reached ({error})") from None

    def check_memory(self, billions: float) -> None:
        device, dtype = self.placed()
        need = billions * 1e9 * BYTES[dtype]
        if device.startswith("cuda"):
            import torch

            free = torch.cuda.mem_get_info(device)[0]
        else:
            import psutil

            free = psutil.virtual_memory().available
        if need > free:
            raise self.missing(
                f"{dtype} weights take {need / 2**30:.0f} GiB, {device} has {free / 2**30:.0f} GiB free"
            )

    def placed(self) -> tuple[str, str]:
        """Device and dtype with "auto" resolved."""
        device = self.device
        if device == "auto":
            import torch

            device = "cuda" if torch.cuda.is_available() else "cpu"
        return device, self.dtype if self.dtype != "auto" else "float32" if device == "cpu" else "bfloat16"

    def missing(self, reason: str) -> MissingWeights:
        return MissingWeights(
            f"no weights for {self.path}: {reason}.\nThree ways out:\n"
            f"  model.path=ID_OR_FOLDER     a hub id (gated ones after `hf auth login`) or a local diffusers folder\n"
            f"  model=lumina_tiny           the trained model that comes with this repository\n"
            f"  model.weights=random        the full-size architecture without training, for timing only"
        )

    def load(self) -> Any:
        """The stock diffusers pipeline, on its device. Safetensors only; no code of the checkpoint is run."""
        import diffusers
        import torch

        from models.random_weights import build

        device, name = self.placed()
        dtype = getattr(torch, name)
        if self.weights == "random" and self.architecture:
            from models.architectures import ARCHITECTURES

            return build(ARCHITECTURES[self.architecture], device, dtype)
        kind = getattr(diffusers, PIPELINES[self.family][0])
        pipe = kind.from_pretrained(self.folder or self.path, dtype=dtype, use_safetensors=True).to(device)
        if self.family == "lumina":  # the pipeline takes every autoencoder for an x8 one
            pipe.vae_scale_factor = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
        return pipe


def read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text("utf-8")) if file.is_file() else {}


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of the components that diffusers loads: no other precision's variants."""
    return [f for f in sorted(folder.glob("*/*.safetensors")) if f.name.count(".") == 1]


def lacking(component: Path) -> list[str]:
    """The weight files that a component needs and does not have."""
    shards = [
        read(f)["weight_map"].values()
        for f in component.glob("*.safetensors.index.json")
        if f.name.count(".") == 3
    ]
    needed = {name for shard in shards for name in shard}
    if not needed and not any(component.glob("*.safetensors")):
        return ["its .safetensors"]
    return sorted(name for name in needed if not (component / name).is_file())


def parameters(file: Path) -> int:
    """Parameters in a safetensors file, from its header: 8 bytes of length, then JSON."""
    with open(file, "rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return sum(math.prod(t["shape"]) for name, t in header.items() if name != "__metadata__")
