"""Contrast over the clips of all ranks, with gradient: two processes equal one."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing

from maskclr_pl.losses import ClassContrast, SampleContrast, SupervisedContrast
from maskclr_pl.types import Prediction

RANKS, CLIPS = 2, 6
TERMS = {"sample": SampleContrast(), "class": ClassContrast(), "supervised": SupervisedContrast()}


def features() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    standard, masked = torch.randn(2, CLIPS, 8, generator=generator, dtype=torch.float64).float()
    return standard, masked, torch.tensor([0, 1, 2, 0, 1, 1])


def gradients(name: str, rows: slice) -> tuple[Tensor, Tensor]:
    standard, masked, label = features()
    standard = standard[rows].clone().requires_grad_()
    masked = masked[rows].clone().requires_grad_()
    none = torch.zeros(len(standard), 3)
    loss = TERMS[name](Prediction(none, standard), Prediction(none, masked), label[rows])
    loss.backward()
    return loss.detach(), torch.stack((standard.grad, masked.grad))


def rank_work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS
    )
    share = CLIPS // RANKS
    rows = slice(rank * share, (rank + 1) * share)
    torch.save({name: gradients(name, rows) for name in TERMS}, f"{folder}/rank{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, tuple[Tensor, Tensor]]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(rank_work, (str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(RANKS)]


@pytest.mark.parametrize("name", TERMS)
def test_two_ranks_equal_one(name: str, ranks: list[dict[str, tuple[Tensor, Tensor]]]) -> None:
    loss, whole = gradients(name, slice(None))
    for rank in ranks:
        torch.testing.assert_close(rank[name][0], loss, rtol=1e-5, atol=1e-6)  # order of sums
    # DDP averages the gradients of the ranks, so each must be `RANKS` times its share of the whole
    parts = torch.cat([rank[name][1] for rank in ranks], dim=1) / RANKS
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)  # order of sums
