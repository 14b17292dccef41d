"""What a study keeps, typed: a start of it, its cells, their timed batches and images; and the
images of a cell in columns, as they are read (`Finished`).

`VERSION` is that of the whole layout (study/store.py). It stands in the records of studies and cells; one of
another version is refused by name, never guessed at."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 1
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Kind = TypeVar("Kind", bound=Record)


class StudyRecord(BaseModel):
    """A start of a study, or of a worker of it: runs/SESSION.json. What a reviewer needs to run it again."""

    model_config = ConfigDict(frozen=True, extra="allow")

    version: int
    session: str
    command: str
    time: str
    packages: dict[str, str]
    machine: dict[str, Any]
    seeds: list[int]
    prompts: dict[str, Any]
    random_weights: bool
    config: dict[str, Any]
    cells: dict[str, dict[str, Any]]
    samples: dict[str, dict[str, Any]]


class CellRecord(Record):
    """cell.json: what a cell is. identity: all that its id is the hash of."""

    version: int
    id: str
    label: str
    role: str
    series: str
    axes: dict[str, Any]
    dense: str
    off: bool
    identity: dict[str, Any]

    @classmethod
    def of(cls, cell: Any) -> "CellRecord":
        """Of a study.plan.cells.Cell."""
        known = {name: getattr(cell, name) for name in cls.model_fields if name != "version"}
        return cls(version=VERSION, **known)


class ImageRecord(Record):
    """noise: hash of its initial noise. sha256, bytes, modified: of its file; modified in nanoseconds.
    tokens: how many went through the transformer, in all steps; blocks: how many were executed; flops: by the
    closed form."""

    key: str
    prompt_id: str
    prompt: str
    seed: int
    noise: str
    sha256: str
    bytes: Count
    modified: int
    tokens: Annotated[float, Field(ge=0)]
    blocks: Annotated[float, Field(ge=0)]
    flops: Count


class BatchRecord(Record):
    """One timed call. id: hash of the keys it was made of, size: how many. session: the start that it is of;
    device: what it ran on. seconds: of the method alone. memory: peak in bytes, of torch's allocator on CUDA,
    else of the process; memory_process: of the process, since it began if memory_since_start. state: what
    else went on (eval/telemetry.py). images: those that were kept of it; none where it was timed again."""

    cell: str
    id: str
    size: Annotated[int, Field(ge=1)]
    session: str
    device: str
    time: str
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    encode_seconds: Seconds
    decode_seconds: Seconds
    memory: Count | None
    memory_process: Count | None
    memory_since_start: bool
    state: dict[str, Any]
    random_weights: bool
    images: tuple[ImageRecord, ...] = ()


class WarmUpRecord(Record):
    """The first call of a session: the cold start. cut: how many of the study's prompts are longer than the
    text encoders read, as a sentence; None for none. graphs: that torch compiled in it."""

    cell: str
    session: str
    size: Annotated[int, Field(ge=1)]
    seconds: Seconds
    compile_seconds: Seconds
    graphs: Count = 0
    cut: str | None = None


class FlopsRecord(Record):
    """FLOPs of `images` images: as torch counts them, and by the closed form. least: of what a cache compared
    with its threshold; None where there was nothing."""

    cell: str
    images: Annotated[int, Field(ge=1)]
    counted: Count
    closed: Count
    least: float | None = None


class FailureRecord(Record):
    cell: str
    time: str
    type: str
    message: str
    traceback: str


KINDS: dict[str, type[Record]] = {
    "batch": BatchRecord,
    "warm_up": WarmUpRecord,
    "flops": FlopsRecord,
    "failure": FailureRecord,
}
NAMES = {kind: name for name, kind in KINDS.items()}


class Finished(Mapping[str, ImageRecord]):
    """Key to record, in the order in which they were made, or in that of the keys that were asked for. A
    record is made of the columns when it is asked for: what many images have, `column` gives at once."""

    def __init__(self, batches: "pa.Table", images: "pa.Table", others: Sequence[Record] = ()):
        """images: with their row in `batches` as `batch`."""
        self._batches, self._images, self.others = batches, images, others

    @classmethod
    def of(cls, tables: "Sequence[pa.Table]", others: Sequence[Record]) -> "Finished":
        """All that was noted; of two records of one key the later one. tables: of batches, images a list in
        each row (study/segments.py)."""
        import pyarrow as pa
        import pyarrow.compute as pc

        batches = pa.concat_tables(tables).combine_chunks()
        lists = batches["images"].combine_chunks()
        images = pa.Table.from_struct_array(lists.flatten())
        images = images.append_column("batch", pc.list_parent_indices(lists).cast(pa.int64()))  # type: ignore[attr-defined]
        found = cls(batches.drop_columns(["images"]), images, tuple(others))
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
