"""The version and its date are the same in every place that states them."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_citation_states_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == VERSION
    [date] = re.findall(
        rf"^## \[?{re.escape(VERSION)}\]? - (\S+)$",
        (ROOT / "CHANGELOG.md").read_text(),
        flags=re.MULTILINE,
    )
    assert citation["date-released"] == date


def test_package_reads_the_installed_version():
    from importlib.metadata import version

    import maskclr_pl

    assert maskclr_pl.__version__ == version("maskclr_pl")
