"""Relative links and anchors in the README and the documentation resolve."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = [
    path
    for pattern in ("*.md", "docs/**/*.md", ".github/**/*.md")
    for path in sorted(ROOT.glob(pattern))
]


def text_of(page: Path) -> str:
    """A page without its code."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", text_of(page))


def anchors(page: Path) -> set[str]:
    """Anchors of the headings, as GitHub and MkDocs make them."""
    code = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", code, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), f"{page.relative_to(ROOT)}: no file {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.relative_to(ROOT)}: no heading {link}"


def test_pages_link_to_each_other() -> None:
    """Links to the repository root would break in the site, which holds docs/ alone."""
    for page in PAGES:
        if page.is_relative_to(ROOT / "docs"):
            for link in links(page):
                if not re.match(r"[a-z]+:|#", link):
                    target = (page.parent / link.split("#")[0]).resolve()
                    assert target.is_relative_to(ROOT / "docs"), f"{page}: {link}"


def test_navigation_lists_every_page() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())

    def files(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        children = entry.values() if isinstance(entry, dict) else entry
        return [file for child in children for file in files(child)]  # type: ignore[attr-defined]

    pages = {str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md")}
    assert set(files(config["nav"])) == pages


def test_included_files_exist() -> None:
    for page in PAGES:
        for name in re.findall(r'--8<-- "([^"]+)"', page.read_text()):
            assert (ROOT / name).is_file(), f"{page.relative_to(ROOT)}: {name}"


def test_named_sources_exist() -> None:
    """Files of this package that the documentation names in code."""
    for page in PAGES:
        if page.name in ("CHANGELOG.md", "deviations.md"):
            continue
        for name in re.findall(r"`((?:src|conf|tests|docs|notebooks)/[\w./-]+)`", page.read_text()):
            assert "GROUP" in name or (ROOT / name).exists(), f"{page.relative_to(ROOT)}: {name}"
