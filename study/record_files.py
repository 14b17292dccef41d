"""The records of a cell on disk: appended lines, each with its checksum.

    cells/ID/records/SESSION.jsonl   {"check":"1a2b3c4d","batch":{...}}, one file per process that wrote
    cells/ID/records.parquet         an index of long records: the same batches in columns, with the number of
                                     bytes of each file that it covers; rebuilt if missing or outdated

A line that is torn, was changed or belongs to another cell is not a record: what it described is made again.
"""

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
CHUNK = 10_000  # batches converted to columns at a time
PIECES = 100  # tables above which they are concatenated
LONG = 1 << 20  # bytes of lines from which an index is worthwhile


@dataclass
class ParsedRecords:
    """All records of a cell.

    batches: tables of `BatchRecord`, each row with a list of images and the state as JSON.
    others: the remaining records, in order.
    read: number of bytes read of each file.
    broken: number of lines that are not records.
    """

    batches: "list[pa.Table]" = field(default_factory=list)
    others: list[Record] = field(default_factory=list)
    read: dict[str, int] = field(default_factory=dict)
    broken: int = 0


def line(record: Record) -> bytes:
    body = record.model_dump_json().encode()
    return b'{"check":"%08x","%s":%s}\n' % (zlib.crc32(body), NAMES[type(record)].encode(), body)


def parsed(text: bytes, cell: str) -> Record | None:
    """Parse one line; None if it is not a valid record of this cell."""
    found = LINE.fullmatch(text)
    if found is None or int(found[1], 16) != zlib.crc32(found[3]):
        return None
    try:
        record: Any = KINDS[found[2].decode()].model_validate_json(found[3])
    except (ValidationError, KeyError):
        return None
    return record if record.cell == cell else None


def append(file: Path, record: Record) -> None:
    """Append a record; it is on disk when this returns. A partial line left by a full disk is truncated."""
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


def read(folder: Path, cell: str, known: ParsedRecords | None = None) -> ParsedRecords:
    """Read the records in a cell's folder: the index and the lines after it, or only the lines added since
    `known`, which is updated in place."""
    records = known or _read_index(folder, cell) or ParsedRecords()
    fresh: list[BatchRecord] = []
    for file in sorted((folder / "records").glob("[!.]*.jsonl")):
        for record in _read_new(file, cell, records):
            if isinstance(record, BatchRecord):
                fresh.append(record)
            elif record is not None:
                records.others.append(record)
            if len(fresh) == CHUNK:
                records.batches.append(table(fresh))
                fresh = []
    if fresh or not records.batches:
        records.batches.append(table(fresh))
    if len(records.batches) > PIECES:
        import pyarrow as pa

        records.batches = [pa.concat_tables(records.batches).combine_chunks()]
    return records


def _read_new(file: Path, cell: str, records: ParsedRecords) -> Iterator[Record | None]:
    """Yield the records after those already read. An unterminated last line is left for later: a process may
    be writing it."""
    with suppress(FileNotFoundError), open(file, "rb") as stream:
        stream.seek(records.read.get(file.name, 0))
        for text in stream:
            if text.endswith(b"\n"):
                records.read[file.name] = records.read.get(file.name, 0) + len(text)
                record = parsed(text.rstrip(b"\r\n"), cell)  # copied as text, lines may end otherwise
                records.broken += record is None
                yield record


def table(records: Sequence[BatchRecord]) -> "pa.Table":
    """Return one row per batch, with its images as a list."""
    import pyarrow as pa

    rows = [r.model_dump() | {"state": json.dumps(r.state)} for r in records]
    # for a list, pyarrow imports pandas (most of a second) to check for a pandas type
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
    """Write the index if the lines not yet in one are long, so that opening a study takes only the time to
    read columns."""
    import pyarrow.parquet as parquet

    known = _read_index(folder, cell) or ParsedRecords()
    files = list((folder / "records").glob("[!.]*.jsonl"))
    if sum(file.stat().st_size for file in files) - sum(known.read.values()) < LONG:
        return
    records = read(folder, cell)
    about = {
        "version": VERSION,
        "files": {
            name: [size, *_stamp(folder / "records" / name, size)] for name, size in records.read.items()
        },
        "others": [line(record).decode() for record in records.others],
        "broken": records.broken,
    }
    part = folder / UNFINISHED.format(INDEX)
    try:
        with parquet.ParquetWriter(part, schema(), compression="zstd") as writer:
            for found in records.batches:
                writer.write_table(found)
            writer.add_key_value_metadata({cell: json.dumps(about)})
        os.replace(part, folder / INDEX)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise unwritable(folder / INDEX, error) from error


def _read_index(folder: Path, cell: str) -> ParsedRecords | None:
    """Return the indexed records; None if there is no index or it does not match the files."""
    if not (folder / INDEX).is_file():
        return None
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(folder / INDEX) as file:
            about = json.loads((file.metadata.metadata or {})[cell.encode()])
            if about["version"] != VERSION or not all(
                _unchanged(folder / "records" / name, *seen) for name, seen in about["files"].items()
            ):
                return None
            batches = [file.read_row_group(i) for i in range(file.num_row_groups)]
        others = [parsed(text.rstrip("\n").encode(), cell) for text in about["others"]]
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None
    sizes = {name: seen[0] for name, seen in about["files"].items()}
    return ParsedRecords(batches, [record for record in others if record], sizes, about["broken"])


def _stamp(file: Path, size: int) -> tuple[int, int]:
    """Return the modification time, and the checksum of the first `size` bytes."""
    total, modified = 0, file.stat().st_mtime_ns
    with open(file, "rb") as stream:
        while size > 0 and (block := stream.read(min(size, 8 << 20))):
            total, size = zlib.crc32(block, total), size - len(block)
    return modified, total


def _unchanged(file: Path, size: int, modified: int, checksum: int) -> bool:
    """True if the file is unchanged, or only longer with the same first `size` bytes."""
    now = file.stat()
    if now.st_size == size and now.st_mtime_ns == modified:
        return True
    return now.st_size >= size and _stamp(file, size)[1] == checksum
