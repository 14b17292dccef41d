"""Reference images for distances: a folder, or a file of features made from one.

A reference whose network, weights, resize mode, count or resolution does not match its use is rejected.
"""

import json
from collections.abc import Callable, Sequence, Sized
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from fovea.eval import Score, Unavailable
from fovea.eval.caches import CACHE
from fovea.eval.facts import Facts
from fovea.eval.features import AGAIN, Known, Source, check, of_file, of_pictures
from fovea.eval.pictures import Folder, folder
from fovea.eval.statistics import paired_difference, pooled, standard_error
from fovea.eval.weights import located

Images = TypeVar("Images", bound=Sized)

STATISTICS = ({"mu", "sigma"}, {"mu", "sigma", "mu_s", "sigma_s"})  # of pytorch-fid and clean-fid; of ADM


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Reference:
    """Reference images and the requirements on them.

    path: a folder of images, or a file by `python -m scripts.reference_stats`.
    count: required number of images; null for any.
    size: `same` requires the resolution of the judged images; `any` resizes each from its own.
    cache: folder to store the features of folders in, or null.
    """

    path: Path | None = None
    count: Annotated[int, Field(ge=2)] | None = None
    size: Literal["same", "any"] = "same"
    cache: Path | None = CACHE

    def check(self, load: Callable[[], Source], features: str | None = None) -> None:
        """Raise Unavailable if the reference is missing or does not match, as far as known without images.

        features: name of the features that a file must hold.
        """
        place = self.place()
        if place.suffix != ".safetensors":
            self.pictures()
            return
        made_from, names = (known := of_file(place)).made_from, sorted(known.features)
        if features is not None and features not in names:
            raise Unavailable(f"{place.name} holds {', '.join(names)}, not {features}", AGAIN)
        for key, value in load().identity.items():
            if json.dumps(made_from.get(key)) != json.dumps(value):
                reason = f"{place.name} was made with {key}={made_from.get(key)}, not {value}"
                raise Unavailable(reason, AGAIN)
        self.counted(made_from["count"])

    def known(self, source: Source, judged: tuple[int, int]) -> Known:
        """Return the features. Raises Unavailable if they do not match `source` or the judged size.

        judged: height and width of the images to be judged.
        """
        place = self.place()
        if place.suffix == ".safetensors":
            self.check(lambda: source)
            known = of_file(place)
        else:
            known = of_pictures(self.pictures(), self.cache, source)
        size, ours = known.made_from["resolution"], list(judged)
        if self.size == "same" and size != ours:
            theirs = "of several sizes" if size is None else "{} x {}".format(*size)
            raise Unavailable(
                f"the reference images are {theirs}, those to be judged {ours[0]} x {ours[1]}",
                "make the reference anew (scripts.reference_stats --side), or set "
                "`metric.NAME.reference.size=any`",
            )
        return known

    def folder(self) -> Folder:
        """Return the folder of images. Raises Unavailable if the path is not one."""
        place = self.place()
        if place.suffix == ".npz":
            raise Unavailable(*of_npz(place))
        return folder(place)

    def pictures(self) -> Sequence[Path]:
        """Return the images of the folder. Raises Unavailable if one is unreadable or the count is wrong."""
        found = self.folder().pictures
        self.counted(len(found))
        check(found, self.cache)
        return found

    @property
    def note(self) -> str:
        """Remark to show with a score: files of the folder that were skipped."""
        return "" if self.place().suffix == ".safetensors" else self.folder().note

    def place(self) -> Path:
        if self.path is None:
            raise Unavailable(
                "no reference images are given",
                "give a folder of some, or a file of their features, as `metric.NAME.reference.path=PLACE`",
            )
        return located(self.path)

    def counted(self, n: int) -> None:
        if n < 2:
            raise Unavailable(f"{n} images in {self.path}", "give a folder of some as the reference")
        if self.count is not None and n != self.count:
            raise Unavailable(f"{n} images in {self.path}, not {self.count}", "correct `reference.count`")


def of_npz(file: Path) -> tuple[str, str]:
    """Return the reason why an .npz file is not a reference, and a remedy."""
    try:
        with np.load(file, allow_pickle=False) as opened:
            keys = sorted(opened.files)
    except (OSError, ValueError) as error:
        return f"{file} cannot be read ({error})", "give a folder of images"
    if set(keys) in STATISTICS:
        reason = (
            f"{file} holds mean and covariance as pytorch-fid, clean-fid and ADM write them, which say "
            "neither of which network and resize they are nor what each image adds"
        )
        return reason, "give the folder of the images that it was made of"
    return f"{file} is an .npz of {', '.join(keys) or 'nothing'}", "give a folder of images"


def distance_score(
    name: str,
    facts: Facts,
    adds: Callable[[Images], NDArray[np.float64]],
    mine: Images,
    dense: Images | None,
    prompts: Sequence[str],
) -> Score:
    """Return the distance of images, given as whatever `adds` takes, to a reference as a score.

    The value is the mean of the images' contributions, with its standard error and the paired difference to
    the dense images. Draws are prompts. prompts: prompt of each image. Raises Unavailable if n < 2.
    """
    if len(mine) < 2:
        raise Unavailable("one image has no covariance", "make at least two images, better some hundreds")
    each = adds(mine)
    difference = None if dense is None else paired_difference(each, adds(dense), groups=prompts, worse=None)
    value, se, per_image = float(pooled(each)), standard_error(each, groups=prompts), tuple(each.tolist())
    return Score(name, facts, value, se, len(each), per_image, difference=difference)
