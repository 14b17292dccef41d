"""What GenEval's prompts ask for, and whether the objects in an image fulfil it (arXiv:2310.11513)."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from fovea.eval import Unavailable
from fovea.eval.prompt_data import PromptLine, by_prompt

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
APART = 0.1  # of their widths and heights, by which two objects must be apart to be beside each other
KINDS = (  # COCO's classes in their usual order, by GenEval's names
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse"),
    *("sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie"),
    *("suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove"),
    *("skateboard", "surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon"),
    *("bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut"),
    *("cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop"),
    *("computer mouse", "tv remote", "computer keyboard", "cell phone", "microwave", "oven", "toaster"),
    *("sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)


class Wanted(BaseModel, extra="forbid"):
    """Objects that a prompt asks for, or, in `exclude`, that it must not have.

    position: relation to the objects of an earlier entry, and that entry's place.
    """

    kind: str = Field(alias="class")
    count: int
    color: str | None = None
    position: tuple[str, int] | None = None


class Task(PromptLine):
    """A line of evaluation_metadata.jsonl."""

    tag: str
    include: tuple[Wanted, ...]
    exclude: tuple[Wanted, ...] = ()


class Seen(NamedTuple):
    """An object in an image: box (4,), as left, top, right, bottom; mask bool (H, W)."""

    box: NDArray
    mask: NDArray


Colours = Callable[[Sequence[Seen], str], Sequence[str]]  # the colours of objects of a class


def correct(task: Task, seen: Mapping[str, Sequence[Seen]], colours: Colours) -> bool:
    """Whether an image shows what its prompt asks for. seen: its objects by class, the surest first."""
    groups: list[Sequence[Seen] | None] = []
    for wanted in task.include:
        group = seen.get(wanted.kind, ())[: wanted.count]
        groups.append(group if _shown(wanted, group, groups, colours) else None)
    too_many = any(len(seen.get(unwanted.kind, ())) >= unwanted.count for unwanted in task.exclude)
    return None not in groups and not too_many


def _shown(
    wanted: Wanted, group: Sequence[Seen], groups: Sequence[Sequence[Seen] | None], colours: Colours
) -> bool:
    if len(group) < wanted.count:
        return False
    if wanted.color is not None and [*colours(group, wanted.kind)].count(wanted.color) < wanted.count:
        return False
    if wanted.position is None:
        return True
    relation, place = wanted.position
    others = groups[place]
    return others is not None and all(relation in relations(a.box, b.box) for a in group for b in others)


def relations(a: NDArray, b: NDArray) -> set[str]:
    """Return where box a (4,) is, seen from box b: `left of`, `right of`, `above`, `below`.

    The offset of the centres is shortened by APART of both sizes. What is left must be more than half of the
    centres' distance.
    """
    (corners_a, corners_b) = a.reshape(2, 2).astype(float), b.reshape(2, 2).astype(float)
    offset = corners_a.mean(0) - corners_b.mean(0)
    sizes = np.abs(corners_a[1] - corners_a[0]) + np.abs(corners_b[1] - corners_b[0])
    left = np.maximum(np.abs(offset) - APART * sizes, 0) * np.sign(offset)
    if (np.abs(left) < 1e-3).all():
        return set()
    x, y = left / np.linalg.norm(offset)
    found = {"left of": x < -0.5, "right of": x > 0.5, "above": y < -0.5, "below": y > 0.5}
    return {name for name, holds in found.items() if holds}


def tasks(file: Path) -> dict[str, Task]:
    """Read evaluation_metadata.jsonl, by prompt. Raises Unavailable."""
    found = by_prompt(file, Task)
    wanted = {w.kind for task in found.values() for w in (*task.include, *task.exclude)}
    if unknown := sorted(wanted - {*KINDS}):
        raise Unavailable(
            f"{file} asks for {', '.join(unknown)}, which the detector does not know", "leave it out"
        )
    return found
