"""Every pre-training on its backbones, and what comes after it: a command each."""

from pathlib import Path

import pytest
import torch

from tests.helpers.commands import in_process

pytestmark = pytest.mark.slow

TRANSFORMER = ["backbone=transformer", "backbone.dim=16", "backbone.depth=1", "backbone.heads=2"]
STTFORMER = ["backbone=sttformer", "backbone.blocks=[[8,8,4],[8,8,4]]"]
DECODER = ["decoder=transformer", "method.decoder.width=16", "method.decoder.depth=1"]
QUEUE = ["augment=aimclr_2d", "method.queue_size=8"]
STARTS = {
    "mamp transformer": ["method=mamp", *TRANSFORMER, *DECODER],
    "skeletonmae transformer": [
        *("method=skeletonmae", "masking=random", "masking.start_epoch=0", *TRANSFORMER, *DECODER),
        "masking.strategy.scope=clip",
    ],
    "skeletonmae sttformer": ["method=skeletonmae", *STTFORMER, "method.decoder.blocks=[[8,4]]"],
    "aimclr sttformer": ["method=aimclr", *STTFORMER, *QUEUE],
    "crossclr sttformer": ["method=crossclr", *STTFORMER, *QUEUE],
}
AFTER = {
    "finetune": ["head=linear"],
    "linear_probe": [],
    "knn": ["method.k=5"],
}
COMMON = ["debug=fast", "~logger.csv", "data.num_workers=0"]


LONG = ("skeletonmae transformer", "skeletonmae sttformer", "aimclr sttformer")


@pytest.mark.parametrize(
    "start", [pytest.param(s, marks=[pytest.mark.recipes] * (s in LONG)) for s in STARTS]
)
def test_pretraining_and_its_protocols(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], start: str
) -> None:
    data = ["source.clips=64", "data.path=toy.h5", "clip.frames=12", "data.batch_size=8"]
    words = [*STARTS[start], *data, *COMMON, "output_dir=start"]
    in_process("train", *words, cwd=tmp_path, capsys=capsys)
    weights = {}
    for method, own in AFTER.items():
        words = [f"method={method}", "init_from=start", *own, *COMMON, f"output_dir={method}"]
        printed = in_process("train", *words, cwd=tmp_path, capsys=capsys)
        assert "inherited settings: backbone, clip, data, augment" in printed
        assert "result     test top1" in printed
    for run in ("start", *AFTER):
        state = torch.load(tmp_path / run / "checkpoints/last.ckpt", weights_only=True)
        weights[run] = {
            name: value
            for name, value in state["state_dict"].items()
            if name.startswith("backbone.") and "num_batches" not in name
        }
    for name, value in weights["start"].items():  # frozen, or trained on
        assert torch.equal(weights["linear_probe"][name], value), name
        assert torch.equal(weights["knn"][name], value), name
    changed = [n for n, v in weights["start"].items() if not torch.equal(weights["finetune"][n], v)]
    assert changed
