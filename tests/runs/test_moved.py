"""Runs of earlier versions, whose files name classes where they were then."""

import shutil
from functools import partial
from pathlib import Path

import hydra
import pytest
import torch

from maskclr_pl.runs.moved import MOVED, update_config
from tests.faults.jobs import MAMP
from tests.helpers.commands import SILENT, in_process

EARLIER = {
    "maskclr_pl.runs.history.MetricsTable": "lightning.pytorch.loggers.CSVLogger",
    "maskclr_pl.methods.pretrain.decoders.": "maskclr_pl.methods.decoders.",
    "maskclr_pl.sources.synthetic.": "maskclr_pl.data.synthetic.",
    "monitor_split": "select_on",
    "normalize": "normalise",
}


def earlier(values):
    """The same values, as an earlier version wrote them."""
    if isinstance(values, dict):
        return {EARLIER.get(key, key): earlier(value) for key, value in values.items()}
    if isinstance(values, list):
        return [earlier(value) for value in values]
    for new, old in EARLIER.items():
        if isinstance(values, str) and values.startswith(new):
            return old + values.removeprefix(new)
    return values


@pytest.mark.slow
def test_a_run_of_an_earlier_version_is_continued_and_started_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = partial(in_process, "train", cwd=tmp_path)
    words = [word for word in MAMP if not word.startswith(("data", "output_dir"))]
    words += ["source.clips=64", "data.batch_size=16", "trainer.max_epochs=1"]
    train(*words, "output_dir=run", capsys=SILENT)
    config = tmp_path / "run/config.yaml"
    text = config.read_text()
    for new, old in EARLIER.items():
        assert new in text
        text = text.replace(new, old)
    config.write_text(text)
    for path in (tmp_path / "run/checkpoints").glob("*.ckpt"):
        content = torch.load(path, weights_only=True)
        content["maskclr_pl"]["config"] = earlier(content["maskclr_pl"]["config"])
        torch.save(content, path)
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    printed = train("resume=run", "trainer.max_epochs=2", capsys=capsys)
    assert "resume     epoch 2 of 2" in printed
    printed = train("method=linear_probe", "init_from=other", "debug=fast", capsys=capsys)
    assert "start      backbone from other" in printed
    in_process("embed", "ckpt_path=other", cwd=tmp_path, capsys=capsys)
    assert (tmp_path / "other/features.h5").is_file()


@pytest.mark.parametrize("old", [name for name in MOVED if not name.endswith(".")])
def test_names_of_today_are_there(old: str) -> None:
    assert hydra.utils.get_class(update_config({"a": [{"_target_": old}]})["a"][0]["_target_"])
