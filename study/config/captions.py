"""COCO's captions (captions_val2014.json, captions_val2017.json) in one fixed order, whose first n are the n
to be drawn.

Nobody publishes which 5,000 or 10,000 captions a paper drew, so the rule is ours, and needs no random numbers
that a library could change:

    the captions of an image are ranked by their id, from 0;
    images are ordered by the sha256 of their id, written in decimal;
    first come all captions of rank 0 in the order of their images, then all of rank 1, and so on.

So the first 5,000 of 2014 are one caption of each of 5,000 images and are the beginning of the first 10,000;
of 2017, which has 5,000 images, 10,000 are two of each. Runs of white space become one space. A prompt is
called IMAGE/CAPTION by their ids; a text that an earlier caption has is passed over."""

import hashlib
import json
from collections import defaultdict


def captions(text: str) -> list[tuple[str, str]]:
    """All of them. Raises ValueError where the text is no COCO caption file."""
    try:
        listed = json.loads(text)["annotations"]
        rows = sorted((int(a["image_id"]), int(a["id"]), str(a["caption"])) for a in listed)
    except (ValueError, KeyError, TypeError):
        raise ValueError("is no COCO caption file: no annotations with image_id, id and caption") from None
    of_image = defaultdict(list)
    for image, name, caption in rows:
        of_image[image].append((f"{image}/{name}", " ".join(caption.split())))
    order = sorted(of_image, key=lambda image: hashlib.sha256(str(image).encode()).digest())
    rounds = range(max(map(len, of_image.values()), default=0))
    return [of_image[i][rank] for rank in rounds for i in order if rank < len(of_image[i])]
