"""Files of weights, and the command that starts from them."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from maskclr_pl.backbones.weight_files import read_weights
from maskclr_pl.types import InputError
from tests.helpers.commands import in_process, last_line
from tests.reference import published


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def evil(folder: Path) -> Path:
    path = folder / "evil.pth"
    torch.save({"model": published.motionbert(), "args": Payload(f"touch {folder / 'ran'}")}, path)
    return path


def test_code_in_a_weight_file_is_not_executed(tmp_path):
    with pytest.raises(InputError, match=r"evil\.pth: not a readable checkpoint"):
        read_weights(evil(tmp_path))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("package", ["numpy.core", "numpy._core"])
def test_scalars_of_old_and_new_numpy_are_read(tmp_path, package):
    """A pickled NumPy number names the package as it was called when the file was written."""
    torch.save(published.numbers(), tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "a.pth").read_bytes()
    assert b"cnumpy._core.multiarray\n" in content
    renamed = content.replace(b"cnumpy._core.multiarray\n", f"c{package}.multiarray\n".encode())
    (tmp_path / "a.pth").write_bytes(renamed)
    actual = read_weights(tmp_path / "a.pth")
    assert (actual["best_acc"], actual["min_loss"], actual["step"]) == (0.913, 1.5, 3)
    assert actual["args"].betas == [0.9, 0.95]


def _half(path: Path) -> None:
    torch.save(published.motionbert(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _half_safetensors(path: Path) -> None:
    safetensors.torch.save_file(published.motionbert(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FILES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "nothing there": ("a.pth", lambda path: None, "no such file"),
    "nothing there, safetensors": ("a.safetensors", lambda path: None, "no such file"),
    "a broken link": ("a.pth", lambda path: path.symlink_to("gone"), "no such file"),
    "a folder": ("a.pth", lambda path: path.mkdir(), "is a folder; pass the path of"),
    "a folder, safetensors": ("a.safetensors", lambda path: path.mkdir(), "is a folder; pass"),
    "an empty file": ("a.pth", lambda path: path.write_bytes(b""), "not a readable"),
    "empty safetensors": ("a.safetensors", lambda path: path.write_bytes(b""), "not a readable"),
    "text": ("a.pth", lambda path: path.write_text("weights"), "not a readable"),
    "text in safetensors": ("a.safetensors", lambda path: path.write_text("a" * 99), "not a read"),
    "half a file": ("a.pth", _half, "not a readable"),
    "half of safetensors": ("a.safetensors", _half_safetensors, "not a readable"),
    "a tensor": (
        "a.pth",
        partial(torch.save, torch.zeros(3)),
        "(a dict), got Tensor",
    ),
    "a list": (
        "a.pth",
        partial(torch.save, [torch.zeros(3)]),
        "(a dict), got list",
    ),
    "a whole module": ("a.pth", partial(torch.save, nn.Linear(1, 1)), "not a readable"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_without_weights_are_refused(tmp_path, case):
    name, write, message = FILES[case]
    write(tmp_path / name)
    with pytest.raises(InputError) as caught:
        read_weights(tmp_path / name)
    assert message in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


# --- the command ----------------------------------------------------------------------------------

TINY = [
    *("backbone=transformer", "backbone.dim=16", "backbone.depth=2", "backbone.heads=2"),
    *("backbone.max_frames=12", "clip.frames=12", "head=action_small", "source.clips=64"),
    *("trainer.accelerator=cpu", "trainer.limit_train_batches=2", "trainer.max_epochs=1"),
]


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    return partial(in_process, cwd=tmp_path, capsys=capsys)


def fails(command: Callable[..., str], *arguments: str) -> str:
    """The one line of a command that ends with status 2."""
    with pytest.raises(AssertionError) as caught:
        command("train", *arguments)
    status, *shown = str(caught.value).splitlines()
    assert status.endswith(": 2")
    [line] = [line for line in shown if line.startswith("error: ")]
    assert shown[-1] == line
    return line


@pytest.mark.recipes
def test_training_from_weights(tmp_path, command):
    """Printed, used, and no longer needed once the run has a checkpoint."""
    encoder = published.mamp(joints=17)
    weights = {**encoder, **published.mamp_decoder(joints=17)}
    torch.save({"model": weights, **published.numbers()}, tmp_path / "mamp.pth")
    printed = command("train", *TINY, "backbone.weights=mamp.pth", "output_dir=run", "optim.lr=0")
    [line] = [line for line in printed.splitlines() if line.startswith("weights")]
    assert line.startswith("weights    mamp.pth: 30 matched; 1 initialized (mask_token); ")
    assert " ignored (decoder_embed.weight, " in line
    trained = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(trained[f"backbone.{name}"], v) for name, v in encoder.items())
    (tmp_path / "mamp.pth").unlink()
    command("evaluate", "ckpt_path=run", "corruption=none", "device=cpu")
    assert (tmp_path / "run/robustness.csv").is_file()
    printed = command("train", "resume=run", "trainer.max_epochs=2")
    assert last_line(printed) == "run"
    assert "weights " not in printed
    last = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert last["epoch"] == 1
    config = tmp_path / "run/config.yaml"
    assert "weights: mamp.pth" in config.read_text()  # where it came from is not forgotten
    # one that was stopped before its first checkpoint starts from them again
    (tmp_path / "half").mkdir()
    (tmp_path / "half/config.yaml").write_bytes(config.read_bytes())
    assert fails(command, "resume=half") == "error: mamp.pth: no such file"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.pth", "gone.pth: no such file"),
        ("evil.pth", "evil.pth: not a readable checkpoint"),
        ("lite.pth", "do not fit this Transformer"),
        ("text.pth", "text.pth: not a readable checkpoint"),
        (".", ". is a folder; pass the path of the weights file itself"),
    ],
)
def test_unusable_weights_end_the_command_with_one_line(tmp_path, command, name, message):
    evil(tmp_path)
    torch.save(published.motionbert(joints=17), tmp_path / "lite.pth")
    (tmp_path / "text.pth").write_text("no weights")
    assert message in fails(command, *TINY, f"backbone.weights={name}", "output_dir=run")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "run").exists()
