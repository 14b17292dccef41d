"""Prompt files in the layouts in which they are published: the text of a file to pairs of id and prompt.

    .txt    one a line: T2I-CompBench           .jsonl  one JSON object a line, key `prompt`: GenEval
    .csv    quoted, column `prompt`: DrawBench   .json   COCO captions, see study/config/captions.py
    .tsv    not quoted, column `prompt`: PartiPrompts

A column may be called Prompt or Prompts; a column or key `id` names the prompts, else their place does."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping

from fovea.study.config.captions import captions

Rows = list[tuple[str, str]]
NAMES = ("prompt", "prompts")


def lines(text: str) -> Rows:
    return [(str(i), line) for i, line in enumerate(text.split("\n"), 1)]


def table(text: str, **dialect) -> Rows:
    reader = csv.DictReader(io.StringIO(text, newline=""), **dialect)
    columns = [str(name) for name in reader.fieldnames or ()]
    column = next((name for name in columns if name.strip().lower() in NAMES), None)
    if columns and column is None:
        raise ValueError(f"needs a column `prompt`; it has {', '.join(columns)}")
    return _named(reader, str(column))


def objects(text: str) -> Rows:
    """Raises ValueError where a line is no JSON object with a `prompt`."""
    found = []
    for i, line in enumerate(text.splitlines(), 1):
        record = _object(line) if line.strip() else {"prompt": ""}
        if not isinstance(record.get("prompt"), str):
            raise ValueError(f"needs a JSON object with a text `prompt` on each line; line {i} is none")
        found.append(record)
    return _named(found, "prompt")


def _object(line: str) -> Mapping:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _named(records: Iterable[Mapping], column: str) -> Rows:
    return [(str(r.get("id") or i), r.get(column) or "") for i, r in enumerate(records, 1)]


LAYOUTS: Mapping[str, Callable[[str], Rows]] = {
    ".txt": lines,
    ".csv": table,
    ".tsv": lambda text: table(text, delimiter="\t", quoting=csv.QUOTE_NONE),
    ".jsonl": objects,
    ".json": captions,
}
