"""What an offline wandb run holds, read from its transaction log: blocks of 32 KiB, and in them records, each
with its checksum (4 bytes), length (2) and part (1): 1 whole, 2 first, 3 middle, 4 last."""

import json
import struct
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER = 32768, 7


def records(file: Path) -> list[Record]:
    data, place, found, parts = file.read_bytes(), HEADER, [], b""
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:  # nothing begins in the last bytes of a block
            place += BLOCK - place % BLOCK
            continue
        _, length, part = struct.unpack("<IHB", data[place : place + HEADER])
        parts += data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if part in (1, 4):
            found.append(Record.FromString(parts))
            parts = b""
    return found


def history(file: Path) -> dict[str, object]:
    """All that was logged, by key."""
    items = [item for r in records(file) if r.HasField("history") for item in r.history.item]
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def summary(file: Path) -> dict[str, object]:
    items = [item for r in records(file) if r.HasField("summary") for item in r.summary.update]
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def config(file: Path) -> dict[str, object]:
    items = [item for r in records(file) if r.HasField("run") for item in r.run.config.update]
    return {item.key: json.loads(item.value_json) for item in items}


def tags(file: Path) -> list[str]:
    return [tag for r in records(file) if r.HasField("run") for tag in r.run.tags]
