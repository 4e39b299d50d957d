"""Batches per second from a store of NTU-120's size, and the memory of its workers.

`python -m benchmarks.loader` writes a store of 113,945 clips to a temporary folder.
"""

import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from benchmarks.store import CLIPS, recordings
from maskclr_pl.data import write_store
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.skeletons.skeleton import SKELETONS

BATCH, BATCHES = 32, 60

# Forward and backward of the published DSTformer (42.5 M parameters, 243 frames of 17 joints, 1.18
# persons) in two pathways are about 2.5 TFLOP a clip, counting 2 FLOP per parameter and token; a
# card that does 300 TFLOP/s then takes 120 clips a second.
NEED = 120


def resident(pid: int) -> tuple[float, float]:
    """MB of a process: all it has mapped in memory, and its share of what others have as well."""
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {row.split(":")[0]: int(row.split()[1]) / 1e3 for row in rows}
    return sizes["Rss"], sizes["Pss"]


def loader(path: Path, workers: int):
    data = SkeletonDataModule(
        str(path), "train", "test", frames=243, batch_size=BATCH, num_workers=workers, copies="keep"
    )
    return data.train_dataloader()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "big.h5"
        names = [recording.name for recording in recordings(CLIPS, 1)]
        splits = {"train": names[:63_026], "test": names[63_026:]}
        write_store(path, recordings(CLIPS, 80), skeleton=SKELETONS["coco17"], splits=splits)
        sys.stdout.write(
            f"store of {CLIPS} clips, {path.stat().st_size / 1e6:.0f} MB; batches of {BATCH} "
            f"clips, 243 frames\n"
        )
        for workers in (0, 1, 2):
            batches = iter(loader(path, workers))
            next(batches)
            start = time.perf_counter()
            count = sum(1 for _ in islice(batches, BATCHES))
            rate = count / (time.perf_counter() - start)
            sys.stdout.write(
                f"  {workers} workers  {rate:8.1f} batches/s  {rate * BATCH:8.0f} clips/s  "
                f"{rate * BATCH / NEED:5.1f} x what a large card needs (computed)\n"
            )
        batches = iter(loader(path, 4))
        for _ in islice(batches, 40):
            pass
        sizes = [resident(worker.pid) for worker in batches._workers]
        rss, pss = (sum(column) for column in zip(*sizes, strict=True))
        sys.stdout.write(
            f"  4 workers: {rss:.0f} MB resident, {pss:.0f} MB counting shared pages once\n"
        )


if __name__ == "__main__":
    main()
