"""Text tables on the terminal: the same look for every command, wide or narrow."""

import re
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 150  # columns that a study's whole table needs


def terminal(width: int = 200) -> Console:
    """Standard output. width: columns where it is no terminal."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else width)


def show(lines: Sequence[Sequence[str]], console: Console, left: int = 1, styles: Sequence[str] = ()) -> None:
    """lines: the header and the body. left: how many columns stand on the left; the others are numbers.
    styles: of the body's lines."""
    head, *body = lines
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for i, name in enumerate(head):
        justify = "left" if i < left else "right"
        table.add_column(Text(name), justify=justify, no_wrap=i == 0, overflow="fold")
    for line, style in zip(body, styles or [""] * len(body), strict=True):
        table.add_row(*map(Text, line), style=style)
    console.print(table)


def narrow(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    """A study's table without intervals, errors and gains."""
    head, *body = lines
    kept = [i for i, name in enumerate(head) if not name.startswith(("gain ", "memory", "J/"))]
    bare = [[re.sub(r" (\[.*\]|± [^*]*[^* ])", "", line[i]) for i in kept] for line in body]
    return [[head[i] for i in kept], *bare]


def say(text: str, console: Console, style: str = "") -> None:
    """One paragraph, as it is: markup in it is text."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
