"""A run stopped after half of its epochs and resumed equals one that was never stopped."""

import csv
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.helpers.commands import SMALL, in_process

pytestmark = pytest.mark.slow

CONSTANT = ["optim.schedule=constant", "optim.warmup_epochs=0"]
"""A learning rate that does not depend on the number of epochs, which differs."""
BLOCKS = ["backbone=sttformer", "backbone.blocks=[[8,8,4]]", "backbone.tuple_frames=2"]
QUEUE = ["method.queue_size=40", "augment=aimclr_2d", "clip.frames=8", *BLOCKS]
METHODS = {
    "recognizer": ["masking.start_epoch=0", *SMALL],
    "aimclr": ["method=aimclr", "method.mining_epoch=1", *QUEUE],
    "crossclr": ["method=crossclr", "method.cross_epoch=1", *QUEUE],
    "skeletonmae": ["method=skeletonmae", "method.decoder.blocks=[[8,4]]", *BLOCKS[1:2]],
    "mamp": ["method=mamp", "method.decoder.width=16", "backbone.dim=16", "backbone.heads=2"],
    "lift": ["method=lift", "backbone.dim=16", "backbone.rep_dim=16", "backbone.depth=1"],
}


LONG = ("crossclr", "skeletonmae", "lift", "mamp")


def curves(run: Path) -> dict[str, dict[str, str]]:
    """Logged values by epoch, without those that measure time."""
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    measured = ("second", "time", "memory")
    return {
        row["epoch"]: {k: v for k, v in row.items() if not any(m in k for m in measured)}
        for row in rows
    }


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=[pytest.mark.recipes] * (m in LONG)) for m in METHODS]
)
def test_resume_continues_exactly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    train = partial(in_process, "train", cwd=tmp_path, capsys=capsys)
    small = ["source.clips=64", "data.batch_size=16", "data.num_workers=0"]
    overrides = [*METHODS[method], *CONSTANT, *small, "trainer.accelerator=cpu"]
    half = 2 if method in ("aimclr", "crossclr") else 1  # their second stage begins in epoch 1
    train(*overrides, "output_dir=whole", f"trainer.max_epochs={2 * half}")
    train(*overrides, "output_dir=part", f"trainer.max_epochs={half}")
    train("resume=part", f"trainer.max_epochs={2 * half}")
    whole, part = (
        torch.load(tmp_path / run / "checkpoints/last.ckpt", weights_only=True)
        for run in ("whole", "part")
    )
    assert whole["epoch"] == part["epoch"] == 2 * half - 1
    for name, value in whole["state_dict"].items():
        torch.testing.assert_close(part["state_dict"][name], value, rtol=0, atol=0, msg=name)
    assert curves(tmp_path / "part") == curves(tmp_path / "whole")
