"""The layouts of files of prompts. What cannot be read as it was meant is `Faulty`, with its place.

    .txt    one a line: T2I-CompBench           .jsonl  one JSON object a line, key `prompt`: GenEval
    .csv    quoted, column `prompt`: DrawBench   .json   COCO's captions, see `captions`
    .tsv    not quoted, column `prompt`: PartiPrompts

A column may be called Prompt or Prompts; a column or key `id` names the prompts, else their place does."""

import csv
import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fovea.study.config.errors import shown

COLUMNS = ("prompt", "prompts")
SEPARATORS = (",", ";", "\t", "|")
MARKS = {  # byte-order marks; the longer ones first, as one begins with another
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


class Row(NamedTuple):
    """One prompt of a file. place: for messages, `line 3`."""

    id: str
    text: str
    place: str


class Faulty(ValueError):
    """What is wrong with a file, and where in it."""


def decoded(data: bytes) -> str:
    """UTF-8, or what the byte-order mark says. Raises Faulty with the line of the first byte that is not."""
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), "UTF-8")
    try:
        text = data.decode("utf-8-sig" if encoding == "UTF-8" else encoding)
    except UnicodeDecodeError as error:
        where = data[: error.start].decode(encoding, "ignore").count("\n") + 1
        raise Faulty(f"cannot be read as {encoding} text: line {where}, {error.reason}") from None
    if "\0" in text:
        where = text[: text.index("\0")].count("\n") + 1
        raise Faulty(f"line {where} holds a zero byte: save it as UTF-8, or with a byte-order mark")
    return text


def lines(text: str) -> Iterator[Row]:
    """Ends of lines are those of Unix, Windows and old Macs; other separators are characters of a prompt."""
    for i, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        yield Row(str(i), line, f"line {i}")


def table(text: str, separators: Sequence[str] = SEPARATORS, **dialect: Any) -> Iterator[Row]:
    """A table with a header, at the first separator that gives it a column of prompts."""
    tried = [_header(text, delimiter=separator, **dialect) for separator in separators]
    for separator, header in zip(separators, tried, strict=True):
        if any(name in COLUMNS for name in header):
            records = _records(text, delimiter=separator, **dialect)
            next(records)
            yield from _table(header, records, separator)
            return
    if any(tried):
        raise Faulty(f"needs a column `prompt`; it has {', '.join(tried[0] or max(tried, key=len))}")


def _header(text: str, **dialect: Any) -> list[str]:
    """Of the columns, in lower case; nothing where it cannot be read so."""
    try:
        return [name.strip().lower() for name in next(_records(text, **dialect), (0, []))[1]]
    except Faulty:
        return []


def _table(header: Sequence[str], rows: Iterator[tuple[int, list[str]]], separator: str) -> Iterator[Row]:
    columns = [i for i, name in enumerate(header) if name in COLUMNS]
    if len(columns) > 1 or header.count("id") > 1:
        raise Faulty(f"line 1: one column `prompt` and at most one `id`, not {', '.join(header)}")
    name = header.index("id") if "id" in header else None
    for i, (line, fields) in enumerate(rows, 1):
        if len(fields) != len(header):
            raise Faulty(
                f"line {line} has {len(fields)} fields, the header {len(header)}; a prompt that holds "
                f"{separator!r} or a line break stands in quotes in a .csv, and in no .tsv"
            )
        yield Row(
            (fields[name].strip() if name is not None else "") or str(i), fields[columns[0]], f"line {line}"
        )


def _records(text: str, **dialect: Any) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, each with the line it begins in."""
    reader, line = csv.reader(io.StringIO(text, newline=""), strict=True, **dialect), 1
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise Faulty(f"line {line}: {error}") from None
        if row is None:
            return
        if row:
            yield line, row
        line = reader.line_num + 1


def objects(text: str) -> Iterator[Row]:
    """An object with a text `prompt` on each line that is not empty."""
    for line in lines(text):
        if not line.text.strip():
            continue
        record = parsed(line.text, f"{line.place}: ")
        if not isinstance(record, dict) or not isinstance(record.get("prompt"), str):
            raise Faulty(f"needs a JSON object with a text `prompt` on each line; {line.place} is none")
        yield Row(_id(record.get("id"), line), record["prompt"], line.place)


def _id(given: Any, line: Row) -> str:
    if isinstance(given, bool) or not isinstance(given, str | int | None):
        raise Faulty(f"{line.place}: an id is text or a whole number, not {json.dumps(given)[:40]}")
    return line.id if given is None or given == "" else str(given)


def captions(text: str) -> Iterator[Row]:
    """COCO's (captions_val2014.json, captions_val2017.json) in one fixed order, whose first n are drawn.

    Nobody publishes which 5,000 or 10,000 captions a paper drew, so the rule is ours, and needs no random
    numbers that a library could change:

        the captions of an image are ranked by their id, from 0;
        images are ordered by the sha256 of their id, written in decimal;
        first come all captions of rank 0 in the order of their images, then all of rank 1, and so on.

    So the first 5,000 of 2014 are one caption of each of 5,000 images and are the beginning of the first
    10,000; of 2017, which has 5,000 images, 10,000 are two of each. Runs of white space become one space. A
    prompt is called IMAGE/CAPTION by their ids; a text that an earlier caption has is passed over."""
    record = parsed(text, "is no COCO caption file: ")
    listed = record.get("annotations") if isinstance(record, dict) else None
    if not isinstance(listed, list):
        raise Faulty("is no COCO caption file: no annotations with image_id, id and caption")
    of_image = defaultdict(list)
    for image, name, row in sorted(map(_annotation, listed, range(1, len(listed) + 1))):
        of_image[image].append(row._replace(id=f"{image}/{name}"))
    order = sorted(of_image, key=lambda image: hashlib.sha256(str(image).encode()).digest())
    for rank in range(max(map(len, of_image.values()), default=0)):
        yield from (of_image[image][rank] for image in order if rank < len(of_image[image]))


def _annotation(given: Any, i: int) -> tuple[int, int, Row]:
    """Ids of its image and its own, and the caption."""
    place = f"annotation {i}"
    for key, kind in (("image_id", int), ("id", int), ("caption", str)):
        value = given.get(key) if isinstance(given, dict) else None
        if not isinstance(value, kind) or isinstance(value, bool):
            wanted = "text" if kind is str else "a whole number"
            raise Faulty(f"{place}: its {key} must be {wanted}, not {json.dumps(value)[:40]}")
    return given["image_id"], given["id"], Row("", " ".join(given["caption"].split()), place)


def parsed(text: str, where: str) -> Any:
    """JSON, or Faulty that begins with `where`; also of a key that an object has twice."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise Faulty(f"{where}nested too deeply") from None
    except ValueError as error:
        raise Faulty(f"{where}{error}") from None


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {shown(json.dumps(twice))} is there twice")
    return found


LAYOUTS: Mapping[str, Callable[[str], Iterable[Row]]] = {
    ".txt": lines,
    ".csv": table,
    ".tsv": lambda text: table(text, "\t", quoting=csv.QUOTE_NONE),
    ".jsonl": objects,
    ".json": captions,
}
