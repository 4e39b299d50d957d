"""Tables as Markdown and LaTeX."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Rows = list[dict[str, Any]]
"""Rows of a table: column name -> cell."""

_LATEX = str.maketrans(
    {
        **{character: "\\" + character for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
        "±": r"$\pm$",
        "—": "---",
        "…": r"\ldots{}",
    }
)
_NUMBER = re.compile(r"[-+]?[\d.,]+( ± [\d.]+)?( to [-+]?[\d.]+)?( \(\d+\))?")


class Best(str):
    """A cell that is significantly better than all others in its column, printed in bold."""


def is_numeric(cells: Iterable[Any]) -> bool:
    """Check whether all non-empty cells of a column are numbers, so that it is right-aligned."""
    texts = [str(cell) for cell in cells if str(cell) not in ("", "—")]
    return bool(texts) and all(_NUMBER.fullmatch(text) for text in texts)


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format rows with the same keys as a Markdown table with aligned columns."""
    lines = [list(rows[0]), *([_markdown_cell(cell) for cell in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    padded = ([c.ljust(w) for c, w in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)


def _markdown_cell(value: Any) -> str:
    text = str(value).replace("|", "\\|")
    return f"**{text}**" if isinstance(value, Best) else text


def latex_table(rows: Sequence[Mapping[str, Any]], caption: str, note: str = "") -> str:
    r"""Format rows with the same keys as a LaTeX `table` (needs \usepackage{booktabs}).

    Args:
        rows: At least one row.
        caption: Plain text above the table.
        note: Plain text appended to the caption.
    """
    names = list(rows[0])
    alignment = "".join("r" if is_numeric(row[name] for row in rows) else "l" for name in names)
    header = " & ".join(map(latex_escape, names))
    body = [" & ".join(_latex_cell(row[name]) for name in names) for row in rows]
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{latex_escape(' '.join((caption, *note.split())))}}}",
            rf"  \begin{{tabular}}{{{alignment}}}",
            r"    \toprule",
            rf"    {header} \\",
            r"    \midrule",
            *(rf"    {line} \\" for line in body),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def latex_escape(text: str) -> str:
    """Escape plain text for LaTeX; unprintable characters are dropped."""
    return "".join(filter(str.isprintable, text)).translate(_LATEX)


def _latex_cell(value: Any) -> str:
    text = latex_escape(str(value))
    return rf"\textbf{{{text}}}" if isinstance(value, Best) else text
