"""What was found of images, a row each: where it lies, in memory or mapped from the disk."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Found = Mapping[str, Tensor]  # by name, one row per image


class Column:
    """What was found of n images, (n, ...), read where it is made an array. Slices and indices of it read
    nothing, so that features of any number of images take the memory of those that are looked at."""

    def __init__(self, parts: Sequence[Tensor], part: NDArray[np.int64], row: NDArray[np.int64]):
        """part, row: (n,): where each image's row is."""
        self.parts, self.part, self.row = parts, part, row

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, at: slice | NDArray[np.int64]) -> "Column":
        return Column(self.parts, self.part[at], self.row[at])

    def tensor(self) -> Tensor:
        """All of it, (n, ...)."""
        first = self.parts[self.part[0]]
        found = torch.empty(len(self), *first.shape[1:], dtype=first.dtype)
        for i in np.unique(self.part):
            places = np.flatnonzero(self.part == i)
            found[places] = self.parts[i][self.row[places]]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        found = self.tensor().numpy()
        return found if dtype is None else found.astype(dtype, copy=False)


class Rows:
    """What was found of images by the images' ids."""

    def __init__(self):
        self._parts: list[Found] = []
        self._place: dict[str, tuple[int, int]] = {}

    def missing(self, ids: Sequence[str]) -> list[int]:
        """Places in ids."""
        return [i for i, name in enumerate(ids) if name not in self._place]

    def add(self, ids: Sequence[str], found: Found) -> None:
        self._place |= {name: (len(self._parts), i) for i, name in enumerate(ids)}
        self._parts.append(found)

    def take(self, ids: Sequence[str]) -> dict[str, Column]:
        """Of each name (n, ...), in the order of ids, all of which must be there."""
        part, row = np.array([self._place[name] for name in ids], np.int64).reshape(-1, 2).T
        return {name: Column([p[name] for p in self._parts], part, row) for name in self._parts[0]}
