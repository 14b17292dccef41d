"""Tables on the terminal: the same look for every command, wide or narrow, in whatever encoding."""

import sys
from collections.abc import Iterable, Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from fovea.study.report.table import Entry, Table
from fovea.study.streams import plain, printable

WIDE = 150  # columns that a study's whole table needs
STYLES = {"steps": "dim", "diagnosis": "dim"}  # by the role of a row's cell
Lines = Sequence[Sequence[str]]


def terminal(width: int = 200) -> Console:
    """Standard output. width: columns where it is no terminal."""
    return Console(file=sys.stdout, width=None if sys.stdout and sys.stdout.isatty() else width)


def print_table(table: Table, console: Console) -> None:
    """A table, its title over it and the notes below. On a narrow terminal brief, with the names of the rows
    in lines of their own if nothing else fits."""
    styles, brief = [_style(row) for row in table.rows], console.width < WIDE
    lines = table.lines(brief)
    if table.title:
        print_text(f"\n{table.title}", console, "bold")
    if brief and sum(_widths(lines)) + 2 * len(lines[0]) > console.width:
        _print_rows(lines, console, styles)
    else:
        print_lines(lines, console, styles=styles)
    for note in table.all_notes:
        print_text(note, console, "dim")


def _style(row: Mapping[str, Entry]) -> str:
    if "failure" in row and row["failure"].value:
        return "red"
    return STYLES.get(row["role"].value, "") if "role" in row else ""


def _broken(name: str) -> str:
    """A heading in two lines: at its bracket, or else at its first space that a word follows."""
    head, bracket, rest = name.partition("[")
    if bracket:
        return f"{head.rstrip()}\n[{rest}"
    first, _, second = name.partition(" ")
    return f"{first}\n{second}" if second[:1].isalnum() else name


def print_lines(
    lines: Lines,
    console: Console,
    left: int = 1,
    styles: Sequence[str] = (),
    whole: int = 1,
) -> None:
    """lines: the header and the body. left: how many columns stand on the left; the others are numbers.
    styles: of the body's lines. whole: so many columns are never broken."""
    head, *body = lines
    grid = Grid(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for i, name in enumerate(head):
        justify = "left" if i < left else "right"
        grid.add_column(_text(name, console), justify=justify, no_wrap=i < whole, overflow="fold")
    for line, style in zip(body, styles or [""] * len(body), strict=True):
        grid.add_row(*(_text(text, console) for text in line), style=style)
    console.print(grid)


def _text(text: str, console: Console) -> Text:
    """Markup in it is text. As it will be printed, so that columns are as wide as that."""
    return Text(printable(plain(text), console.encoding))


def _print_rows(lines: Lines, console: Console, styles: Sequence[str]) -> None:
    """Each row under its name, which may be longer than a column."""
    head, *body = lines
    parts = [_broken(name).split("\n") for name in head[1:]]
    tall = max(map(len, parts))
    heads = zip(*([""] * (tall - len(part)) + part for part in parts), strict=True)
    texts = [[printable(text, console.encoding) for text in row] for row in (*heads, *(r[1:] for r in body))]
    widths = _widths(texts)

    def aligned(row: Sequence[str]) -> str:
        padded = (" " * (width - cell_len(text)) + text for text, width in zip(row, widths, strict=True))
        return "  ".join(["", *padded])

    shown = list(map(aligned, texts))
    print_text("\n".join(shown[:tall]), console, "bold")
    for row, text, style in zip(body, shown[tall:], styles, strict=True):
        print_text(f"{row[0]}\n{text}", console, style)


def _widths(lines: Iterable[Sequence[str]]) -> list[int]:
    return [max(map(cell_len, column)) for column in zip(*lines, strict=True)]


def print_text(text: str, console: Console, style: str = "") -> None:
    """One paragraph, as it is: markup in it is text."""
    console.print(_text(text, console), style=style, highlight=False, soft_wrap=True)
