"""A table of text, head first, as Markdown and as LaTeX."""

from collections.abc import Sequence

Lines = Sequence[Sequence[str]]
TEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "∞": r"$\infty$",
    "–": "--",
    "−": r"$-$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "†": r"\textsuperscript{\dag}",
    "Δ": r"$\Delta$",
}


def markdown(lines: Lines, notes: Sequence[str]) -> str:
    head, *body = [[text.replace("|", r"\|").replace("<", "&lt;") for text in line] for line in lines]
    rows = [head, [":--", *["--:"] * (len(head) - 1)], *body]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{table}\n\n" + "\n\n".join(note.replace("<", "&lt;") for note in notes) + "\n"


def latex(lines: Lines, notes: Sequence[str], warning: str | None = None) -> str:
    """A booktabs tabular; \\usepackage{booktabs} is all it needs. warning: stands inside the table."""
    head, *body = [[escaped(text) for text in line] for line in lines]
    out = [f"% {escaped(' '.join(note.split()))}" for note in notes]
    out += [rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule", f"{' & '.join(head)} \\\\"]
    out += [r"\midrule", *(f"{' & '.join(line)} \\\\" for line in body)]
    if warning:
        out += [r"\midrule", rf"\multicolumn{{{len(head)}}}{{l}}{{{escaped(warning)}}} \\"]
    return "\n".join([*out, r"\bottomrule", r"\end{tabular}", ""])


def escaped(text: str) -> str:
    return "".join(TEX.get(c, c) for c in text)
