"""`python -m maskclr_pl.embed ckpt_path=RUN`: write features of clips to a file."""

from pathlib import Path

from omegaconf import DictConfig

from maskclr_pl.analysis.features import ClipFeatures, embed, feature_attributes, write_features
from maskclr_pl.checkpoint.load import checkpoint_path, load_run
from maskclr_pl.checkpoint.restore import (
    iterate_batches,
    restore_data,
    select_device,
)
from maskclr_pl.cli import command, log
from maskclr_pl.command_line import shell_command
from maskclr_pl.config.container import to_container
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.data.dataset import ClipDataset
from maskclr_pl.runs.read import run_folder_of
from maskclr_pl.types import InputError

_PARTS = ("test", "train", "val")


@command("embed")
def main(cfg: DictConfig) -> None:
    """Write the backbone features of a split; works for every method."""
    run(cfg)


def run(cfg: DictConfig) -> Path:
    """Compute features and return the file."""
    path = checkpoint_path(cfg.ckpt_path, cfg.which)
    folder, split = run_folder_of(path), str(cfg.split)
    output = Path(str(cfg.output or folder / "features.h5"))
    if output.is_dir():
        raise InputError(f"{output} is a folder; pass output={output}/features.h5")
    method, info = load_run(path, cfg.trusted)
    data = restore_data(info, to_container(cfg.data), folder if split in ("train", "val") else None)
    device = select_device(cfg.device)
    method.to(device)
    clips = _select_clips(data, split)
    log.info(
        "embedding  %d clips of %s by %s, on %s", len(clips), data.store.path, path, device.type
    )
    features, label = embed(method, iterate_batches(method, data, clips, device))
    attributes = feature_attributes(
        info,
        run=str(folder),
        checkpoint=path.name,
        data=str(data.store.path),
        source_sha256=data.store.source_hash,
        split=split,
    )
    if older := write_features(output, ClipFeatures(features, label, clips.names, attributes)):
        log.info("kept       the earlier file as %s", older)
    log.info("features   %s   %d clips, %d dimensions", output, *features.shape)
    log.info("next       %s", shell_command("report", runs=[str(folder), "ANOTHER_RUN"]))
    return output


def _select_clips(data: SkeletonDataModule, split: str) -> ClipDataset:
    """Select the run's test, training or validation clips, or a split of the store by name."""
    if split in _PARTS:
        part: ClipDataset = getattr(data, split)
        if not len(part):
            raise InputError(f"split={split}: the run has no such clips; pass another split")
        return part.eval_view()
    if split not in data.store.splits:
        raise InputError(
            f"split={split}: expected {', '.join(_PARTS)}, or a split of {data.store.path}: "
            f"{', '.join(data.store.splits)}"
        )
    part = data.test.eval_view()
    part.rows = data.store.rows(split)
    return part


if __name__ == "__main__":
    main()
