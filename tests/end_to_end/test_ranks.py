"""Two processes learn what one does from the batch that they share: losses, gradients, queues."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing

from maskclr_pl.backbones.layers import DropPath
from maskclr_pl.data.dataset import collate
from maskclr_pl.distributed import draw_for_clips, mean_count
from maskclr_pl.heads import ActionHead
from tests.helpers.step_cases import case_of, ready

pytestmark = pytest.mark.slow

RANKS, SEED = 2, 77
METHODS = {
    **{"recognizer": "transformer", "aimclr": "transformer", "crossclr": "dstformer"},
    **{"mamp": "transformer", "skeletonmae": "transformer", "lift": "dstformer"},
}


def items(kind: str, joints: int) -> list[dict[str, Any]]:
    """Clips of which the first has one person and the second two: the ranks have three and five."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for index, persons in enumerate((1, 1, 1, 2, 1, 2)):
        clip = torch.rand(3, 2, 24, joints, generator=generator).numpy() - 0.5
        clip[2] += 1
        clip[:, persons:] = 0
        clip[:, :, 3:9, 2] = 0  # joints that are missing for a while
        present = torch.tensor([True, persons == 2]).numpy()
        shown = {"clip": clip, "present": present, "frame": torch.arange(24).numpy()}
        found.append({**shown, "label": index % 3, "index": index})
    return found


def step(name: str, rows: slice) -> dict[str, Tensor]:
    """Values of a training step of the clips of these rows, and its gradients."""
    torch.manual_seed(3)
    _, source, method, masking = case_of(name, METHODS[name], "3D")
    batch: Any = collate(items("3D", len(source))[rows])
    ready(method, batch, masking, torch.device("cpu"))
    for module in method.modules():  # each rank has dropout and BatchNorm statistics of its own
        if isinstance(module, ActionHead | DropPath):
            module.eval()
    logged: dict[str, Tensor] = {}
    method.log_step = lambda values, clips: logged.update(values)  # type: ignore[method-assign]
    method.step_seed = lambda batch_idx: SEED  # type: ignore[method-assign]
    torch.manual_seed(SEED)  # a single process goes on with torch's own generator
    outputs = method.training_step(batch, 1)  # type: ignore[operator]
    outputs["loss"].backward()
    values = {f"logged {key}": value.detach().float() for key, value in logged.items()}
    for key, parameter in method.named_parameters():
        if parameter.grad is not None:
            values[key] = parameter.grad
    if outputs.get("mask") is not None:
        values["hidden"] = outputs["mask"].float().sum()
    values |= {key: value for key, value in method.named_buffers() if key.startswith("queue.")}
    return values


def rank_work(rank: int, folder: str) -> None:
    """One of the ranks, or, as the last process, the one that the ranks are compared with."""
    torch.set_num_threads(1)
    if rank == RANKS:
        torch.save({name: step(name, slice(None)) for name in METHODS}, f"{folder}/rank{rank}.pt")
        return
    meet = f"file://{folder}/meet"
    distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=RANKS)
    rows = slice(rank * 3, rank * 3 + 3)
    torch.save({name: step(name, rows) for name in METHODS}, f"{folder}/rank{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(rank_work, (str(folder),), nprocs=RANKS + 1)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(RANKS + 1)]


@pytest.mark.parametrize("name", METHODS)
def test_two_ranks_equal_one(name: str, ranks: list[dict[str, dict[str, Tensor]]]) -> None:
    """Kind: a training that depends on how many processes it runs in.

    Losses and gradients are means over the ranks, as DDP and `log_step` make them.
    """
    *found, whole = [rank[name] for rank in ranks]
    assert found[0].keys() == found[1].keys() == whole.keys()
    assert any("loss" in key for key in whole)
    for key, expected in whole.items():
        pair = torch.stack([one[key] for one in found])
        if key.startswith("queue."):
            assert torch.equal(pair[0], pair[1])
            torch.testing.assert_close(pair[0], expected, rtol=1e-5, atol=1e-6, msg=key)
        elif key == "hidden":
            assert pair.sum() == expected
        else:  # sums in another order
            torch.testing.assert_close(pair.mean(0), expected, rtol=1e-4, atol=1e-6, msg=key)


def test_a_single_process_shares_nothing() -> None:
    assert mean_count(torch.tensor(0)) == 1
    assert mean_count(torch.tensor(6)) == 6
    assert draw_for_clips((2,), torch.device("cpu"), lambda x, g: x.fill_(1)).tolist() == [1, 1]
