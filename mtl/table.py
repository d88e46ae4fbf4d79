"""A table of the report: plain text in cells, written as Markdown, LaTeX and HTML."""

import html
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Cells as text, the first row of which is the head."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        lines = [self.head, tuple("---" for _ in self.head), *self.rows]
        body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        return "\n\n".join([f"**{self.title}**", body, *self.notes])

    def latex(self) -> str:
        lines = [" & ".join(_latex(cell) for cell in line) + r" \\" for line in (self.head, *self.rows)]
        body = [r"\hline", lines[0], r"\hline", *lines[1:], r"\hline"]
        start = [r"\begin{table}", r"\centering", rf"\caption{{{_latex(' '.join((self.title + '.', *self.notes)))}}}"]
        columns = "l" * len(self.head)
        return "\n".join([*start, rf"\begin{{tabular}}{{{columns}}}", *body, r"\end{tabular}", r"\end{table}"])

    def html(self) -> str:
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in self.head)
        rows = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>\n" for row in self.rows)
        notes = "".join(f"<p class=note>{html.escape(note)}</p>" for note in self.notes)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table>"
        return (
            f"<figure><figcaption>{html.escape(self.title)}</figcaption><div class=wide>{table}</div>{notes}</figure>"
        )


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}
_LATEX |= {c: "\\" + c for c in "&%$#_{}"} | {"\N{PLUS-MINUS SIGN}": r"$\pm$", "\N{SUPERSCRIPT TWO}": "$^2$"}


def _latex(text: str) -> str:
    return re.sub("|".join(map(re.escape, _LATEX)), lambda found: _LATEX[found[0]], text)
