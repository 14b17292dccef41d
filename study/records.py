"""The typed records of a study: its starts, cells, timed batches and images; and the images of a cell in
columns (`Finished`).

`VERSION` is the version of the whole layout (study/store.py) and is stored in the records of studies and
cells. Records of another version are refused by name, never guessed at."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 1
Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Kind = TypeVar("Kind", bound=Record)


class DescribedCell(TypedDict):
    """A cell in a study's record."""

    label: str
    role: str
    series: str
    dense: str
    axes: dict[str, Any]
    model: dict[str, Any]
    method: dict[str, Any]
    batch: int
    weights: str
    packages: dict[str, str]
    code: str
    machine: str


class DescribedSample(TypedDict):
    id: str
    prompt: str
    seed: int


class DescribedConfig(TypedDict):
    """The keys of the config that commands on stored studies read."""

    metric: dict[str, dict[str, Any]]
    eval: dict[str, Any]
    n: int
    cost: str


class StudyRecord(BaseModel):
    """What a reviewer needs to repeat a study: provenance.json, and runs/SESSION.json for one start of it or
    of one of its workers. There may be more keys at every level."""

    version: int
    session: str
    command: str
    time: str
    packages: dict[str, str]
    machine: dict[str, Any]
    seeds: list[int]
    prompts: dict[str, Any]
    random_weights: bool
    config: DescribedConfig
    cells: Annotated[dict[str, DescribedCell], Field(min_length=1)]
    samples: Annotated[dict[str, DescribedSample], Field(min_length=1)]


class CellRecord(Record):
    """The definition of a cell, cell.json. identity: everything that its id is made of."""

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
        """Make the record of a study.plan.cells.Cell."""
        known = {name: getattr(cell, name) for name in cls.model_fields if name != "version"}
        return cls(version=VERSION, **known)


class ImageRecord(Record):
    """One image.

    noise: hash of the initial noise.
    sha256, bytes, modified: of the image file; modified in nanoseconds.
    tokens: tokens processed by the transformer, summed over steps.
    blocks: transformer blocks executed.
    flops: FLOPs by the closed form.
    """

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
    """One timed call.

    id: hash of the batch's sample keys.
    size: number of images.
    session: the start that it belongs to.
    device: device it ran on.
    seconds: time of the method alone.
    memory: peak in bytes, of torch's allocator on CUDA, else of the process.
    memory_process: peak of the process; since the process started if memory_since_start.
    state: what else went on (eval/telemetry.py).
    images: the images kept from this call; empty if it only repeated a timing.
    """

    cell: str
    id: str
    size: Annotated[int, Field(ge=1)]
    session: str
    device: str
    time: str
    seconds: Annotated[float, Field(gt=0)]
    encode_seconds: Seconds
    decode_seconds: Seconds
    memory: Count | None
    memory_process: Count | None
    memory_since_start: bool
    state: dict[str, Any]
    random_weights: bool
    images: tuple[ImageRecord, ...] = ()


class WarmUpRecord(Record):
    """The first call of a session: the cold start.

    cut: a sentence on how many of the study's prompts exceed the text encoders' limit; None if none does.
    graphs: number of graphs that torch compiled during the call.
    """

    cell: str
    session: str
    size: Annotated[int, Field(ge=1)]
    seconds: Seconds
    compile_seconds: Seconds
    graphs: Count = 0
    cut: str | None = None


class FlopsRecord(Record):
    """FLOPs of `images` images.

    counted: as counted by torch.
    closed: by the closed form.
    least: the smallest value that a cache compared with its threshold; None if there was none.
    """

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
    """A mapping from key to image record, in the order of creation or, after `only`, of the requested keys.
    Records are built from the columns on access; `column` returns one field of all images at once."""

    def __init__(self, batches: "pa.Table", images: "pa.Table", others: Sequence[Record] = ()):
        """images: each with its row number in `batches` as column `batch`."""
        self._batches, self._images, self.others = batches, images, others

    @classmethod
    def of(cls, tables: "Sequence[pa.Table]", others: Sequence[Record]) -> "Finished":
        """Combine all stored records; the last record of a key wins. tables: of batches, each row with a list
        of images (study/record_files.py)."""
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
        """Return the images among these keys that exist, in the order of the keys."""
        rows = [self._place[key] for key in keys if key in self._place]
        return self if rows == list(range(len(self))) else self._take(rows)

    def _take(self, rows: Sequence[int]) -> "Finished":
        return Finished(self._batches, self._images.take(np.array(rows, np.int64)), self.others)

    def column(self, name: str) -> np.ndarray:
        """Return one field of every image's record."""
        return self._images[name].to_numpy()

    def of_batch(self, name: str) -> np.ndarray:
        """Return one field of the batch that each image was made in."""
        rows = self._images["batch"].to_numpy()
        return self._batches[name].to_numpy()[rows]

    @cached_property
    def timings(self) -> list[BatchRecord]:
        """Every timed call of the batches that these images belong to, in order of creation."""
        import pyarrow.compute as pc

        own = set(self._batches["id"].take(pc.unique(self._images["batch"])).to_pylist())  # type: ignore[attr-defined]
        rows = [i for i, name in enumerate(self._batches["id"].to_pylist()) if name in own]
        found = self._batches.take(np.array(rows, np.int64)).to_pylist()
        return [BatchRecord.model_construct(**r | {"state": json.loads(r["state"])}) for r in found]

    @cached_property
    def batches(self) -> dict[str, BatchRecord]:
        """The last timed call of each batch, by batch id."""
        return {batch.id: batch for batch in self.timings}

    def noted(self, kind: type[Kind]) -> list[Kind]:
        """Return the cell's other records of one kind, in order."""
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
