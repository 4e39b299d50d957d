"""Memory of a training step: what is estimated on fake tensors is what a real step takes."""

import copy
import re

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_leaves

from maskclr_pl.analysis.estimate import checkpoint_bytes, format_duration
from maskclr_pl.analysis.memory import step_loss, training_memory
from maskclr_pl.backbones import Transformer
from maskclr_pl.config.paths import config_dir
from maskclr_pl.methods import Method
from maskclr_pl.training import preflight
from tests.analysis.test_cost import TINY
from tests.helpers.commands import in_process
from tests.helpers.protocol_tools import shared, state_of, toy_data, toy_store, trainer
from tests.helpers.step_tools import batch_of, clips_of_a_step, composed

SMALL = {
    "dstformer": ("backbone=dstformer", "backbone.dim=64", "backbone.rep_dim=64"),
    "sttformer": ("backbone=sttformer", "backbone.blocks=[[16,16,8],[16,32,8],[32,32,8]]"),
    "transformer": ("backbone=transformer", "backbone.dim=64"),
}
DEEP = ("backbone.depth=2",)
RECOGNIZER = ("data=custom", "loss=maskclr", "masking=attention", "head=action_small")
AUTOENCODER = ("method=skeletonmae", "data=custom", "augment=ntu3d")
CASES = {
    "recognizer dstformer": (*RECOGNIZER, *SMALL["dstformer"], *DEEP),
    "recognizer dstformer again": (*RECOGNIZER, *SMALL["dstformer"], *DEEP, "checkpointing=true"),
    "recognizer sttformer": (*RECOGNIZER, *SMALL["sttformer"]),
    "recognizer sttformer again": (*RECOGNIZER, *SMALL["sttformer"], "checkpointing=true"),
    "recognizer transformer": (*RECOGNIZER, *SMALL["transformer"], *DEEP),
    "recognizer transformer bf16": (*RECOGNIZER, *SMALL["transformer"], *DEEP),
    "autoencoder sttformer": (*AUTOENCODER, *SMALL["sttformer"], "decoder=linear"),
    "autoencoder transformer": (
        *(*AUTOENCODER, *SMALL["transformer"], *DEEP, "decoder=transformer"),
        *("masking=random", "masking.start_epoch=0"),
    ),
    "aimclr sttformer": (
        *("method=aimclr", "data=custom", "augment=aimclr", "method.queue_size=512"),
        *SMALL["sttformer"],
    ),
    "lift dstformer": (
        *("method=lift", "data=custom", "augment=ntu3d", *SMALL["dstformer"], *DEEP),
    ),
}
QUICK = (
    *("recognizer dstformer", "recognizer dstformer again", "recognizer sttformer"),
    *("recognizer transformer bf16", "autoencoder transformer", "aimclr sttformer"),
    *("maskclr_dstformer", "lift_dstformer"),
)
RECIPES = sorted(path.stem for path in (config_dir() / "experiment").glob("*.yaml"))


def _marked(case):
    return pytest.param(case, marks=() if case in QUICK else pytest.mark.recipes)


