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
Groups = Sequence[tuple[str, Lines]]


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
        groups = [(line[0], [line[1:]]) for line in lines[1:]]
        print_groups(groups, [_broken(name) for name in lines[0][1:]], console, 0, styles)
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


def print_groups(
    groups: Groups, head: Sequence[str], console: Console, left: int = 1, styles: Sequence[str] = ()
) -> None:
    """Lines under the names of their groups, which may be longer than a column."""
    parts = [name.split("\n") for name in head]
    tall = max(map(len, parts))
    heads = [[([""] * (tall - len(part)) + part)[i] for part in parts] for i in range(tall)]
    heads, *bodies = [
        [[printable(text, console.encoding) for text in line] for line in lines]
        for lines in (heads, *(lines for _, lines in groups))
    ]
    widths = _widths([*heads, *(line for lines in bodies for line in lines)])

    def aligned(line: Sequence[str]) -> str:
        texts = (
            _padded(text, width, i < left) for i, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        return "  ".join(["", *texts])

    print_text("\n".join(map(aligned, heads)), console, "bold")
    for (name, _), lines, style in zip(groups, bodies, styles or [""] * len(groups), strict=True):
        print_text("\n".join([name, *map(aligned, lines)]), console, style)


def _padded(text: str, width: int, left: bool) -> str:
    space = " " * (width - cell_len(text))
    return f"{text}{space}" if left else f"{space}{text}"


def _widths(lines: Iterable[Sequence[str]]) -> list[int]:
    return [max(map(cell_len, column)) for column in zip(*lines, strict=True)]


def print_text(text: str, console: Console, style: str = "") -> None:
    """One paragraph, as it is: markup in it is text."""
    console.print(_text(text, console), style=style, highlight=False, soft_wrap=True)
