"""What pre-training is worth on two small real sets: same backbone, data, augmentation and epochs.

python -m benchmarks.pretraining DATA [--epochs 320]; DATA holds utd_mhad/ and gtu3d/. Every
start (a random backbone, four ways of learning without labels, two with them) is measured by a
linear probe and by fine-tuning. What is finished is kept: the same command continues after an
interruption.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TUNING = 30
"""Epochs of fine-tuning."""
SEEDS = (0, 1, 2)
SETS = {
    "utd_mhad": ("{0}/utd_mhad/utd_mhad.meta.yaml", "null", "xsub_train", "xsub_test"),
    "gtu3d": ("ntu25", "{0}/gtu3d/gtu3d.meta.yaml", "rand_train", "rand_test"),
}
"""Set: skeleton=, class_names=, training and test split."""
COMMON = [
    *("augment=aimclr", "clip.frames=16", "clip.persons=1", "data.num_workers=0"),
    *("backbone=transformer", "backbone.dim=48", "backbone.depth=2", "backbone.heads=4"),
    *("data.val_fraction=0", "monitor_split=last", "optim.lr=0.002"),
]
_DECODER = ["decoder=transformer", "method.decoder.width=48", "method.decoder.depth=1"]
_DECODER += ["method.decoder.heads=4"]
_CONTRAST = ["method.queue_size=256", "method.momentum=0.99", "method.temperature=0.2"]
STARTS = {
    "random encoder": None,
    "SkeletonMAE": [
        *("method=skeletonmae", "masking=random", "masking.start_epoch=0", *_DECODER),
        *("masking.strategy.scope=clip", "masking.strategy.ratio=0.6"),
    ],
    "MAMP": ["method=mamp", "masking.strategy.ratio=0.6", *_DECODER[1:]],
    "AimCLR": ["method=aimclr", *_CONTRAST],
    "CrosSCLR": ["method=crossclr", *_CONTRAST],
    "supervised": ["head=action_small", "loss=ce", "masking=none"],
    "MaskCLR": ["head=action_small"],
}
"""How a backbone starts. The last two learn from labels."""
TESTS = {
    "linear": ["method=linear_probe", "data.batch_size=256", "trainer.max_epochs=100"],
    "fine-tune": ["method=finetune", "head=action_small", f"trainer.max_epochs={TUNING}"],
}


def command(verb: str, *words: str) -> None:
    """Run a command of the package; what it prints is shown if it fails."""
    run = subprocess.run(
        [sys.executable, "-m", f"maskclr_pl.{verb}", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        sys.exit(f"{verb} {' '.join(words)}\n{run.stdout}{run.stderr}")


def train(folder: Path, *words: str) -> None:
    """A run, continued if it was interrupted, left alone if it is finished."""
    if (folder / "metrics.json").is_file():
        return
    if (folder / "checkpoints" / "last.ckpt").is_file():
        command("train", f"resume={folder}")
    else:
        free = next(n for n in range(100) if not folder.with_name(f"{folder.name}.{n}").exists())
        if folder.exists():  # stopped before its first checkpoint
            folder.rename(folder.with_name(f"{folder.name}.{free}"))
        command("train", *words, f"output_dir={folder}")


def chain(output: Path, epochs: int, name: str, start: str, seed: int) -> None:
    """One start and its tests."""
    train_split, test_split = SETS[name][2:]
    same = ["data=custom", f"data.path={output / name}.h5", f"seed={seed}", *COMMON]
    same += [f"data.train_split={train_split}", f"data.test_split={test_split}"]
    folder = output / f"{name}_{start.replace(' ', '_')}_{seed}"
    origin = "null"
    if words := STARTS[start]:
        train(folder, *same, *words, f"trainer.max_epochs={epochs}")
        origin = str(folder)
    for test, words in TESTS.items():
        own = [word for word in same if test != "linear" or not word.startswith("optim.")]
        train(folder.with_name(f"{folder.name}_{test}"), *own, *words, f"init_from={origin}")


def rows(output: Path) -> Iterator[list[str]]:
    """Of a Markdown table: top-1 as mean and standard deviation over the seeds that are there."""
    columns = [(name, test) for name in SETS for test in TESTS]
    yield ["start", *(f"{name}, {test}" for name, test in columns)]
    yield ["---"] * (1 + len(columns))
    for start in STARTS:
        cells = []
        for name, test in columns:
            files = [
                output / f"{name}_{start.replace(' ', '_')}_{seed}_{test}" / "metrics.json"
                for seed in SEEDS
            ]
            top1 = [json.loads(f.read_text())["test/top1"] for f in files if f.is_file()]
            spread = f" ± {statistics.stdev(top1):.1f}" if len(top1) > 1 else ""
            cells.append(f"{statistics.mean(top1):.1f}{spread} ({len(top1)})" if top1 else "")
        yield [start, *cells]


def main() -> None:
    """Make the stores, run everything, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="folder with utd_mhad/ and gtu3d/")
    parser.add_argument("--epochs", type=int, default=320, help="of every start but the random one")
    parser.add_argument("--output", type=Path, help="default: runs/pretraining_EPOCHS")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    args = parser.parse_args()
    output = args.output or Path(f"runs/pretraining_{args.epochs}")
    output.mkdir(parents=True, exist_ok=True)
    for name, (skeleton, names, *_) in SETS.items():
        store = output / f"{name}.h5"
        if not store.is_file():
            words = [f"input={args.data}/{name}/{name}.pkl", f"output={store}", "source=pyskl"]
            words += [f"skeleton={skeleton.format(args.data)}"]
            command("prepare", *words, f"class_names={names.format(args.data)}")
    todo = [(name, start, seed) for seed in SEEDS for name in SETS for start in STARTS]
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda job: chain(output, args.epochs, *job), todo))
    for row in rows(output):
        sys.stdout.write(f"| {' | '.join(row)} |\n")


if __name__ == "__main__":
    main()
