"""Objects in images by Mask2Former (Cheng et al. 2022, arXiv:2112.01527), with transformers' implementation.

The network gives queries; its instances are taken from them as in the paper's instance segmentation: the
100 likeliest pairs of query and class, each with its class's probability times the mean probability of its
mask's pixels as score, and the box around its mask.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fovea.eval import Unavailable
from fovea.eval.encoder import as_picture
from fovea.eval.hub import WEIGHTS, Pretrained, folder, read
from fovea.eval.network import Device, exact_float32, place

KINDS = 80  # COCO's classes
MOST = 100  # instances per image
PROCESSOR = "preprocessor_config.json"


class Instances(NamedTuple):
    """Objects of one image, the highest score first.

    kinds: class of each, (k,). scores: (k,). boxes: left, top, right and bottom in pixels, (k, 4).
    masks: bool (k, H, W).
    """

    kinds: Tensor
    scores: Tensor
    boxes: Tensor
    masks: Tensor


def instances(classes: Tensor, masks: Tensor, least: float) -> Instances:
    """Return the instances with scores above `least`.

    classes: probabilities (queries, kinds), without that of no object.
    masks: logits (queries, H, W).
    """
    likeliest, places = classes.flatten().topk(min(MOST, classes.numel()))
    possible = likeliest > least  # a score is at most its class's probability
    likeliest, places = likeliest[possible], places[possible]
    logits = masks[places // classes.shape[1]]
    inside = logits > 0
    sure = (logits.sigmoid() * inside).sum((1, 2)) / (inside.sum((1, 2)) + 1e-6)
    scores, order = (likeliest * sure).sort(descending=True, stable=True)
    order = order[scores > least]
    kinds = places % classes.shape[1]
    return Instances(kinds[order], scores[: len(order)], boxes(inside[order]), inside[order])


def boxes(masks: Tensor) -> Tensor:
    """Return the box around each mask, (k, H, W) -> (k, 4); right and bottom are the first pixels outside."""
    ends = []
    for inside in (masks.any(1), masks.any(2)):  # columns, rows
        length = inside.shape[1]
        ends.append((inside.int().argmax(1), length - inside.flip(1).int().argmax(1)))
    (left, right), (top, bottom) = ends
    return torch.stack([left, top, right, bottom], 1)


class Detector(Pretrained):
    @torch.inference_mode()
    def __call__(self, image: Tensor, least: float) -> Instances:
        """Return the objects in uint8 (3, H, W) with scores above `least`, on the CPU."""
        inputs = self.processor(images=as_picture(image), return_tensors="pt").to(self.device)
        with exact_float32():
            out = self.network(**inputs)
        # a single image is resized to whole patches, not padded
        masks = resized(out.masks_queries_logits, inputs.pixel_values.shape[-2:])
        masks = resized(masks, image.shape[-2:])
        classes = out.class_queries_logits[0].softmax(-1)[:, :-1]
        return Instances(*(x.cpu() for x in instances(classes, masks[0], least)))


def resized(masks: Tensor, size: Any) -> Tensor:
    return interpolate(masks, size=tuple(size), mode="bilinear", align_corners=False)


def weights(model: str, key: str) -> Path:
    """Return the model's folder. Raises Unavailable if it is not on this machine."""
    folder(model, (PROCESSOR,), key)
    return folder(model, WEIGHTS, key)


@lru_cache(maxsize=1)
def load(model: str, key: str, device: Device) -> Detector:
    """Return a detector of COCO's 80 classes. Raises Unavailable for missing or invalid files."""
    from transformers import AutoImageProcessor

    here, on = weights(model, key), place(device)
    return Detector(here, read(AutoImageProcessor, here), lambda: network(here).to(on), on)


def network(here: Path) -> Any:
    from transformers import Mask2FormerForUniversalSegmentation

    found = read(Mask2FormerForUniversalSegmentation, here, dtype=torch.float32).eval()
    if found.config.num_labels != KINDS:
        reason = f"{here} tells {found.config.num_labels} classes apart, not COCO's {KINDS}"
        raise Unavailable(reason, "give one trained on COCO's instances")
    return found
