"""One self-contained HTML page: no network, no scripts, embedded images.

The content is plain data; the template `page.html.jinja` escapes all of it, so that names of
classes, runs and files may contain anything.
"""

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from maskclr_pl.reporting.tables import Best, Rows, is_numeric

_TYPES = {".svg": "image/svg+xml", ".png": "image/png", ".gif": "image/gif"}
_MAX_SVG, _MAX_GIF = 400_000, 2_000_000  # bytes
_LONG_WORD = re.compile(r"\S{32}")  # hashes and paths, which may be broken anywhere


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Heading:
    """A heading inside of a section."""

    text: str


@dataclass(frozen=True)
class Code:
    """Preformatted text."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows with the same keys. The first column names the row; `Best` cells are bold."""

    rows: Rows
    caption: str

    @property
    def columns(self) -> list[str]:
        """Column names."""
        return list(self.rows[0])

    @property
    def numeric(self) -> set[str]:
        """Names of right-aligned columns."""
        return {c for c in self.columns[1:] if is_numeric(row[c] for row in self.rows)}


@dataclass(frozen=True)
class Image:
    """An embedded image: SVG if there is one and it is small, else PNG or GIF."""

    path: Path
    alt: str
    caption: str = ""

    @property
    def data_uri(self) -> str:
        """The file as a data URI."""
        path = smallest_file(self.path)
        content = base64.b64encode(path.read_bytes()).decode("ascii")
        return f"data:{_TYPES[path.suffix]};base64,{content}"


@dataclass(frozen=True)
class Fold:
    """Blocks that are collapsed on screen."""

    summary: str
    blocks: Sequence["Block"]


@dataclass(frozen=True)
class Grid:
    """Blocks side by side."""

    blocks: Sequence["Block"]


Block = Text | Heading | Code | Table | Image | Fold | Grid


@dataclass(frozen=True)
class Section:
    """A section of the page; omitted if it is empty."""

    title: str
    blocks: Sequence[Block] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """Id of the heading."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.tests["best"] = lambda value: isinstance(value, Best)
    environment.tests["long_word"] = lambda value: bool(_LONG_WORD.search(str(value)))
    return environment.get_template("page.html.jinja")


def render_page(
    title: str, subtitle: str, notes: Sequence[str], sections: Iterable[Section]
) -> str:
    """Render the page.

    Args:
        title: Plain text.
        subtitle: Plain text.
        notes: Caveats shown above the sections.
        sections: Sections in order; empty ones are omitted.
    """
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return _template().render(
        title=title,
        subtitle=subtitle,
        notes=notes,
        notes_title="Before you read the numbers",
        style=Markup(style),
        sections=[section for section in sections if section.blocks],
    )


def smallest_file(path: Path) -> Path:
    """Return the SVG next to a PNG unless it is much larger."""
    svg, png = path.with_suffix(".svg"), path.with_suffix(".png")
    if path.suffix == ".gif" or not svg.is_file():
        return path
    return png if png.is_file() and svg.stat().st_size > _MAX_SVG else svg


def images_in(folder: Path, exclude: Iterable[str] = ()) -> list[Path]:
    """Return the images of a folder, one per name, without large GIFs.

    Args:
        folder: May not exist.
        exclude: File names without suffix.
    """
    images: dict[tuple[str, bool], Path] = {}
    for path in sorted(folder.glob("*")):
        animated = path.suffix == ".gif"
        if path.suffix not in _TYPES or path.stem in exclude:
            continue
        if not animated or path.stat().st_size <= _MAX_GIF:
            images.setdefault((path.stem, animated), path)
    return list(images.values())