def measured(method, batch, masking, half):
    """Bytes at the peak of a real step: those held before it, and what torch's profiler saw."""
    method.log_dict = lambda *_, **__: None
    method.masking = masking
    method.train()
    others = [module for name, module in method.named_children() if name != "backbone"]
    optimizer, _ = method.optim.build(method.backbone, others, 1, 1, half is None)
    autocast = torch.autocast("cpu", half or torch.bfloat16, enabled=half is not None)
    step_loss(method, batch, autocast).backward()
    optimizer.step()
    held = [*method.parameters(), *method.buffers(), *batch.values()]
    held += [parameter.grad for parameter in method.parameters() if parameter.grad is not None]
    held += [v for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v)]
    base = sum(
        {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}.values()
    )
    held.clear()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        loss = step_loss(method, batch, autocast)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
    events = [e for e in trace.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = [e.nbytes() for e in sorted(events, key=lambda event: event.start_ns())]
    return base + int(max(torch.tensor(sizes).cumsum(0)))


@pytest.mark.slow
@pytest.mark.parametrize("case", [*map(_marked, CASES)])
def test_estimate_matches_a_real_step(case):
    """Kind: memory that is only known when it is exhausted.

    Beyond tensors, kernels take scratch space of their own, up to 2 MB here.
    """
    half = torch.bfloat16 if case.endswith("bf16") else None
    cfg, source, made, masking = composed(*CASES[case], "clip.frames=24", "data.batch_size=8")
    batch = batch_of(cfg, source, 10)
    estimate = training_memory(made, batch, masking, half)
    real = measured(copy.deepcopy(made), batch, masking, half)
    assert -0.01 * real < real - estimate.peak < 0.02 * real + 2e6


def test_estimation_has_no_side_effects():
    cfg, source, made, masking = composed(*CASES["recognizer sttformer"], "clip.frames=24")
    before, random = state_of(made), torch.get_rng_state()
    training_memory(made, batch_of(cfg, source, 10, "meta"), masking)
    assert made.masking is None
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in made.parameters())
    assert all(torch.equal(value, before[name]) for name, value in state_of(made).items())


@pytest.mark.recipes
@pytest.mark.parametrize("recipe", [*map(_marked, RECIPES)])
def test_recipes_fit_a_card_of_80_gb(recipe):
    """Kind: recipes that end in an out-of-memory error on the largest common card.

    With two persons in every clip, which is more than in any benchmark (NTU RGB+D: 1.2).
    """
    cfg, source, made, masking = composed(f"experiment={recipe}")
    batch = batch_of(cfg, source, 2 * clips_of_a_step(cfg), "meta")
    assert 1e8 < training_memory(made, batch, masking).peak < 80e9


def test_checkpoint_size_is_exact(tmp_path):
    method = Method(Transformer(**TINY), **shared())
    method.training_step = lambda batch, batch_idx: {"loss": method.embed(batch).square().sum()}
    one = trainer(epochs=1)
    one.fit(method, toy_data(toy_store(tmp_path)))
    one.save_checkpoint(tmp_path / "one.ckpt")
    content = torch.load(tmp_path / "one.ckpt", weights_only=True)
    parts = [content["state_dict"], content["optimizer_states"]]
    tensors = [leaf for leaf in tree_leaves(parts) if torch.is_tensor(leaf) and leaf.ndim]
    assert checkpoint_bytes(method) == sum(tensor.nbytes for tensor in tensors)


TOY = ("experiment=demo", "source.clips=120", "clip.frames=8", "data.batch_size=8", "seed=3")


@pytest.mark.slow
def test_debug_check_does_not_train(tmp_path, capsys):
    """Kind: what a training needs, result out by starting it."""
    shown = in_process("train", *TOY, "debug=check", cwd=tmp_path, capsys=capsys)
    lines = dict(line.split(maxsplit=1) for line in shown.splitlines())
    assert re.match(r"about \d+ MiB \(\d+ MiB weights", lines["memory"])
    assert "batches of 8 clips with up to 1" in lines["memory"]
    assert lines["disk"].startswith("3 checkpoints of ")
    assert re.match(r"about \S+ \S+ an epoch \(\d+ steps of .*masked pathway\), ", lines["time"])
    assert lines["next"] == f"python -m maskclr_pl.train {' '.join(TOY)}"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.slow
def test_insufficient_memory_is_a_warning(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(preflight, "free_memory", lambda device: 1_000_000)
    shown = in_process("train", *TOY, "debug=check", cwd=tmp_path, capsys=capsys)
    [warning] = [line for line in shown.splitlines() if line.startswith("warning: ")]
    assert "checkpointing=true" in warning
    assert "data.batch_size" in warning
    assert "trainer.precision=bf16-mixed" in warning
    assert "not measured" in shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.2 s"), (45, "45 s"), (200, "3:20 min"), (20_160, "5.6 h"), (864_000, "10.0 days")],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text
