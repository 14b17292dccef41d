"""A table of text, head first, as Markdown and as LaTeX."""

import unicodedata
from collections.abc import Sequence

Lines = Sequence[Sequence[str]]
TEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\ttfamily\char34}",  # \textquotedbl is not in LaTeX's usual encoding
    "±": r"$\pm$",
    "×": r"$\times$",
    "∞": r"$\infty$",
    "–": "--",
    "−": r"$-$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "†": r"\textsuperscript{\dag}",
    "Δ": r"$\Delta$",
    "σ": r"$\sigma$",
}
KNOWN = "‘’“”—…‡§°µ¼½¾·£€©®"  # to pdflatex without a package; accented letters are, too
ACCENTS = "\u0300\u0301\u0302\u0303\u0308\u030a\u030c\u0327"


def markdown(lines: Lines, notes: Sequence[str]) -> str:
    head, *body = [[text.replace("|", r"\|").replace("<", "&lt;") for text in line] for line in lines]
    rows = [head, [":--", *["--:"] * (len(head) - 1)], *body]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{table}\n\n" + "\n\n".join(note.replace("<", "&lt;") for note in notes) + "\n"


def latex(lines: Lines, notes: Sequence[str], warning: str | None = None) -> str:
    """A booktabs tabular; \\usepackage{booktabs} is all it needs. warning: stands inside the table."""
    head, *body = [[escaped(text) for text in line] for line in lines]
    out = [r"% needs \usepackage{booktabs}", *(f"% {escaped(' '.join(note.split()))}" for note in notes)]
    out += [rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule", f"{' & '.join(head)} \\\\"]
    out += [r"\midrule", *(f"{_guard(line)}{' & '.join(line)} \\\\" for line in body)]
    if warning:
        out += [r"\midrule", rf"\multicolumn{{{len(head)}}}{{l}}{{{escaped(warning)}}} \\"]
    return "\n".join([*out, r"\bottomrule", r"\end{tabular}", ""])


def _guard(line: Sequence[str]) -> str:
    """A line's end takes what follows in brackets, and a star, for its own."""
    return "{}" if line[0][:1] in ("[", "*") else ""


def escaped(text: str) -> str:
    """Hyphens stay hyphens, which LaTeX would join into dashes."""
    return "".join("{}-" if c == "-" and text[i - 1 : i] == "-" else _glyph(c) for i, c in enumerate(text))


def _glyph(c: str) -> str:
    """What pdflatex has no glyph for is named by its number."""
    base, *marks = unicodedata.normalize("NFD", c)
    plain = base.isascii() and base.isprintable() and all(mark in ACCENTS for mark in marks)
    return TEX.get(c, c if plain or c in KNOWN else rf"\texttt{{U+{ord(c):04X}}}")
