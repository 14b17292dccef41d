"""What a study keeps, typed: a start of it, its cells, their timed batches and images.

`VERSION` is that of the whole layout (study/store.py). It stands in the records of studies and cells; one of
another version is refused by name, never guessed at."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

VERSION = 1
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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
