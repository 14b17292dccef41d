"""What is known of scores beforehand: their range, the best, and the value for two flat images."""

import math
from typing import NamedTuple


class Known(NamedTuple):
    """low, high: the range. best: of identical images, None where that says nothing. flat: of a grey image
    and one 16 levels brighter."""

    low: float
    high: float
    best: float | None = None
    flat: float | None = None


FLAT = 112, 128
_A, _B, _C1 = *FLAT, (0.01 * 255) ** 2
KNOWN = {  # by the score's name without its bracket
    "psnr": Known(0, math.inf, math.inf, 20 * math.log10(255 / 16)),
    "identical": Known(0, 1, 1.0, 0.0),
    "ssim": Known(-1, 1, 1.0, (2 * _A * _B + _C1) / (_A**2 + _B**2 + _C1)),
    "lpips": Known(0, math.inf, 0.0),
    "similarity": Known(-1, 1, 1.0),
    "clip_score": Known(0, 100),
    "clip_iqa": Known(0, 1),
    "hpsv2": Known(-100, 100),
    "niqe": Known(0, math.inf),
    "fid": Known(0, math.inf),
    "sfid": Known(0, math.inf),
    "fd": Known(0, math.inf),
}


def known(name: str) -> Known:
    """Of a score; no bounds where there is no entry."""
    return KNOWN.get(name.partition("[")[0], Known(-math.inf, math.inf))
