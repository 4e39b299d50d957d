"""Speed of reading raw NTU RGB+D files, compared with reading line by line in the same run.

Target: at least 3 times as fast as line by line. `python -m benchmarks.ntu_text` writes clips of
typical size with seven significant digits to a temporary folder. Every reader returns the joints in
meters and the tracking states as arrays; the best of several runs counts.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tests.reference.ntu_skeleton import write

from maskclr_pl.sources.ntu.parser import parse

CLIPS, FRAMES, REPEATS = 12, 100, 15
Track = tuple[list[int], np.ndarray, np.ndarray]


def ours(path: Path) -> list[Track]:
    bodies = parse(path.read_bytes(), path.name)
    return [(body.frames.tolist(), body.joints, body.state) for body in bodies]


def line_by_line(path: Path) -> list[Track]:
    """Split every line and convert every value of a joint to a number."""
    rows: dict[str, list[Any]] = {}
    seen: dict[str, list[int]] = {}
    with open(path) as file:
        for frame in range(int(file.readline())):
            for _ in range(int(file.readline())):
                body = file.readline().split()[0]
                joints = [
                    [float(value) for value in file.readline().split()]
                    for _ in range(int(file.readline()))
                ]
                rows.setdefault(body, []).append(joints)
                seen.setdefault(body, []).append(frame)
    arrays = {body: np.array(values) for body, values in rows.items()}
    return [
        (seen[body], array[..., :3].astype(np.float32), array[..., 11].astype(np.uint8))
        for body, array in arrays.items()
    ]


_KEYS = (
    *("x", "y", "z", "depthX", "depthY", "colorX", "colorY"),
    *("orientationW", "orientationX", "orientationY", "orientationZ", "trackingState"),
)


def joint_dicts(path: Path) -> list[Track]:
    """Read the whole file into nested dicts first, as widespread readers do."""
    frames = []
    with open(path) as file:
        for _ in range(int(file.readline())):
            bodies = []
            for _ in range(int(file.readline())):
                body = {"bodyID": file.readline().split()[0], "jointInfo": []}
                for _ in range(int(file.readline())):
                    values = map(float, file.readline().split())
                    body["jointInfo"].append(dict(zip(_KEYS, values, strict=True)))
                bodies.append(body)
            frames.append(bodies)
    names = sorted({body["bodyID"]: None for bodies in frames for body in bodies})
    tracks = []
    for name in names:
        seen = [t for t, bodies in enumerate(frames) if name in [body["bodyID"] for body in bodies]]
        xyz = np.zeros((len(seen), 25, 3), np.float32)
        state = np.zeros((len(seen), 25), np.uint8)
        for row, t in enumerate(seen):
            body = next(body for body in frames[t] if body["bodyID"] == name)
            for v, joint in enumerate(body["jointInfo"]):
                xyz[row, v] = joint["x"], joint["y"], joint["z"]
                state[row, v] = joint["trackingState"]
        tracks.append((seen, xyz, state))
    return tracks


def clip(seed: int) -> bytes:
    """One person, in every fourth clip two."""
    rng = np.random.default_rng(seed)
    bodies = {}
    for body in range(1 + (seed % 4 == 0)):
        pose = rng.uniform((-0.5, -0.9, 2.5, 800, 300), (0.5, 0.9, 3.5, 1100, 700), (25, 5))
        walk = rng.normal(0, 0.02, (FRAMES, 25, 5)).cumsum(0)
        bodies[72057594037931101 + body] = dict(enumerate(pose + walk))
    return write(bodies, FRAMES)


def same(first: list[Track], second: list[Track]) -> bool:
    return len(first) == len(second) and all(
        a[0] == b[0] and np.array_equal(a[1], b[1]) and np.array_equal(a[2], b[2])
        for a, b in zip(first, second, strict=True)
    )


def main() -> None:
    readers: dict[str, Callable[[Path], list[Track]]] = {
        "line by line": line_by_line,
        "dict per joint": joint_dicts,
        "ours": ours,
    }
    best = dict.fromkeys(readers, float("inf"))
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{seed}.skeleton" for seed in range(CLIPS)]
        for seed, path in enumerate(paths):
            path.write_bytes(clip(seed))
            assert same(ours(path), line_by_line(path))
            assert same(ours(path), joint_dicts(path))
        size = sum(path.stat().st_size for path in paths)
        for _ in range(REPEATS):
            for name, read in readers.items():
                start = time.process_time()
                for path in paths:
                    read(path)
                best[name] = min(best[name], time.process_time() - start)
    sys.stdout.write(f"raw NTU files, {CLIPS} clips, {size / 1e6:.1f} MB, 1 process\n")
    for name, seconds in best.items():
        sys.stdout.write(f"  {name:15s} {CLIPS / seconds:8.0f} clips/s\n")
    for name in ("line by line", "dict per joint"):
        sys.stdout.write(f"  ratio to {name:15s} {best[name] / best['ours']:6.1f}\n")


if __name__ == "__main__":
    main()
