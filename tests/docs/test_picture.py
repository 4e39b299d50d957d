"""The picture of the README, and the script that draws it."""

import importlib.util
from pathlib import Path

from PIL import Image

from maskclr_pl.sources.synthetic import ACTIONS

DOCS = Path(__file__).parents[2] / "docs"


def test_picture_is_an_animation_for_the_web() -> None:
    path = DOCS / "assets" / "masking.gif"
    assert path.stat().st_size < 500_000
    with Image.open(path) as picture:
        assert picture.n_frames >= 16


def test_script_uses_names_that_exist() -> None:
    spec = importlib.util.spec_from_file_location("picture", DOCS / "picture.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert set(script.ACTIONS) <= {action.name for action in ACTIONS}
