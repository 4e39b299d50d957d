"""Pages in a browser without a screen, and as a parser sees them."""

import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # what the browser itself wants to ask finds nobody
    *(
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--enable-logging=stderr",
        "--v=0",
    ),
)


class Visit(NamedTuple):
    """What came of opening a page."""

    document: str
    """Its HTML, after scripts."""
    console: list[str]
    """What it said: errors of scripts, things that it was not allowed to load."""
    requests: list[str]
    """What it asked of a network."""


def visit(page: Path, scratch: Path) -> Visit:
    """Open a page with a new profile."""
    log = scratch / "net.json"
    run = subprocess.run(
        [
            *(str(CHROMIUM), *_FLAGS, f"--user-data-dir={scratch / 'profile'}"),
            *(f"--log-net-log={log}", "--dump-dom", page.resolve().as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    console = [line for line in run.stderr.splitlines() if ":CONSOLE" in line]
    events = (event.get("params", {}) for event in json.loads(log.read_text())["events"])
    # the browser's own requests are not made for a file
    asked = [one["url"] for one in events if "file://" in str(one.get("site_for_cookies"))]
    return Visit(run.stdout, console, asked)


_EMPTY = {"meta", "link", "img", "br", "hr", "input"}


class Outline(HTMLParser):
    """What a page consists of; raises if its tags are not balanced."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in _EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def all(self, name: str) -> list[dict[str, str | None]]:
        """Attributes of the tags of a name."""
        return [attrs for tag, attrs in self.tags if tag == name]

    @property
    def words(self) -> str:
        """All text, without the style sheet."""
        return " ".join(" ".join(self.text).split())
