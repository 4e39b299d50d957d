"""Raw NTU RGB+D files, line by line and number by number."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Track:
    """One body: a list entry per frame in which it was seen."""

    frames: list[int] = field(default_factory=list)
    joints: list[list[list[float]]] = field(default_factory=list)
    color: list[list[list[float]]] = field(default_factory=list)
    state: list[list[int]] = field(default_factory=list)


def read(data: bytes) -> dict[int, Track]:
    """The bodies of a file; some exception if it is not one."""
    lines = iter(data.splitlines())
    tracks: dict[int, Track] = {}
    for frame in range(int(next(lines))):
        for _ in range(int(next(lines))):
            track = tracks.setdefault(int(next(lines).split()[0]), Track())
            rows = [next(lines).split() for _ in range(int(next(lines)))]
            assert len(rows) == 25
            assert all(len(row) == 12 for row in rows)
            numbers = [[float(value) for value in row[:7]] for row in rows]
            track.frames.append(frame)
            track.joints.append([row[:3] for row in numbers])
            track.color.append([row[5:7] for row in numbers])
            track.state.append([int(row[11]) for row in rows])
    assert not b"".join(lines).strip()
    return tracks


def width_and_height(joints: Any) -> tuple[float, float]:
    xs, ys = [joint[0] for joint in joints], [joint[1] for joint in joints]
    return max(xs) - min(xs), max(ys) - min(ys)


def motion(frames: Iterable[Any]) -> float:
    frames, total = list(frames), 0.0
    for axis in range(3):
        values = [float(joint[axis]) for joints in frames for joint in joints]
        mean = sum(values) / len(values)
        total += sum((value - mean) ** 2 for value in values) / len(values)
    return total


def two_actors(bodies: dict[int, dict[int, np.ndarray]]) -> np.ndarray:
    """The published rules on {id: {frame: (25, 3)}}, with true frame numbers: (M, T, 25, 3)."""
    left = dict(bodies)
    if len(left) > 1:
        long = {i: body for i, body in left.items() if len(body) > 11}
        left = long or left
    motions = {i: motion(body.values()) for i, body in left.items()}
    if len(left) > 1:
        for i, body in list(left.items()):
            if len(left) == 1:
                break
            sizes = {frame: width_and_height(joints) for frame, joints in body.items()}
            good = [frame for frame, (width, height) in sizes.items() if width <= 0.8 * height]
            if (len(body) - len(good)) / len(body) >= 0.69754:
                del left[i]
            elif len(good) < len(body):
                motions[i] = min(motions[i], motion(body[frame] for frame in good))
    slots: list[dict[int, np.ndarray]] = []
    spans: list[tuple[int, int]] = []
    for i in sorted(left, key=lambda i: motions[i], reverse=True):
        first, last = min(left[i]), max(left[i])
        for number in range(2):
            if number == len(slots):
                slots.append(dict(left[i]))
                spans.append((first, last))
                break
            begin, end = spans[number]
            if min(end, last) <= max(begin, first):
                slots[number].update(left[i])
                spans[number] = min(begin, first), max(end, last)
                break
    kept = sorted({frame for slot in slots for frame in slot})
    clip = np.zeros((len(slots), len(kept), 25, 3), np.float32)
    for m, slot in enumerate(slots):
        for t, frame in enumerate(kept):
            if frame in slot:
                clip[m, t] = slot[frame]
    return clip


def write(
    bodies: dict[int, dict[int, np.ndarray]],
    frames: int,
    shown: Any = "{:.7g}".format,
    *,
    newline: str = "\r\n",
    state: int = 2,
) -> bytes:
    """A file of these bodies, {id: {frame: (25, 3) or (25, 5) with the color coordinates}}."""
    lines = [str(frames)]
    for frame in range(frames):
        seen = {i: body[frame] for i, body in bodies.items() if frame in body}
        lines.append(str(len(seen)))
        for i, joints in seen.items():
            lines += [f"{i} 0 1 1 1 1 0 0.0276 -0.2464331 2", "25"]
            for joint in joints.tolist():
                xyz, color = map(shown, joint[:3]), map(shown, joint[3:] or (960.5, 540.25))
                lines.append(
                    f"{' '.join(xyz)} 277.3628 185.499 {' '.join(color)} "
                    f"0.1859628 -0.03331413 0.9771621 -0.09727453 {state}"
                )
    return (newline.join(lines) + newline).encode()


def person(
    frames: Iterable[int],
    *,
    x: float = 0.0,
    size: float = 1.0,
    flat: bool = False,
    seed: int = 0,
    values: int = 3,
) -> dict[int, np.ndarray]:
    """{frame: (25, values)}: somebody who moves, upright or as flat as furniture."""
    frames, rng = list(frames), np.random.default_rng((seed, 1))
    scale = np.array((1.5, 0.3, 0.3, 0, 0) if flat else (0.4, 1.6, 0.3, 0, 0))[:values] * size
    pose = rng.uniform(-0.5, 0.5, (25, values)) * scale + np.array((x, 0, 3, 960, 540))[:values]
    move = rng.normal(0, 0.02, (len(frames), 25, values)) + rng.normal(0, 0.05, (1, 1, values))
    return dict(zip(frames, (pose + move).astype(np.float32), strict=True))
