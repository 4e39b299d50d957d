"""The 3D pipeline of a training batch: ours, batched, against one clip after another.

`python -m benchmarks.transforms3d` on one thread. The baseline does what the released feeders
do for each item, in the way they do it (count valid frames, crop, resize as an image, one matrix
product a frame); they centre in advance and do not mind missing joints, ours does both on the fly.
"""

import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.augment import seconds
from maskclr_pl.transforms import Center, RandomRotation, ValidCropResize

CLIPS, PERSONS, FRAMES, JOINTS, WINDOW = 32, 2, 300, 25, 120


def per_item(clip: np.ndarray) -> torch.Tensor:
    """Crop, resize and rotate one clip (C, T, V, M)."""
    valid = int((clip.sum(0).sum(-1).sum(-1) != 0).sum())
    length = min(max(int(valid * np.random.uniform(0.5, 1)), 64), valid)  # noqa: NPY002
    start = np.random.randint(0, valid - length + 1)  # noqa: NPY002
    cropped = torch.tensor(clip[:, start : start + length])
    image = cropped.permute(0, 2, 3, 1).reshape(1, 1, -1, length)
    resized = F.interpolate(image, size=(image.shape[2], WINDOW), mode="bilinear")
    resized = resized.view(3, JOINTS, PERSONS, WINDOW).permute(0, 3, 1, 2).contiguous()
    (a, b, c), (d, e, f) = (angle := torch.empty(3).uniform_(-0.3, 0.3)).cos(), angle.sin()
    x = torch.tensor([[1, 0, 0], [0, a, d], [0, -d, a]])
    y = torch.tensor([[b, 0, -e], [0, 1, 0], [e, 0, b]])
    z = torch.tensor([[c, f, 0], [-f, c, 0], [0, 0, 1]])
    frames = resized.permute(1, 0, 2, 3).reshape(WINDOW, 3, -1)
    rotated = (z @ y @ x).repeat(WINDOW, 1, 1) @ frames
    return rotated.view(WINDOW, 3, JOINTS, PERSONS).permute(1, 0, 2, 3).contiguous()


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    clips = rng.normal(0, 0.3, (CLIPS, 3, FRAMES, JOINTS, PERSONS)).astype(np.float32)
    for clip, valid in zip(clips, rng.integers(60, 180, CLIPS), strict=True):
        clip[:, valid:] = 0
        clip[..., 1] *= rng.random() < 0.2  # four of five clips of NTU have one person
    # as the data module delivers them: padded to the longest of the batch, channels as planes
    longest = clips.any((0, 1, 3, 4)).nonzero()[0].max() + 1
    channels = clips[:, :, :longest].transpose(1, 0, 4, 2, 3)
    batch = torch.from_numpy(channels.copy()).movedim(0, -1)
    ours = nn.Sequential(Center(1), ValidCropResize(WINDOW, [0.5, 1.0]), RandomRotation())
    batched = seconds(lambda: ours(batch), 20)
    single = seconds(lambda: [per_item(clip) for clip in clips], 5)
    sys.stdout.write(
        f"3D pipeline {CLIPS} clips x {PERSONS} persons x {FRAMES} frames x {JOINTS} joints, "
        "1 thread\n"
        f"  one by one    {CLIPS / single:8.0f} clips/s (crop, resize, rotate)\n"
        f"  batched       {CLIPS / batched:8.0f} clips/s (centre, crop, resize, rotate)\n"
        f"  ratio         {single / batched:8.1f}\n"
    )


if __name__ == "__main__":
    main()
