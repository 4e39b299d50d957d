"""Tables for a paper: LaTeX with the rules of the package `booktabs`."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from maskclr_pl.reporting.paper_table import Best

_SPECIAL = {
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
_NUMBER = re.compile(r"[-+]?[\d.,]+( ± [\d.]+)?( \(\d+\))?")


def escape(text: str) -> str:
    """A text that LaTeX sets as it stands; unprintable characters are left out."""
    return "".join(_SPECIAL.get(one, one) for one in text if one.isprintable())


def latex(rows: Sequence[Mapping[str, Any]], caption: str, note: str = "") -> str:
    r"""Rows with the same keys as a `table` environment; \usepackage{booktabs} is needed.

    Columns of numbers are set to the right; cells whose lead is supported (`Best`) are bold, as in
    Markdown.

    Args:
        rows: At least one.
        caption: Plain text above the table.
        note: Plain text that follows in the caption.
    """
    names = list(rows[0])
    columns = "".join("r" if _numeric(row[name] for row in rows) else "l" for name in names)
    body = [" & ".join(_cell(row[name]) for name in names) + r" \\" for row in rows]
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{escape(' '.join((caption, *note.split())))}}}",
            rf"  \begin{{tabular}}{{{columns}}}",
            r"    \toprule",
            "    " + " & ".join(map(escape, names)) + r" \\",
            r"    \midrule",
            *("    " + line for line in body),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _cell(value: Any) -> str:
    text = escape(str(value))
    return rf"\textbf{{{text}}}" if isinstance(value, Best) else text


def _numeric(values: Any) -> bool:
    texts = [str(value) for value in values if str(value)]
    return bool(texts) and all(_NUMBER.fullmatch(text) for text in texts)
