"""Prompts from the embedded set, a text file (one a line) or a CSV file (a column `prompt`). They are data:
no file name, command or markup is ever made of one."""

import csv
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from study.refused import Refused

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Prompt:
    id: str
    text: str


@dataclass(frozen=True)
class Sample:
    """One image to be made: `key` names its files, and pairs it between cells."""

    key: str
    prompt: Prompt
    seed: int


def samples(prompts: Iterable[Prompt], seeds: Iterable[int]) -> list[Sample]:
    """All prompts at the first seed, then at the next. The key is a hash of prompt and seed: it outlives
    their order."""
    prompts = list(prompts)
    return [Sample(_key(p.text, seed), p, seed) for seed in seeds for p in prompts]


def _key(text: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\n{text}".encode()).hexdigest()[:16]


def read(source: str, n: int) -> list[Prompt]:
    """The first n different prompts of the set (all of them if there are fewer)."""
    file = _file(source)
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"prompts={source}: cannot be read as UTF-8 text ({error})") from None
    rows = _table(source, text) if file.suffix == ".csv" else enumerate(text.split("\n"), 1)
    found: dict[str, Prompt] = {}
    for name, line in rows:
        if line.strip() and line.strip() not in found:
            found[line.strip()] = Prompt(str(name), line.strip())
    if not found:
        raise Refused(f"prompts={source}: there is no prompt in it")
    return list(found.values())[:n]


def _file(source: str) -> Path:
    embedded = {path.parent.name: path for path in sorted((ROOT / "assets").glob("*/prompts.csv"))}
    if source in embedded:
        return embedded[source]
    file = Path(source).expanduser()
    for place in (file, ROOT / file):
        if place.is_file() and place.suffix in (".txt", ".csv"):
            return place
    names = ", ".join(embedded) or "none"
    raise Refused(f"prompts={source}: no such .txt or .csv file, nor an embedded set (embedded: {names})")


def _table(source: str, text: str) -> list[tuple[str, str]]:
    rows = list(csv.DictReader(io.StringIO(text)))
    if rows and "prompt" not in rows[0]:
        raise Refused(f"prompts={source}: needs a column `prompt`; it has {', '.join(map(str, rows[0]))}")
    return [(row.get("id") or str(i), row["prompt"] or "") for i, row in enumerate(rows, 1)]
