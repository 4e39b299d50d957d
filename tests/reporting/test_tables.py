import re

import pytest

from maskclr_pl.reporting.tables import Best, latex_escape, latex_table, markdown_table

ROWS = [
    {"run": "ours_50%", "clean": Best("80.1 ± 0.2"), "note": "a & b"},
    {"run": "twin", "clean": "7.0", "note": ""},
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100 % & $5 #1 a_b {c}", r"100 \% \& \$5 \#1 a\_b \{c\}"),
        ("\\input{x}", r"\textbackslash{}input\{x\}"),
        ("a^b~c", r"a\textasciicircum{}b\textasciitilde{}c"),
        ("80.1 ± 0.2", r"80.1 $\pm$ 0.2"),
        ('<b>|"', r"\textless{}b\textgreater{}\textbar{}\textquotedbl{}"),
        ("line\nbreak\x00", "linebreak"),
    ],
)
def test_latex_escapes_special_characters(text, expected):
    assert latex_escape(text) == expected


def test_latex_table():
    lines = latex_table(ROWS, "Top-1 in %", "One\nnote.").splitlines()
    assert lines[0] == r"\begin{table}"
    assert lines[-1] == r"\end{table}"
    assert r"  \caption{Top-1 in \% One note.}" in lines
    assert r"  \begin{tabular}{lrl}" in lines
    assert r"    run & clean & note \\" in lines
    assert r"    ours\_50\% & \textbf{80.1 $\pm$ 0.2} & a \& b \\" in lines
    assert r"    twin & 7.0 &  \\" in lines
    rules = [line.strip() for line in lines if line.strip().endswith("rule")]
    assert rules == [r"\toprule", r"\midrule", r"\bottomrule"]


def test_best_cells_are_bold():
    bold = re.findall(r"\*\*(.*?)\*\*", markdown_table(ROWS))
    assert bold == ["80.1 ± 0.2"]
    assert latex_table(ROWS, "").count(r"\textbf{") == 1


def test_markdown_escapes_bars():
    assert r"a\|b" in markdown_table([{"run": "a|b", "clean": "1"}])
