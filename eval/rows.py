"""Values computed per image, one row each, in memory or memory-mapped from disk."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Found = Mapping[str, Tensor]  # name -> one row per image


class Column:
    """Values of n images, (n, ...), read on conversion to an array.

    Slicing and indexing read nothing, so memory is used only for the rows that are converted.
    """

    def __init__(self, parts: Sequence[Tensor], part: NDArray[np.int64], row: NDArray[np.int64]):
        """part, row: (n,): location of each image's row."""
        self.parts, self.part, self.row = parts, part, row

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, at: slice | NDArray[np.int64]) -> "Column":
        return Column(self.parts, self.part[at], self.row[at])

    def tensor(self) -> Tensor:
        """Read all rows, (n, ...)."""
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
    """Values by image id."""

    def __init__(self):
        self._parts: list[Found] = []
        self._place: dict[str, tuple[int, int]] = {}

    def missing(self, ids: Sequence[str]) -> list[int]:
        """Return the indices in `ids` without values."""
        return [i for i, name in enumerate(ids) if name not in self._place]

    def add(self, ids: Sequence[str], found: Found) -> None:
        self._place |= {name: (len(self._parts), i) for i, name in enumerate(ids)}
        self._parts.append(found)

    def take(self, ids: Sequence[str]) -> dict[str, Column]:
        """Return the columns (n, ...) by name, in the order of ids, all of which must have values."""
        part, row = np.array([self._place[name] for name in ids], np.int64).reshape(-1, 2).T
        return {name: Column([p[name] for p in self._parts], part, row) for name in self._parts[0]}
