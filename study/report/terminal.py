"""Text tables on the terminal: the same look for every command, wide or narrow."""

import re
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fovea.study.streams import plain

WIDE = 150  # columns that a study's whole table needs
Groups = Sequence[tuple[str, Sequence[Sequence[str]]]]


def terminal(width: int = 200) -> Console:
    """Standard output. width: columns where it is no terminal."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else width)


def show(
    lines: Sequence[Sequence[str]],
    console: Console,
    left: int = 1,
    styles: Sequence[str] = (),
    whole: int = 1,
) -> None:
    """lines: the header and the body. left: how many columns stand on the left; the others are numbers.
    styles: of the body's lines. whole: so many columns are never broken."""
    head, *body = lines
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for i, name in enumerate(head):
        justify = "left" if i < left else "right"
        table.add_column(Text(plain(name)), justify=justify, no_wrap=i < whole, overflow="fold")
    for line, style in zip(body, styles or [""] * len(body), strict=True):
        table.add_row(*(Text(plain(text)) for text in line), style=style)
    console.print(table)


def study(lines: Sequence[Sequence[str]], console: Console, styles: Sequence[str] = ()) -> None:
    """A study's table. On a narrow terminal brief, with the names of the cells in lines of their own if
    nothing else fits."""
    if console.width < WIDE:
        lines = narrow(lines)
        if sum(_widths(lines)) + 2 * len(lines[0]) > console.width:
            groups = [(line[0], [line[1:]]) for line in lines[1:]]
            head = [re.sub(r" ?(\[)| (?=\w)", r"\n\1", name, count=1) for name in lines[0][1:]]
            return grouped(groups, head, console, 0, styles)
    show(lines, console, styles=styles)


def grouped(
    groups: Groups, head: Sequence[str], console: Console, left: int = 1, styles: Sequence[str] = ()
) -> None:
    """Lines under the names of their groups, which may be longer than a column."""
    parts = [name.split("\n") for name in head]
    tall = max(map(len, parts))
    heads = [[([""] * (tall - len(part)) + part)[i] for part in parts] for i in range(tall)]
    widths = _widths([*heads, *(line for _, lines in groups for line in lines)])

    def aligned(line: Sequence[str]) -> str:
        pairs = enumerate(zip(line, widths, strict=True))
        return "  ".join(["", *(f"{text:{'<' if i < left else '>'}{width}}" for i, (text, width) in pairs)])

    say("\n".join(map(aligned, heads)), console, "bold")
    for (name, lines), style in zip(groups, styles or [""] * len(groups), strict=True):
        say("\n".join([name, *map(aligned, lines)]), console, style)


def _widths(lines: Iterable[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*lines, strict=True)]


def narrow(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    """A study's table without intervals, errors and gains."""
    head, *body = lines
    kept = [i for i, name in enumerate(head) if not name.startswith(("gain ", "memory", "J/"))]
    bare = [[re.sub(r" (\[.*\]|± [^*]*[^* ])", "", line[i]) for i in kept] for line in body]
    return [[head[i] for i in kept], *bare]


def told(lines: Sequence[Sequence[str]], notes: Sequence[str], console: Console, title: str) -> None:
    """A table under a title, and the notes on it."""
    say(f"\n{title}", console, "bold")
    show(lines, console)
    for note in notes:
        say(note, console, "dim")


def say(text: str, console: Console, style: str = "") -> None:
    """One paragraph, as it is: markup in it is text."""
    console.print(plain(text), style=style, markup=False, highlight=False, soft_wrap=True)
