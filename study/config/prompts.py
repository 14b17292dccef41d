"""Prompts of a published set (a file of conf/prompt), or of one's own file. They are data: no file name,
command or markup is ever made of one."""

import csv
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic import dataclasses as pydantic

from fovea.study.config.errors import Refused, nearest
from fovea.study.config.instantiate import build
from fovea.study.config.layouts import LAYOUTS, Rows

ROOT = Path(__file__).resolve().parents[2]


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


@dataclass(frozen=True)
class Prompts:
    """A whole set, without doubles, in its order. source: as asked for; files: their sha256 by name."""

    source: str
    all: tuple[Prompt, ...]
    files: dict[str, str]

    @property
    def origin(self) -> dict[str, Any]:
        """What a record says of it. hash: sha256 of every id and text, in order."""
        lines = "\n".join(f"{p.id}\t{p.text}" for p in self.all)
        digest = hashlib.sha256(lines.encode()).hexdigest()
        return {"source": self.source, "size": len(self.all), "hash": digest, "files": self.files}


@pydantic.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Published:
    """A set as its authors publish it. files: their names, in the order in which they are read. place: where
    they are looked for, or a folder below it; hub: the data set of the Hugging Face hub that has them too;
    fetch: where to get them."""

    files: Annotated[tuple[str, ...], Field(min_length=1)]
    fetch: str
    place: str = "data/prompts"
    hub: str | None = None

    def found(self, name: str) -> list[Path]:
        """Refused if any is not on this machine."""
        places = [_here(self.place, file) or self._cached(file) for file in self.files]
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
    """All prompts at the first seed, then at the next. The key is a hash of prompt and seed: it outlives
    their order."""
    prompts = list(prompts)
    return [Sample(_key(p.text, seed), p, seed) for seed in seeds for p in prompts]


def read(source: str) -> Prompts:
    """The set of this name, or of this file. Of equal prompts the first stays."""
    files = _files(source)
    found: dict[str, Prompt] = {}
    for file in files:
        for name, text in _rows(source, file):
            label = name if len(files) == 1 else f"{file.stem}/{name}"
            if text.strip():
                found.setdefault(text.strip(), Prompt(label, text.strip()))
    if not found:
        raise Refused(f"prompts={source}: there is no prompt in it")
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return Prompts(source, tuple(found.values()), digests)


def _key(text: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\n{text}".encode()).hexdigest()[:16]


def _files(source: str) -> list[Path]:
    from omegaconf import OmegaConf

    sets = {file.stem: file for file in (ROOT / "conf" / "prompt").glob("*.yaml")}
    if source in sets:
        node: Any = OmegaConf.to_container(OmegaConf.load(sets[source]))
        return build(node, f"conf/prompt/{source}.yaml", "fovea.study").found(source)
    file = Path(source).expanduser()
    for place in (file, ROOT / file):
        if place.is_file() and place.suffix in LAYOUTS:
            return [place]
    kinds = ", ".join(LAYOUTS)
    raise Refused(f"prompts={source}: no such file ({kinds}), nor a set; {nearest(source, sets)}")


def _here(place: str, file: str) -> Path | None:
    """In a folder of the working directory, or else of the repository, or one step below."""
    for folder in (Path(place).expanduser(), ROOT / place):
        for found in (folder / file, *sorted(folder.glob(f"*/{file}"))):
            if found.is_file():
                return found
    return None


def _rows(source: str, file: Path) -> Rows:
    try:
        return LAYOUTS[file.suffix](file.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"prompts={source}: cannot be read as UTF-8 text ({error})") from None
    except (ValueError, csv.Error) as error:
        raise Refused(f"prompts={source}: {file.name} {error}") from None
