"""Pre-training as it is typed: it trains, goes on after a stop, and others take its backbone."""

from pathlib import Path

import pytest

from tests.helpers.commands import in_process

pytestmark = pytest.mark.slow

TINY = {
    "mamp": ["backbone.dim=16", "backbone.depth=1", "backbone.heads=2", "method.decoder.width=16"],
    "lift": ["backbone.dim=16", "backbone.rep_dim=16", "backbone.depth=1"],
    "skeletonmae": ["backbone.blocks=[[8,8,4]]", "method.decoder.blocks=[[8,4]]"],
}
TOY = ["source.clips=64", "data.batch_size=16", "trainer.accelerator=cpu"]


def test_backbone_goes_on_to_a_recognizer(tmp_path: Path, capsys):
    small = [*TINY["mamp"][:3], *TOY, "trainer.max_epochs=1"]
    command = ["method=mamp", TINY["mamp"][3], *small, "output_dir=first"]
    in_process("train", *command, cwd=tmp_path, capsys=capsys)
    # an evaluation of the same architecture starts from it
    printed = in_process(
        *("train", "backbone=transformer", "head=action_small", "loss=ce", "masking=none", *small),
        *("init_from=first/checkpoints/last.ckpt", "output_dir=second"),
        cwd=tmp_path,
        capsys=capsys,
    )
    assert "backbone from first" in printed
    # the probe reads features alone while it learns, and can draw nevertheless
    words = ["method=linear_probe", "init_from=first", "trainer.max_epochs=1", "output_dir=probe"]
    words += ["callbacks.figures.every_n_epochs=1"]
    in_process("train", *words, cwd=tmp_path, capsys=capsys)
    assert list((tmp_path / "probe/figures/epoch_001").glob("*.png"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["masking=none"], "masking=frames_joints"),
        (["masking=attention"], "masking=frames_joints"),
        (["masking.start_epoch=1"], r"a mask from epoch 0"),
        (["masking.strategy.ratio=1.0"], r"masks 102 of 102 tokens"),
        (["masking.strategy.ratio=0.001"], r"masks 0 of 102 tokens"),
        (["backbone=dstformer_tiny"], r"pass decoder=sttformer, decoder=linear"),
        (["loss=ce"], r"loss"),
        (["method.decoder.heads=5"], r"multiple of heads 5"),
        (
            ["callbacks.figures.every_n_epochs=1", "callbacks.figures.names=[tsne,confusion]"],
            r"figure confusion: MaskedAutoencoder is not a classifier; expected attention,",
        ),
    ],
)
def test_mistakes_end_in_one_line(tmp_path: Path, capsys, words, message):
    small = [] if "backbone=dstformer_tiny" in words else TINY["mamp"]
    with pytest.raises(AssertionError, match=message) as error:
        in_process("train", "method=mamp", *small, *TOY, *words, cwd=tmp_path, capsys=capsys)
    assert "Traceback" not in str(error.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["masking=random"], r"Lift has no masked pathway; pass masking=none"),
        (["backbone=transformer"], r"spans 4; pass backbone=dstformer"),
    ],
)
def test_what_lifting_cannot_use(tmp_path: Path, capsys, words, message):
    with pytest.raises(AssertionError, match=message):
        in_process("train", "method=lift", *TOY, *words, cwd=tmp_path, capsys=capsys)
    assert not (tmp_path / "runs").exists()
