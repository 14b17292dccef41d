"""What a benchmark asks for with each prompt, from the file that its authors publish."""

from collections.abc import Container, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from fovea.eval import Unavailable
from fovea.eval.weights import located

Line = TypeVar("Line", bound="PromptLine")


class PromptLine(BaseModel):
    """A line of such a .jsonl file."""

    prompt: str


def published(file: Path, fetch: str) -> Path:
    """Return where the file is, which may be a subfolder. Raises Unavailable, with what to fetch."""
    there = located(file)
    found = [path for path in (there, *sorted(there.parent.glob(f"*/{there.name}"))) if path.is_file()]
    if not found:
        raise Unavailable(f"no {file}", f"fetch {fetch}, or give `metric.NAME.metadata=FILE`")
    return found[0]


def by_prompt(file: Path, line: type[Line]) -> dict[str, Line]:
    """Read the file's lines by prompt. Raises Unavailable."""
    try:
        lines = [text for text in file.read_text("utf-8").split("\n") if text.strip()]
        return {found.prompt: found for found in map(line.model_validate_json, lines)}
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise Unavailable(f"cannot read {file} ({error})", "fetch it again") from error


def check_prompts(prompts: Sequence[str], known: Container[str], of: str, remedy: str) -> None:
    """Raise Unavailable if prompts are not among the benchmark's. of: its name."""
    if other := [prompt for prompt in prompts if prompt not in known]:
        reason = f"{len(other)} of {len(prompts)} prompts are not {of}'s, such as {other[0]!r}"
        raise Unavailable(reason, remedy)
