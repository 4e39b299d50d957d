"""Converting a pickle of NTU-60's size and layout: clips per second, and memory.

`python -m benchmarks.convert` writes 0.7 GB to a temporary folder, and a store of that size.
"""

import multiprocessing
import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CLIPS = 56_578
FRAMES = 100  # with one person in four of five clips, the published file's 705 MB


def write_pickle(path: Path, clips: int = CLIPS) -> None:
    """A file as pyskl publishes it, of random poses; needs little memory itself."""
    rng = np.random.default_rng(0)
    longest = 2 * (FRAMES + 40) * 17
    pool = rng.normal(500, 100, (longest + clips, 2)).astype(np.float16)
    scores = rng.random(longest + clips).astype(np.float16)
    annotations = []
    for i in range(clips):
        persons, frames = 1 + (i % 5 == 0), FRAMES - 40 + i % 81
        joints = persons * frames * 17
        setup, camera, subject, action = i % 17 + 1, i % 3 + 1, i // 3 % 40 + 1, i // 120 % 60 + 1
        annotations.append(
            {
                "frame_dir": f"S{setup:03d}C{camera:03d}P{subject:03d}R{i:06d}A{action:03d}",
                "label": action - 1,
                "img_shape": (1080, 1920),
                "original_shape": (1080, 1920),
                "total_frames": frames,
                # windows of one pool: every clip has other values, and arrays of its own
                "keypoint": pool[i : i + joints].reshape(persons, frames, 17, 2),
                "keypoint_score": scores[i : i + joints].reshape(persons, frames, 17),
            }
        )
    names = [one["frame_dir"] for one in annotations]
    split = {"xsub_train": names[:40_091], "xsub_val": names[40_091:]}
    with path.open("wb") as file:
        # the protocol of MMAction2's files, and the slowest to read
        pickle.dump({"split": split, "annotations": annotations}, file, protocol=2)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ntu60.pkl"
        # in a process of its own: the peak of a parent counts as that of its children
        writer = multiprocessing.get_context("spawn").Process(target=write_pickle, args=(path,))
        writer.start()
        writer.join()
        size = path.stat().st_size / 1e6
        sys.stdout.write(f"pickle of {CLIPS} clips, {size:.0f} MB\n")
        start = time.perf_counter()
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "maskclr_pl.prepare", f"input={path}"),
                *(f"output={folder}/ntu60.h5", "skeleton=coco17"),
            ],
            stdout=subprocess.DEVNULL,
            cwd=folder,
        )
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit("prepare failed")
        seconds = time.perf_counter() - start
        peak = usage.ru_maxrss / 1e3
        sys.stdout.write(
            f"  conversion    {CLIPS / seconds:8.0f} clips/s  ({size / seconds:.0f} MB/s)\n"
            f"  peak memory   {peak:8.0f} MB  (the file is {size:.0f} MB)\n"
        )


if __name__ == "__main__":
    main()
