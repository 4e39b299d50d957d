"""The notebooks: they run as they stand, and what is stored in them can be read on the web."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import maskclr_pl

pytestmark = pytest.mark.slow

BOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
PICTURES = ("image/png", "image/gif")
MACHINE = re.compile(r"(?<![\w.])/(?:tmp|work|root|home|Users|private|var)/")


def outputs(book: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]


def pictures(book: nbformat.NotebookNode) -> int:
    data = [output.get("data", {}) for output in outputs(book)]
    return sum(any(kind in one for kind in PICTURES) for one in data)


def printed(book: nbformat.NotebookNode) -> str:
    """Everything that is text in the outputs."""
    shown = []
    for output in outputs(book):
        shown.append(output.get("text", ""))
        shown += [str(v) for k, v in output.get("data", {}).items() if k not in PICTURES]
    return "\n".join(shown)


def test_there_are_notebooks():
    assert len(BOOKS) >= 4


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_stored_outputs(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert path.stat().st_size < 400_000
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert pictures(book) >= 1
    assert printed(book).strip()
    for output in outputs(book):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text  # warnings
    assert not MACHINE.search(printed(book))


LONG = [path for path in BOOKS if path.stem != "quick_start"]


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.recipes] * (path in LONG)) for path in BOOKS],
    ids=lambda path: path.stem,
)
def test_runs_as_it_stands(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(maskclr_pl.__file__).parents[1]))
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where the notebook writes
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    stored = nbformat.read(path, as_version=4)
    book = nbformat.from_dict(stored)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(book, timeout=120, kernel_name="python3", resources=resources).execute()
    assert pictures(book) == pictures(nbformat.read(path, as_version=4))
    assert [o.text for o in outputs(book) if o.get("name") == "stderr"] == []
