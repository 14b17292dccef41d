"""Prompts of a published set (a file of conf/prompt) or of the user's own file (prompt_files.py). Prompts are
only data: no file name, command or markup is made from one."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from os.path import exists, expanduser, isdir
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic import dataclasses as pydantic

from fovea.study.config.errors import Refused, as_text, nearest
from fovea.study.config.groups import ROOT, options, read_option
from fovea.study.config.instantiate import instantiate
from fovea.study.config.prompt_files import LAYOUTS, InvalidFile, Row, decode, trimmed


@dataclass(frozen=True)
class Prompt:
    id: str
    text: str


@dataclass(frozen=True)
class Sample:
    """One image to be made. key: names its files and pairs it across cells."""

    key: str
    prompt: Prompt
    seed: int


@dataclass(frozen=True)
class Prompts:
    """A whole prompt set, in order, without duplicates.

    source: the set or file that was requested.
    files: sha256 of each file by name.
    """

    source: str
    all: tuple[Prompt, ...]
    files: dict[str, str]

    @property
    def origin(self) -> dict[str, Any]:
        """The record of the set. hash: sha256 of all ids and texts, in order."""
        lines = "\n".join(f"{p.id}\t{p.text}" for p in self.all)
        digest = hashlib.sha256(lines.encode()).hexdigest()
        return {"source": self.source, "size": len(self.all), "hash": digest, "files": self.files}


@pydantic.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Published:
    """A prompt set as its authors publish it.

    files: file names, in reading order.
    fetch: where to download them.
    place: folder that is searched, with its subfolders.
    hub: data set on the Hugging Face hub that also contains them.
    """

    files: Annotated[tuple[str, ...], Field(min_length=1)]
    fetch: str
    place: str = "data/prompts"
    hub: str | None = None

    def found(self, name: str) -> list[Path]:
        """Return the files. Raises Refused if any is not on this machine."""
        places = [_find(self.place, file) or self._cached(file) for file in self.files]
        missing = [file for file, place in zip(self.files, places, strict=True) if place is None]
        if missing:
            cache = f", `hf download --repo-type dataset {self.hub}`," if self.hub else ""
            raise Refused(
                f"prompts={name}: {', '.join(missing)} not found: fetch from {self.fetch}{cache} and put "
                f"{'it' if len(missing) == 1 else 'them'} into {self.place}/"
            )
        return [place for place in places if place]

    def _cached(self, file: str) -> Path | None:
        if self.hub is None:
            return None
        from huggingface_hub import try_to_load_from_cache

        place = try_to_load_from_cache(self.hub, file, repo_type="dataset")
        return Path(place) if isinstance(place, str) else None


def samples(prompts: Iterable[Prompt], seeds: Iterable[int]) -> list[Sample]:
    """Return all prompts at the first seed, then all at the next. The key is a hash of prompt and seed,
    independent of the order."""
    prompts = list(prompts)
    return [Sample(_key(p.text, seed), p, seed) for seed in seeds for p in prompts]


def read(source: str) -> Prompts:
    """Read the prompt set with this name, or this file. Of equal prompts the first is kept."""
    files = _files(source)
    found: dict[str, Prompt] = {}
    digests = {}
    for file in files:
        try:
            data = file.read_bytes()
        except OSError as error:
            raise Refused(f"prompts={source}: {file.name} cannot be read: {error.strerror}") from None
        digests[file.name] = hashlib.sha256(data).hexdigest()
        for row in _rows(source, file, data):
            name = row.id if len(files) == 1 else f"{file.stem}/{row.id}"
            found.setdefault(row.text, Prompt(name, row.text))
    if not found:
        raise Refused(f"prompts={source}: it contains no prompts")
    return Prompts(source, tuple(found.values()), digests)


def _key(text: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\n{text}".encode()).hexdigest()[:16]


def _files(source: str) -> list[Path]:
    sets = options("prompt")
    if source in sets:
        node = read_option("prompt", source)
        return instantiate(node, f"conf/prompt/{source}.yaml", "fovea.study").found(source)
    file = Path(expanduser(source))
    for place in (file, ROOT / file):
        if place.suffix.lower() in LAYOUTS and _is_file(place):
            return [place]
    kinds = ", ".join(LAYOUTS)
    if source and exists(file):
        what = "a folder" if isdir(file) else f"a {file.suffix or 'file without an ending'}"
        raise Refused(f"prompts={as_text(source)}: is {what}; prompts are read from {kinds}")
    raise Refused(
        f"prompts={as_text(source)}: neither a file ({kinds}) nor a prompt set; {nearest(source, sets)}"
    )


def _is_file(place: Path) -> bool:
    try:
        return place.is_file()
    except (OSError, ValueError):  # not a valid file name
        return False


def _find(place: str, file: str) -> Path | None:
    """Look for a file in the folder, then in its subfolders: first below the working directory, then below
    the repository."""
    for folder in (Path(place).expanduser(), ROOT / place):
        for found in (folder / file, *sorted(folder.glob(f"*/{file}"))):
            if found.is_file():
                return found
    return None


def _rows(source: str, file: Path, data: bytes) -> list[Row]:
    """Return the non-empty prompts of a file. Raises Refused if two have the same id, which would be
    ambiguous in records."""
    try:
        rows = [row._replace(text=trimmed(row.text)) for row in LAYOUTS[file.suffix.lower()](decode(data))]
        named: dict[str, Row] = {}
        for row in rows:
            _check_text(row)
            first = named.setdefault(row.id, row)
            if first.text != row.text:
                raise InvalidFile(
                    f"{row.place}: the id {row.id} is already that of {first.place}; give each prompt its own"
                )
    except InvalidFile as error:
        raise Refused(f"prompts={source}: {file.name} {error}") from None
    return [row for row in rows if row.text]


def _check_text(row: Row) -> None:
    """Raise InvalidFile for a lone surrogate, which JSON can express but no Unicode encoding can, and for a
    null character."""
    if "\0" in f"{row.id}{row.text}":
        raise InvalidFile(f"{row.place}: \\u0000 is not allowed in a prompt; leave it out")
    try:
        f"{row.id}{row.text}".encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise InvalidFile(
            f"{row.place}: {half} is half of a surrogate pair; write both halves, or neither"
        ) from None
