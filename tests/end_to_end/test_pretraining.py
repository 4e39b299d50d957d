"""Pre-training as a user types it: runs without labels, their continuation, and what follows."""

from functools import partial
from pathlib import Path

import pytest
import torch

from maskclr_pl.checkpoint.load import load_run
from tests.end_to_end.test_chain import Command, weights
from tests.helpers.commands import SILENT, in_process, in_subprocess, last_line, refused

pytestmark = pytest.mark.slow

TINY = ["backbone=sttformer", "backbone.blocks=[[8,8,4],[8,8,4]]", "backbone.tuple_frames=2"]
DATA = ["source.clips=96", "clip.frames=8", "data.batch_size=8", "trainer.accelerator=cpu"]
METHODS = {
    "aimclr": ["method=aimclr", "method.queue_size=40"],
    "crossclr": ["method=crossclr", "method.queue_size=40"],
}
MINING = {"aimclr": "method.mining_epoch=1", "crossclr": "method.cross_epoch=1"}
"""The second stage from the second epoch on."""
COMMON = ["augment=aimclr_2d", "optim=aimclr", "optim.warmup_epochs=0", *TINY, *DATA]


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return partial(in_process, cwd=tmp_path, capsys=capsys)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of each method."""
    folder = tmp_path_factory.mktemp("runs")
    for name, words in METHODS.items():
        args = [*words, *COMMON, f"output_dir={name}", "trainer.max_epochs=1"]
        in_process("train", *args, cwd=folder, capsys=SILENT)
    return folder


@pytest.mark.parametrize(
    ("method", "stream", "part"),
    [
        ("aimclr", "joint", "backbone"),
        ("crossclr", "joint", "backbone"),
        ("crossclr", "bone", "backbones.bone"),
        ("crossclr", "joint_motion", "backbones.joint_motion"),
    ],
)
def test_the_encoder_of_a_stream_is_fine_tuned(
    runs: Path, capsys: pytest.CaptureFixture[str], method: str, stream: str, part: str
) -> None:
    supervised = ["head=linear", "loss=ce", "masking=none", "optim.lr=0", "optim.weight_decay=0"]
    output = in_process(
        *("train", *TINY, *DATA, *supervised, f"clip.stream={stream}", "debug=fast"),
        f"init_from={runs / method}",
        cwd=runs,
        capsys=capsys,
    )
    assert f"start      {part} from" in output
    before, after = weights(runs / method), weights(runs / last_line(output))
    name = "blocks.0.to_qkvs.weight"
    assert torch.equal(after[f"backbone.{name}"], before[f"{part}.{name}"])


def test_the_encoder_of_another_stream_is_not_taken_for_it(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["method=linear_probe", f"init_from={runs / 'crossclr'}", "clip.stream=bone_motion"]
    line = refused("train", *words, "debug=fast", cwd=runs, capsys=capsys)
    assert "backbones for joint, joint_motion, bone, but this run has clip.stream=bone_mo" in line
    assert line.endswith("pass clip.stream=joint")


def test_without_a_stream_typed_the_first_is_taken(
    tmp_path: Path, command: Command, runs: Path
) -> None:
    words = [*METHODS["crossclr"], *COMMON, "method.streams=[bone,joint_motion]", "debug=fast"]
    command("train", *words, "output_dir=two")
    printed = command("train", "method=knn", "init_from=two", "method.k=5", "output_dir=knn")
    assert "start      backbone from two" in printed
    assert "stream: bone\n" in (tmp_path / "knn/config.yaml").read_text()


def test_a_run_started_from_another_begins_with_equal_keys(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The key was made before the weights of the other run came."""
    start = f"init_from={runs / 'crossclr'}"
    words = [*METHODS["aimclr"], *COMMON, start, "method.momentum=1", "optim.lr=0"]
    words += ["debug=fast", "optim.weight_decay=0"]
    output = in_process("train", *words, cwd=runs, capsys=capsys)
    found, other = weights(runs / last_line(output)), weights(runs / "crossclr")
    name = "backbone.blocks.0.to_qkvs.weight"
    assert torch.equal(found[name], other[name])
    assert torch.equal(found[f"key.{name}"], other[name])


@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_is_enough(runs: Path, method: str) -> None:
    model, info = load_run(runs / method / "checkpoints/last.ckpt")
    assert info["config"]["monitor_split"] == "last"
    assert len(model.queue) == 40
    for name, value in weights(runs / method).items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method=aimclr"], r"needs a view `extreme`.*pass augment=aimclr .*augment=aimclr_2d"),
        (
            ["method=aimclr", "augment=aimclr_2d", "method.queue_size=32768"],
            r"queue_size=32768, but there are \d+ training clips.*pass method\.queue_size=\d+",
        ),
        (
            ["method=crossclr", "method.queue_size=32768"],
            r"queue_size=32768, but there are \d+ training clips",
        ),
        (
            ["method=crossclr", "clip.stream=bone"],
            r"CrosSCLR computes its streams",
        ),
        (["method=crossclr", "method.topk=0"], r"topk must be in \[1, "),
        (["method=aimclr", "augment=aimclr"], r"pass augment=aimclr_2d"),
        (["method=aimclr", "loss=ce"], r"loss"),
        (["method=aimclr", "augment=aimclr_2d", "monitor_split=val"], r"pass monitor_split=last"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_what_does_not_fit_is_said(command: Command, words: list[str], message: str) -> None:
    with pytest.raises(AssertionError, match=rf"error: .*{message}") as failure:
        command("train", *words, *TINY, *DATA)
    assert "Traceback" not in str(failure.value)


@pytest.mark.recipes
def test_two_processes_share_a_queue(tmp_path: Path) -> None:
    """DDP on two CPU processes: every key of both is enqueued, a gradient for each parameter."""
    ddp = ["trainer.devices=2", "trainer.strategy=ddp", "output_dir=run", "trainer.max_epochs=2"]
    words = [*METHODS["aimclr"], *COMMON, "trainer.limit_train_batches=2", "data.batch_size=16"]
    in_subprocess("train", *words, *ddp, cwd=tmp_path)
    state = weights(tmp_path / "run")
    # four steps of 16 keys, 8 of each process, into 40 slots
    assert state["queue.pointer"].item() == 64 % 40
    assert sorted(set(state["queue.age"].tolist())) == [0, 1, 2]
    content = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    first, second = (state["cpu"] for state in content["random_states"])
    assert not torch.equal(first, second)  # each goes on with its own draws
