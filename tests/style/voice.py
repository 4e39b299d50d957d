"""Find wording that does not read as plain American English.

python -m tests.style.voice README.md docs src conf

Reads prose only: Markdown and notebook text without code, comments of YAML and Python, and
docstrings and messages of Python. Prints `file:line: finding` and exits with 1 if there is any.
"""

import ast
import io
import json
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

BANNED = {
    r"\b(?:is|are|was) said\b": "state it: 'is logged', 'with a note'",
    r"\bsays so\b": "state it: 'logs', 'warns'",
    r"\basked about\b": "'classified', 'predicted'",
    r"\basked for\b": "'requested'",
    r"\bwhat (?:was|is) (?:taken|typed|asked)\b": "'settings that are inherited', 'overrides'",
    r"\bas far as (?:they|it) (?:are|is) not typed\b": "'settings you do not override'",
    r"\btells? no \w+ apart\b": "'is not a classifier'",
    r"\bmere seeds\b": "'differ in more than the seed'",
    r"\bthe road\b": "name the function or path",
    r"\bwhose text nobody\b|\bnobody sees\b|\bthere is nobody\b": "state what is the case",
    r"\bnothing is lost\b": "state what is kept",
    r"\bas it stands\b|\bas they stand\b": "'unchanged'",
    r"\b(?:pass|use|run)?,? ?\btype (?:`|--|python\b|[a-z_.]+=)": "'pass' or 'use', not 'type'",
}
"""Regular expression -> what to write instead."""

SPELLING = {
    r"\b(?:un|re|de|pre)?(?:normal|optim|initial|recogn|general|regular|organ|summar|visual|synchron"
    r"|minim|maxim|serial|custom|util|discret|factor|parametr|tensor|vector|quant|categor"
    r"|random|emphas|standard|special|real)is(?:e|es|ed|er|ers|ing|ation|ations)\b": "ize",
    r"\b\w*(?:colour|behaviour|neighbour|favour|honour)\w*\b": "or, not our",
    r"\b(?:un)?(?:label|model|cancel|travel|signal|channel)l(?:ed|ing)\b": "one l",
    r"\b(?:centred|centring|centres?|licence|grey|artefacts?|learnt)\b": (
        "centered, license, gray, artifact, learned"
    ),
    r"\banalys(?:e|ed|ing)\b": "analyze",
}
FIRST_WORDS = ("Of", "What", "Whether", "Which", "Who", "Whose", "As")
"""Words that no docstring begins with."""


class Finding(NamedTuple):
    """A place in a file, and what is wrong there."""

    line: int
    text: str


def check_text(text: str, first: int = 1) -> Iterator[Finding]:
    """Findings in prose whose first line has the number `first`."""
    for pattern, advice in {**BANNED, **SPELLING}.items():
        for match in re.finditer(pattern, text):
            line = first + text.count("\n", 0, match.start())
            yield Finding(line, f"{' '.join(match[0].split())!r}: {advice}")


def check_docstring(text: str, first: int) -> Iterator[Finding]:
    """The first word of a docstring."""
    word = text.split(maxsplit=1)[0] if text.strip() else ""
    if word.rstrip(",:") in FIRST_WORDS:
        yield Finding(first, f"docstring begins with {word!r}: use a noun phrase or an imperative")


def check_python(source: str, docstrings_only: bool = False) -> Iterator[Finding]:
    """Docstrings, and unless `docstrings_only` comments and strings of several words."""
    tree = ast.parse(source)
    bodies = [node.body for node in ast.walk(tree) if isinstance(getattr(node, "body", None), list)]
    docstrings = [
        statement.value
        for body in bodies
        for statement in body
        if isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    ]
    for node in docstrings:
        yield from check_docstring(node.value, node.lineno)
        yield from check_text(without_code(node.value), node.lineno)
    if docstrings_only:
        return
    known = set(map(id, docstrings))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or id(node) in known:
            continue
        if isinstance(node.value, str) and " " in node.value.strip():
            yield from check_text(node.value, node.lineno)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield from check_text(without_code(token.string), token.start[0])


def without_code(text: str) -> str:
    """Markdown text with its code blanked out, lines kept."""
    text = re.sub(r"```.*?```", lambda code: "\n" * code[0].count("\n"), text, flags=re.DOTALL)
    return re.sub(r"`[^`\n]*`", "``", text)


def check_file(path: Path) -> Iterator[Finding]:
    """Findings in one file; none in a file of another kind."""
    source = path.read_text(encoding="utf-8") if path.suffix in READERS else ""
    yield from READERS.get(path.suffix, lambda _: iter(()))(source)


def _check_yaml(source: str) -> Iterator[Finding]:
    for number, line in enumerate(source.splitlines(), 1):
        if "#" in line:
            yield from check_text(without_code(line[line.index("#") :]), number)


def _check_notebook(source: str) -> Iterator[Finding]:
    for cell in json.loads(source)["cells"]:
        if cell["cell_type"] == "markdown":
            yield from check_text(without_code("".join(cell["source"])))


READERS = {
    ".md": lambda source: check_text(without_code(source)),
    ".py": check_python,
    ".yaml": _check_yaml,
    ".yml": _check_yaml,
    ".ipynb": _check_notebook,
}


def files(paths: Iterable[str]) -> Iterator[Path]:
    """The files of the paths; all of a folder."""
    for path in map(Path, paths):
        yield from sorted(path.rglob("*")) if path.is_dir() else [path]


def main(paths: list[str]) -> int:
    """Print the findings of all files."""
    count = 0
    for path in files(paths):
        docstrings_only = path.suffix == ".py" and path.parts[0] == "tests"
        findings = check_python(path.read_text(), True) if docstrings_only else check_file(path)
        for finding in sorted(set(findings)):
            count += 1
            print(f"{path}:{finding.line}: {finding.text}")
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
