"""The images that methods are judged against: a folder, or a file of features that was made of one before.

Refused, and never used in silence, where network, weights, resize mode, count or resolution of the reference
are not those that it is used with.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from fovea.eval import Score, Unavailable
from fovea.eval.caches import CACHE
from fovea.eval.facts import Facts
from fovea.eval.features import AGAIN, Features, Known, Source, check, header, of_file, of_folder
from fovea.eval.pictures import Folder, folder
from fovea.eval.statistics import paired_difference, pooled, standard_error
from fovea.eval.weights import located

STATISTICS = ({"mu", "sigma"}, {"mu", "sigma", "mu_s", "sigma_s"})  # of pytorch-fid and clean-fid, and of ADM


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Reference:
    """Which images, and what they have to be.

    path: a folder of images, or a file by `python -m scripts.reference_stats`. count: how many there must be;
    null takes what there is. size: `same`, they must have the resolution of the images to be judged; `any`,
    each is resized from its own. cache: a folder to keep the features of folders in, or null.
    """

    path: Path | None = None
    count: Annotated[int, Field(ge=2)] | None = None
    size: Literal["same", "any"] = "same"
    cache: Path | None = CACHE

    def check(self, load: Callable[[], Source]) -> None:
        """Raises Unavailable if it is missing, or is not what it should be as far as can be known by now."""
        place = self.place()
        if place.suffix != ".safetensors":
            found = self.folder()
            self.counted(len(found.pictures))
            return check(found.pictures, self.cache)
        made_from = header(place)
        for key, value in load().identity.items():
            if json.dumps(made_from.get(key)) != json.dumps(value):
                reason = f"{place.name} was made with {key}={made_from.get(key)}, not {value}"
                raise Unavailable(reason, AGAIN)
        self.counted(made_from["count"])

    def known(self, source: Source, judged: tuple[int, int]) -> Known:
        """The features. Raises Unavailable if they are no reference for `source` of images of this height and
        width."""
        self.check(lambda: source)
        place = self.place()
        known = of_file(place) if place.suffix == ".safetensors" else of_folder(place, self.cache, source)
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
        """Raises Unavailable if the place is none."""
        place = self.place()
        if place.suffix == ".npz":
            raise Unavailable(*of_npz(place))
        return folder(place)

    @property
    def note(self) -> str:
        """What is to be said of it beside a score: files of the folder that were passed over."""
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
    """Why it is no reference, and what would help."""
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
    adds: Callable[[Features], NDArray[np.float64]],
    mine: Features,
    dense: Features | None,
    prompts: Sequence[str],
) -> Score:
    """The distance of features (n, d) to a reference: the mean over images of what each adds to it, the
    standard error of that mean, and its difference to the dense images' in pairs. prompts: of each image;
    they are the draws.

    Raises Unavailable if n < 2.
    """
    if len(mine) < 2:
        raise Unavailable("one image has no covariance", "make at least two images, better some hundreds")
    each = adds(mine)
    difference = None if dense is None else paired_difference(each, adds(dense), groups=prompts, worse=None)
    value, se, per_image = float(pooled(each)), standard_error(each, groups=prompts), tuple(each.tolist())
    return Score(name, facts, value, se, len(each), per_image, difference=difference)
