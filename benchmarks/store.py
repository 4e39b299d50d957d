"""Opening a store of NTU-120's size, and reading clips at random.

`python -m benchmarks.store` writes 113,945 clips of random content to a temporary folder.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from maskclr_pl.data import Recording, write_store
from maskclr_pl.skeletons.skeleton import SKELETONS

CLIPS = 113_945

_OPEN = """
import sys, time
import torch
def resident():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * 4096 / 1e6
bare = resident()
start = time.perf_counter()
from maskclr_pl.data.store.reader import Store
imported = time.perf_counter() - start
start = time.perf_counter()
store = Store(sys.argv[1])
opened = time.perf_counter() - start
above = resident() - bare
start = time.perf_counter()
import numpy as np
for index in np.random.default_rng(0).integers(0, len(store), 2000):
    store.recording(int(index)).keypoint.max()
rate = 2000 / (time.perf_counter() - start)
print(f"  open          {opened:8.3f} s  (import of the package {imported:.1f} s)")
print(f"  memory        {above:8.1f} MB above Python with torch, package included")
print(f"  random reads  {rate:8.0f} clips/s")
"""


def recordings(clips: int, frames: int = 8) -> Iterator[Recording]:
    """Random clips with names like NTU's."""
    rng = np.random.default_rng(0)
    keypoint = rng.normal(500, 100, (1, frames, 17, 2)).astype(np.float16)
    score = rng.random((1, frames, 17)).astype(np.float16)
    for i in range(clips):
        name = f"S{i % 32 + 1:03d}C{i % 3 + 1:03d}P{i % 106 + 1:03d}R001A{i:06d}"
        yield Recording(name, i % 120, keypoint, score, (1080, 1920), subject=i % 106)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "big.h5"
        names = [recording.name for recording in recordings(CLIPS, 1)]
        splits = {"train": names[:63_026], "test": names[63_026:]}
        write_store(path, recordings(CLIPS), skeleton=SKELETONS["coco17"], splits=splits)
        sys.stdout.write(f"store of {CLIPS} clips, {path.stat().st_size / 1e6:.0f} MB\n")
        sys.stdout.flush()
        subprocess.run([sys.executable, "-c", _OPEN, str(path)], check=True)


if __name__ == "__main__":
    main()
