"""The finished images of a cell and the timed batches behind them, in columns."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from fovea.study.records import BatchRecord, FailureRecord, FlopsRecord, ImageRecord, Record, WarmUpRecord
from fovea.study.segments import Noted

if TYPE_CHECKING:
    import pyarrow as pa

Kind = TypeVar("Kind", bound=Record)


class Finished(Mapping[str, ImageRecord]):
    """Key to record, in the order in which they were made, or in that of the keys that were asked for. A
    record is made of the columns when it is asked for: what many images have, `column` gives at once."""

    def __init__(self, batches: "pa.Table", images: "pa.Table", others: Sequence[Record] = ()):
        """images: with their row in `batches` as `batch`."""
        self._batches, self._images, self.others = batches, images, others

    @classmethod
    def of(cls, noted: Noted) -> "Finished":
        """All that was noted; of two records of one key the later one."""
        import pyarrow as pa
        import pyarrow.compute as pc

        batches = pa.concat_tables(noted.batches).combine_chunks()
        lists = batches["images"].combine_chunks()
        images = pa.Table.from_struct_array(lists.flatten())
        images = images.append_column("batch", pc.list_parent_indices(lists).cast(pa.int64()))  # type: ignore[attr-defined]
        found = cls(batches.drop_columns(["images"]), images, tuple(noted.others))
        place = found._place
        return found if len(place) == images.num_rows else found._take(list(place.values()))

    def __len__(self) -> int:
        return self._images.num_rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._place)

    def __contains__(self, key: object) -> bool:
        return key in self._place

    def __getitem__(self, key: str) -> ImageRecord:
        row = self._images.slice(self._place[key], 1).drop_columns(["batch"]).to_pylist()[0]
        return ImageRecord.model_construct(**row)

    @cached_property
    def _place(self) -> dict[str, int]:
        keys = self._images["key"].to_pylist()
        return {key: i for i, key in enumerate(keys)}

    def only(self, keys: Iterable[str]) -> "Finished":
        """Those of these keys that are there, in their order."""
        rows = [self._place[key] for key in keys if key in self._place]
        return self if rows == list(range(len(self))) else self._take(rows)

    def _take(self, rows: Sequence[int]) -> "Finished":
        return Finished(self._batches, self._images.take(np.array(rows, np.int64)), self.others)

    def column(self, name: str) -> np.ndarray:
        """A field of every image's record."""
        return self._images[name].to_numpy()

    def of_batch(self, name: str) -> np.ndarray:
        """A field of the batch that each image was made in."""
        rows = self._images["batch"].to_numpy()
        return self._batches[name].to_numpy()[rows]

    @cached_property
    def timings(self) -> list[BatchRecord]:
        """Every timed call of the batches that these images are of, in the order in which they were made."""
        import pyarrow.compute as pc

        own = set(self._batches["id"].take(pc.unique(self._images["batch"])).to_pylist())  # type: ignore[attr-defined]
        rows = [i for i, name in enumerate(self._batches["id"].to_pylist()) if name in own]
        found = self._batches.take(np.array(rows, np.int64)).to_pylist()
        return [BatchRecord.model_construct(**r | {"state": json.loads(r["state"])}) for r in found]

    @cached_property
    def batches(self) -> dict[str, BatchRecord]:
        """The last timed call of each batch, by its id."""
        return {batch.id: batch for batch in self.timings}

    def noted(self, kind: type[Kind]) -> list[Kind]:
        """What else was noted of the cell, in order."""
        return [record for record in self.others if isinstance(record, kind)]

    @property
    def warm_up(self) -> WarmUpRecord | None:
        return (self.noted(WarmUpRecord) or [None])[-1]

    @property
    def flops(self) -> FlopsRecord | None:
        return (self.noted(FlopsRecord) or [None])[-1]

    @property
    def failures(self) -> list[FailureRecord]:
        return self.noted(FailureRecord)
