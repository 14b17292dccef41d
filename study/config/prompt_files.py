"""The formats of prompt files. A file that does not follow its format raises `InvalidFile` with the place.

    .txt    one prompt per line: T2I-CompBench     .jsonl  one JSON object per line, key `prompt`: GenEval
    .csv    quoted, column `prompt`: DrawBench     .json   COCO captions, see `captions`
    .tsv    not quoted, column `prompt`: PartiPrompts

The column may also be called Prompt or Prompts. A column or key `id` names the prompts; without one, their
position does."""

import csv
import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fovea.study.config.errors import as_text

COLUMNS = ("prompt", "prompts")
SEPARATORS = (",", ";", "\t", "|")
MARKS = {  # byte-order marks, longer ones first because a shorter one is a prefix of another
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


class Row(NamedTuple):
    """One prompt of a file. place: its position for messages, such as `line 3`."""

    id: str
    text: str
    place: str


class InvalidFile(ValueError):
    """What is wrong with a file, and where."""


def decode(data: bytes) -> str:
    """Decode UTF-8, or the encoding of the byte-order mark. Raises InvalidFile with the line of the first
    invalid byte."""
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), "UTF-8")
    try:
        text = data.decode("utf-8-sig" if encoding == "UTF-8" else encoding)
    except UnicodeDecodeError as error:
        where = data[: error.start].decode(encoding, "ignore").count("\n") + 1
        raise InvalidFile(f"cannot be read as {encoding} text: line {where}, {error.reason}") from None
    if "\0" in text:
        where = text[: text.index("\0")].count("\n") + 1
        raise InvalidFile(f"line {where} holds a zero byte: save it as UTF-8, or with a byte-order mark")
    return text


def lines(text: str) -> Iterator[Row]:
    """Yield each line. Unix, Windows and old Mac line ends are recognised; other Unicode separators are part
    of a prompt."""
    for i, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        yield Row(str(i), line, f"line {i}")


def table(text: str, separators: Sequence[str] = SEPARATORS, **dialect: Any) -> Iterator[Row]:
    """Yield the rows of a table with a header, using the first separator that yields a prompt column."""
    tried = [_header(text, delimiter=separator, **dialect) for separator in separators]
    for separator, header in zip(separators, tried, strict=True):
        if any(name in COLUMNS for name in header):
            records = _records(text, delimiter=separator, **dialect)
            next(records)
            yield from _table(header, records, separator)
            return
    if any(tried):
        raise InvalidFile(f"needs a column `prompt`; it has {', '.join(tried[0] or max(tried, key=len))}")


def _header(text: str, **dialect: Any) -> list[str]:
    """Return the column names in lower case; empty if the header cannot be parsed."""
    try:
        return [name.strip().lower() for name in next(_records(text, **dialect), (0, []))[1]]
    except InvalidFile:
        return []


def _table(header: Sequence[str], rows: Iterator[tuple[int, list[str]]], separator: str) -> Iterator[Row]:
    columns = [i for i, name in enumerate(header) if name in COLUMNS]
    if len(columns) > 1 or header.count("id") > 1:
        raise InvalidFile(f"line 1: one column `prompt` and at most one `id`, not {', '.join(header)}")
    name = header.index("id") if "id" in header else None
    for i, (line, fields) in enumerate(rows, 1):
        if [trimmed(field).lower() for field in fields] == header:
            raise InvalidFile(f"line {line} is the header again: take it out")
        if len(fields) != len(header):
            raise InvalidFile(
                f"line {line} has {len(fields)} fields, the header {len(header)}; a prompt that holds "
                f"{separator!r} or a line break must be in quotes in a .csv, and cannot be in a .tsv"
            )
        yield Row(
            (fields[name].strip() if name is not None else "") or str(i), fields[columns[0]], f"line {line}"
        )


def trimmed(text: str) -> str:
    """Remove blanks and invisible marks of zero width at both ends. Files that were joined have the later
    ones' byte-order marks inside."""
    while (shorter := text.strip().strip("\ufeff\u200b")) != text:
        text = shorter
    return text


