"""The HTML page: images, and how a browser shows it."""

import pytest
from markupsafe import Markup

from maskclr_pl.reporting.html import Section, Text, images_in, render_page, smallest_file
from tests.helpers.browser import CHROMIUM, visit
from tests.reporting.test_report import EVIL, report, two_models  # noqa: F401

needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium; on Debian and Ubuntu: apt install chromium"
)


def test_pictures(tmp_path):
    svg, png, gif, large = (tmp_path / name for name in ("a.svg", "a.png", "a.gif", "b.gif"))
    svg.write_bytes(b"1" * 10)
    png.write_bytes(b"1" * 5)
    gif.write_bytes(b"1")
    large.write_bytes(b"1" * 2_000_001)
    (tmp_path / "notes.txt").write_text("")
    assert images_in(tmp_path) == [gif, png]
    assert images_in(tmp_path, exclude=["a"]) == images_in(tmp_path / "none") == []
    assert smallest_file(png) == smallest_file(svg) == svg
    svg.write_bytes(b"1" * 400_001)
    assert smallest_file(png) == png


@needs_browser
def test_browser_shows_the_page_without_requests(tmp_path, report):  # noqa: F811
    """No script, no error, no request; and what is written is what is shown."""
    evil = {"classes": [EVIL, "b", "c"]}
    seen = visit(report(*two_models(tmp_path, **evil)) / "report.html", tmp_path)
    assert seen.console == []
    assert seen.requests == []
    assert "&lt;script&gt;alert(1)" in seen.document
    assert "ours minus twin" in seen.document


@needs_browser
def test_browser_detects_requests_and_scripts(tmp_path):
    """The same look at a page with all that ours must not have."""
    bad = '<img src="http://127.0.0.1:9/x.png"><script>undefined_function()</script>'
    (tmp_path / "bad.html").write_text(f"<!DOCTYPE html><body>{bad}</body>")
    seen = visit(tmp_path / "bad.html", tmp_path)
    assert seen.requests == ["http://127.0.0.1:9/x.png"]
    assert any("undefined_function is not defined" in line for line in seen.console)
    # and were something to get in, the page itself would forbid it
    (tmp_path / "page.html").write_text(
        render_page("t", "s", [], [Section("x", [Text(Markup(bad))])])
    )
    seen = visit(tmp_path / "page.html", tmp_path)
    assert seen.requests == []
    assert any("Content Security Policy" in line for line in seen.console)
