"""The records of a cell on disk: lines appended, each with its checksum, read in one pass.

    cells/ID/records/SESSION.jsonl   {"check":"1a2b3c4d","batch":{...}}, one file per process that wrote
    cells/ID/records.parquet         an index where they are long: the same batches in columns, of as many
                                     bytes of each file as it says; made anew where it is lost or does not fit

A line that is torn, was changed or is another cell's is none: what it told of is made again."""

import json
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from fovea.study.files import UNFINISHED, flush, unwritable
from fovea.study.records import KINDS, NAMES, VERSION, BatchRecord, Record

if TYPE_CHECKING:
    import pyarrow as pa

LINE = re.compile(rb'\{"check":"([0-9a-f]{8})","(\w+)":(.*)\}')
INDEX = "records.parquet"
CHUNK = 10_000  # batches that become columns at a time
PIECES = 100  # tables that are kept apart
LONG = 1 << 20  # bytes of lines, from which on they are worth an index


@dataclass
class Noted:
    """All that stands in a cell's lines. batches: tables of `BatchRecord`, images a list in each row, state
    as JSON; others: the rest, in order. read: bytes of each file; broken: lines that are none."""

    batches: "list[pa.Table]" = field(default_factory=list)
    others: list[Record] = field(default_factory=list)
    read: dict[str, int] = field(default_factory=dict)
    broken: int = 0


def line(record: Record) -> bytes:
    body = record.model_dump_json().encode()
    return b'{"check":"%08x","%s":%s}\n' % (zlib.crc32(body), NAMES[type(record)].encode(), body)


def parsed(text: bytes, cell: str) -> Record | None:
    """None of what is no such line, or another cell's."""
    found = LINE.fullmatch(text)
    if found is None or int(found[1], 16) != zlib.crc32(found[3]):
        return None
    try:
        record: Any = KINDS[found[2].decode()].model_validate_json(found[3])
    except (ValidationError, KeyError):
        return None
    return record if record.cell == cell else None


def append(file: Path, record: Record) -> None:
    """On the disk when this returns. What a full disk left of a line is taken back."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "ab", buffering=0) as stream:
            before = stream.seek(0, os.SEEK_END)
            try:
                rest = memoryview(line(record))
                while rest:
                    rest = rest[stream.write(rest) :]
                flush(stream.fileno())
            except OSError:
                with suppress(OSError):
                    os.ftruncate(stream.fileno(), before)
                raise
    except OSError as error:
        raise unwritable(file, error) from error


def read(folder: Path, cell: str, known: Noted | None = None) -> Noted:
    """Of a cell's folder: its index, and what was written since; or what was written since what is known,
    which then is known, too."""
    noted = known or _indexed(folder, cell) or Noted()
    fresh: list[BatchRecord] = []
    for file in sorted((folder / "records").glob("[!.]*.jsonl")):
        for record in _fresh(file, cell, noted):
            if isinstance(record, BatchRecord):
                fresh.append(record)
            elif record is not None:
                noted.others.append(record)
            if len(fresh) == CHUNK:
                noted.batches.append(table(fresh))
                fresh = []
    if fresh or not noted.batches:
        noted.batches.append(table(fresh))
    if len(noted.batches) > PIECES:
        import pyarrow as pa

        noted.batches = [pa.concat_tables(noted.batches).combine_chunks()]
    return noted


def _fresh(file: Path, cell: str, noted: Noted) -> Iterator[Record | None]:
    """From where the index ends. The last line is only one once it ends: a process may be writing it."""
    with suppress(FileNotFoundError), open(file, "rb") as stream:
        stream.seek(noted.read.get(file.name, 0))
        for text in stream:
            if text.endswith(b"\n"):
                noted.read[file.name] = noted.read.get(file.name, 0) + len(text)
                record = parsed(text[:-1], cell)
                noted.broken += record is None
                yield record


def table(records: Sequence[BatchRecord]) -> "pa.Table":
    """One row per batch, its images a list in it."""
    import pyarrow as pa

    rows = [r.model_dump() | {"state": json.dumps(r.state)} for r in records]
    # pyarrow imports pandas, in most of a second, to see whether a list is one of its own
    return pa.Table.from_pylist(rows, schema()) if rows else schema().empty_table()


def schema() -> "pa.Schema":
    import pyarrow as pa

    text, whole, real, flag = pa.string(), pa.int64(), pa.float64(), pa.bool_()
    image = {
        **dict.fromkeys(("key", "prompt_id", "prompt"), text),
        "seed": pa.uint64(),
        **dict.fromkeys(("noise", "sha256"), text),
        **dict.fromkeys(("bytes", "modified"), whole),
        **dict.fromkeys(("tokens", "blocks"), real),
        "flops": whole,
    }
    batch = {
        **{"cell": text, "id": text, "size": whole, "session": text, "device": text, "time": text},
        **dict.fromkeys(("seconds", "encode_seconds", "decode_seconds"), real),
        **dict.fromkeys(("memory", "memory_process"), whole),
        **{"memory_since_start": flag, "state": text, "random_weights": flag},
        "images": pa.list_(pa.struct(image)),
    }
    return pa.schema(batch)


def index(folder: Path, cell: str) -> None:
    """Written where the lines that no index has are long: a study is opened in the time that its columns
    take."""
    import pyarrow.parquet as parquet

    known = _indexed(folder, cell) or Noted()
    files = list((folder / "records").glob("[!.]*.jsonl"))
    if sum(file.stat().st_size for file in files) - sum(known.read.values()) < LONG:
        return
    noted = read(folder, cell)
    about = {
        "version": VERSION,
        "files": {name: [size, *_seen(folder / "records" / name, size)] for name, size in noted.read.items()},
        "others": [line(record).decode() for record in noted.others],
        "broken": noted.broken,
    }
    part = folder / UNFINISHED.format(INDEX)
    try:
        with parquet.ParquetWriter(part, schema(), compression="zstd") as writer:
            for found in noted.batches:
                writer.write_table(found)
            writer.add_key_value_metadata({cell: json.dumps(about)})
        os.replace(part, folder / INDEX)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise unwritable(folder / INDEX, error) from error


def _indexed(folder: Path, cell: str) -> Noted | None:
    """None where there is no index, or one of other files than these."""
    if not (folder / INDEX).is_file():
        return None
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(folder / INDEX) as file:
            about = json.loads((file.metadata.metadata or {})[cell.encode()])
            if about["version"] != VERSION or not all(
                _same(folder / "records" / name, *seen) for name, seen in about["files"].items()
            ):
                return None
            batches = [file.read_row_group(i) for i in range(file.num_row_groups)]
        others = [parsed(text.rstrip("\n").encode(), cell) for text in about["others"]]
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None
    sizes = {name: seen[0] for name, seen in about["files"].items()}
    return Noted(batches, [record for record in others if record], sizes, about["broken"])


def _seen(file: Path, size: int) -> tuple[int, int]:
    """When it was changed, and the checksum of its first bytes."""
    total, modified = 0, file.stat().st_mtime_ns
    with open(file, "rb") as stream:
        while size > 0 and (block := stream.read(min(size, 8 << 20))):
            total, size = zlib.crc32(block, total), size - len(block)
    return modified, total


def _same(file: Path, size: int, modified: int, checksum: int) -> bool:
    """Unchanged, or the same in its first bytes."""
    now = file.stat()
    if now.st_size == size and now.st_mtime_ns == modified:
        return True
    return now.st_size >= size and _seen(file, size)[1] == checksum