def _records(text: str, **dialect: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield the non-empty rows, each with the number of its first line."""
    reader, line = csv.reader(io.StringIO(text, newline=""), strict=True, **dialect), 1
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise InvalidFile(f"line {line}: {error}") from None
        if row is None:
            return
        if row:
            yield line, row
        line = reader.line_num + 1


def objects(text: str) -> Iterator[Row]:
    """Yield the JSON object with a text `prompt` on each non-empty line."""
    for line in lines(text):
        if not line.text.strip():
            continue
        record = parse_json(line.text, f"{line.place}: ")
        if not isinstance(record, dict) or not isinstance(record.get("prompt"), str):
            raise InvalidFile(
                f"needs a JSON object with a text `prompt` on each line; {line.place} is not one"
            )
        yield Row(_id(record.get("id"), line), record["prompt"], line.place)


def _id(given: Any, line: Row) -> str:
    if isinstance(given, bool) or not isinstance(given, str | int | None):
        raise InvalidFile(f"{line.place}: an id must be text or a whole number, not {json.dumps(given)[:40]}")
    return line.id if given is None or given == "" else str(given)


def captions(text: str) -> Iterator[Row]:
    """Yield COCO's captions (captions_val2014.json, captions_val2017.json) in a fixed order, from which the
    first n are taken.

    No paper publishes which 5,000 or 10,000 captions it used, so this rule is our own. It uses no random
    numbers, which a library update could change:

        the captions of an image are ranked by id, from 0;
        images are ordered by the sha256 of their id in decimal notation;
        first come all captions of rank 0 in image order, then all of rank 1, and so on.

    The first 5,000 of 2014 are thus one caption each of 5,000 images, and begin the first 10,000; 2017 has
    5,000 images, so 10,000 captions are two of each. Runs of white space become one space. A prompt's id is
    IMAGE/CAPTION; a text equal to an earlier caption is skipped."""
    record = parse_json(text, "is not a COCO caption file: ")
    listed = record.get("annotations") if isinstance(record, dict) else None
    if not isinstance(listed, list):
        raise InvalidFile("is not a COCO caption file: it has no annotations with image_id, id and caption")
    of_image = defaultdict(list)
    for image, name, row in sorted(map(_annotation, listed, range(1, len(listed) + 1))):
        of_image[image].append(row._replace(id=f"{image}/{name}"))
    order = sorted(of_image, key=lambda image: hashlib.sha256(str(image).encode()).digest())
    for rank in range(max(map(len, of_image.values()), default=0)):
        yield from (of_image[image][rank] for image in order if rank < len(of_image[image]))


def _annotation(given: Any, i: int) -> tuple[int, int, Row]:
    """Return the image id, the caption id and the caption."""
    place = f"annotation {i}"
    for key, kind in (("image_id", int), ("id", int), ("caption", str)):
        value = given.get(key) if isinstance(given, dict) else None
        if not isinstance(value, kind) or isinstance(value, bool):
            wanted = "text" if kind is str else "a whole number"
            raise InvalidFile(f"{place}: its {key} must be {wanted}, not {json.dumps(value)[:40]}")
    return given["image_id"], given["id"], Row("", " ".join(given["caption"].split()), place)


def parse_json(text: str, where: str) -> Any:
    """Parse JSON, rejecting duplicate keys. Raises InvalidFile with a message that starts with `where`."""
    try:
        return json.loads(text, object_pairs_hook=_reject_duplicate_keys)
    except RecursionError:
        raise InvalidFile(f"{where}nested too deeply") from None
    except ValueError as error:
        raise InvalidFile(f"{where}{error}") from None


def _reject_duplicate_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {as_text(json.dumps(twice))} is set twice; leave one out")
    return found


LAYOUTS: Mapping[str, Callable[[str], Iterable[Row]]] = {
    ".txt": lines,
    ".csv": lambda text: table(text, skipinitialspace=True),  # 1, "a cat" is a quoted field, too
    ".tsv": lambda text: table(text, "\t", quoting=csv.QUOTE_NONE),
    ".jsonl": objects,
    ".json": captions,
}
