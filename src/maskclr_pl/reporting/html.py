"""One HTML page that needs nothing else: no network, no script, pictures inside.

Everything that is shown is escaped here, so that names of classes, runs and files may hold
anything; the other modules pass plain text.
"""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from maskclr_pl.reporting.tables import Best, is_numeric

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="$policy">
<link rel="icon" href="data:,">
<title>$title</title>
<style>
$style</style>
</head>
<body>
<header>
<h1>$title</h1>
<p class="soft">$subtitle</p>
<nav aria-label="Sections"><ul>$links</ul></nav>
</header>
<main>
$content
</main>
</body>
</html>
""")

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""A browser that reads it asks nobody for anything, whatever the page holds."""

_TYPES = {".svg": "image/svg+xml", ".png": "image/png", ".gif": "image/gif"}
_LARGE_SVG, _LARGE_GIF = 400_000, 2_000_000
_LONG = re.compile(r"\S{32}")


class Section(NamedTuple):
    """A part of the page; without content it is left out."""

    title: str
    content: str


def page(title: str, subtitle: str, top: str, sections: Iterable[Section]) -> str:
    """The page as HTML.

    Args:
        title: Plain text.
        subtitle: Plain text.
        top: HTML between the header and the sections.
        sections: In order.
    """
    shown = [section for section in sections if section.content]
    names = [re.sub(r"\W+", "-", section.title.lower()).strip("-") for section in shown]
    links = [
        f'<li><a href="#{name}">{escape(section.title)}</a></li>'
        for name, section in zip(names, shown, strict=True)
    ]
    parts = [
        f'<section aria-labelledby="{name}">\n<h2 id="{name}">{escape(section.title)}</h2>\n'
        f"{section.content}\n</section>"
        for name, section in zip(names, shown, strict=True)
    ]
    return _PAGE.substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        policy=_POLICY,
        style=files("maskclr_pl.reporting").joinpath("page.css").read_text(encoding="utf-8"),
        links="".join(links),
        content="\n".join((top, *parts)),
    )


def paragraph(text: str) -> str:
    """Plain text that explains what stands above it."""
    return f'<p class="soft">{escape(text)}</p>'


def heading(text: str) -> str:
    """A heading inside of a section."""
    return f"<h3>{escape(text)}</h3>"


def code(text: str) -> str:
    """Plain text as it stands."""
    return f"<pre>{escape(text)}</pre>"


def fold(summary: str, content: str) -> str:
    """HTML that is shown when it is asked for, and in print."""
    return f"<details><summary>{escape(summary)}</summary>\n{content}\n</details>"


def notes(title: str, lines: Sequence[str]) -> str:
    """What a reader has to know first; nothing if there are no lines."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return (
        f'<aside class="notes" aria-label="{escape(title)}"><h2>{escape(title)}</h2>'
        f"<ul>{items}</ul></aside>"
        if lines
        else ""
    )


def table(rows: Sequence[Mapping[str, Any]], caption: str) -> str:
    """Rows with the same keys; the first column names the row, a `Best` cell is bold."""
    if not rows:
        return ""
    names = list(rows[0])
    right = {name for name in names[1:] if is_numeric(row[name] for row in rows)}
    head = "".join(_cell("th", name, name in right, ' scope="col"') for name in names)
    body = "\n".join(
        "<tr>"
        + "".join(
            _cell("th", row[name], False, ' scope="row"')
            if name == names[0]
            else _cell("td", row[name], name in right)
            for name in names
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="table" role="region" tabindex="0" aria-label="{escape(caption)}">\n'
        f"<table>\n<caption>{escape(caption)}</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def _cell(tag: str, value: Any, right: bool, scope: str = "") -> str:
    text = escape(str(value))
    text = f"<strong>{text}</strong>" if isinstance(value, Best) else text
    # a hash or path may be broken anywhere, a word may not
    place = ' class="n"' if right else ' class="long"' if _LONG.search(str(value)) else ""
    return f"<{tag}{place}{scope}>{text}</{tag}>"


def picture(path: Path, alt: str, caption: str = "") -> str:
    """A picture inside of the page.

    Args:
        path: Of the PNG, SVG or GIF; of a PNG, the sharper SVG beside it is taken unless it is much
            larger.
        alt: What can be seen on it, for those who do not.
        caption: Below; the alternative text if there is none.
    """
    chosen = smallest_form(path)
    content = base64.b64encode(chosen.read_bytes()).decode("ascii")
    return (
        f'<figure><img src="data:{_TYPES[chosen.suffix]};base64,{content}" alt="{escape(alt)}">'
        f"<figcaption>{escape(caption or alt)}</figcaption></figure>"
    )


def smallest_form(path: Path) -> Path:
    """The file of a picture that a page should hold."""
    svg, png = path.with_suffix(".svg"), path.with_suffix(".png")
    if path.suffix == ".gif" or not svg.is_file():
        return path
    return png if png.is_file() and svg.stat().st_size > _LARGE_SVG else svg


def pictures_in(folder: Path, without: Iterable[str] = ()) -> list[Path]:
    """The pictures of a folder, one for each name, by name; no GIF that is too large for a page.

    Args:
        folder: Need not exist.
        without: Names without suffix that are not wanted.
    """
    found: dict[tuple[str, bool], Path] = {}
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        moving = path.suffix == ".gif"
        if path.suffix not in _TYPES or path.stem in without:
            continue
        if not moving or path.stat().st_size <= _LARGE_GIF:
            found.setdefault((path.stem, moving), path)
    return list(found.values())
